//! A history by what the checks ask for.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    super::line::{Kind, Line, What},
    Counts,
};

/// A chat and a place in it.
pub(super) type Place<'a> = (&'a str, u64);
/// A session and a chat.
pub(super) type View<'a> = (&'a str, &'a str);

/// How a connection ends that its own user ends.
const STOPPED: &str = "the client was stopped";

/// The history.
#[derive(Default)]
pub(super) struct Index<'a> {
    pub(super) lines: &'a [Line],
    pub(super) counts: Counts,
    /// By sender and client id, in the order of their first attempt.
    pub(super) sends: Vec<Send<'a>>,
    pub(super) send_of: HashMap<(&'a str, &'a str), usize>,
    pub(super) rows: BTreeMap<Place<'a>, usize>,
    pub(super) keys: Vec<usize>,
    pub(super) heads: Vec<usize>,
    /// First record of each place; and all, in the order of their partition.
    pub(super) records: BTreeMap<Place<'a>, usize>,
    pub(super) log: Vec<usize>,
    pub(super) has_scan: bool,
    pub(super) has_dump: bool,
    pub(super) committed: Vec<usize>,
    pub(super) sessions: BTreeMap<&'a str, Session<'a>>,
    /// What came over the wire, by push, own ack or page: each place's first time.
    pub(super) received: HashMap<View<'a>, BTreeMap<u64, Arrival>>,
    /// Pushes and own acks alone.
    pub(super) pushed: HashMap<View<'a>, BTreeMap<u64, Arrival>>,
    pub(super) pushes: Vec<usize>,
    pub(super) shows: Vec<usize>,
    pub(super) pages: Vec<usize>,
    pub(super) members: BTreeMap<&'a str, BTreeMap<&'a str, Membership>>,
    pub(super) refreshes: Vec<usize>,
    pub(super) resources: BTreeMap<&'a str, Vec<usize>>,
    /// The end of the last fault.
    pub(super) healed: u64,
}

/// A message that somebody tried to send, perhaps more than once.
pub(super) struct Send<'a> {
    pub(super) chat: &'a str,
    pub(super) client_id: &'a str,
    pub(super) body: Option<&'a str>,
    /// Lines of its attempts, answers, refusals and unknown ends.
    pub(super) invokes: Vec<usize>,
    pub(super) oks: Vec<usize>,
    pub(super) fails: Vec<usize>,
    pub(super) infos: Vec<usize>,
}

impl Send<'_> {
    /// Refused each time, for sure.
    pub(super) fn is_refused(&self) -> bool {
        self.oks.is_empty() && self.infos.is_empty() && self.fails.len() >= self.invokes.len()
    }
}

/// A client's life.
#[derive(Default)]
pub(super) struct Session<'a> {
    pub(super) user: Option<&'a str>,
    /// Connections: epoch, when it had caught up, when it ended.
    pub(super) connections: BTreeMap<u64, Connection>,
    /// It only reads everything at the end.
    pub(super) is_final: bool,
    /// When its user ended it for good.
    pub(super) ended: Option<u64>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Connection {
    pub(super) ready: Option<u64>,
    pub(super) closed: Option<u64>,
}

/// When something arrived first, and on which line.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: u64,
    pub(super) line: usize,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Membership {
    pub(super) added: u64,
    pub(super) removed: Option<(u64, usize)>,
}

impl<'a> Index<'a> {
    pub(super) fn new(lines: &'a [Line]) -> Self {
        let mut index = Self { lines, ..Self::default() };
        for number in 0..lines.len() {
            index.take(number);
        }
        index.log.sort_by_key(|line| (lines[*line].partition, lines[*line].offset));
        for line in index.log.clone() {
            if let Some(place) = place(&lines[line]) {
                index.records.entry(place).or_insert(line);
            }
        }
        index.count();
        index
    }

    fn take(&mut self, number: usize) {
        let line = &self.lines[number];
        match (line.what, line.kind) {
            (What::Send, _) => self.take_send(number),
            (What::Deliver, _) => {
                self.pushes.push(number);
                self.arrive(number, line.sequence, line.message_id.is_some());
            }
            (What::Show, _) => self.shows.push(number),
            (What::Sync, Kind::Ok) => {
                self.pages.push(number);
                if let Some(chat) = line.chat.as_deref() {
                    for (sequence, _, _) in &line.items {
                        first(self.received.entry((&line.session, chat)).or_default(), *sequence, line.at, number);
                    }
                }
            }
            (What::Connect, _) => {
                let session = self.session(line);
                session.connections.entry(line.epoch).or_default();
                session.ended = None;
            }
            (What::Ready, _) => {
                let at = line.at;
                self.session(line).connections.entry(line.epoch).or_default().ready.get_or_insert(at);
            }
            (What::Close, _) => {
                let at = line.at;
                let session = self.session(line);
                session.connections.entry(line.epoch).or_default().closed = Some(at);
                session.ended = (line.error.as_deref() == Some(STOPPED)).then_some(at);
            }
            (What::Final, _) => self.session(line).is_final = true,
            (What::AddMember | What::RemoveMember, Kind::Ok) => self.take_member(number),
            (What::Refresh, Kind::Ok) => self.refreshes.push(number),
            (What::Fault, kind) => {
                self.healed = self.healed.max(line.at);
                if kind == Kind::Invoke {
                    self.counts.faults += 1;
                }
            }
            (What::Log, _) => self.log.push(number),
            (What::Dumped, _) => self.has_dump = true,
            (What::Committed, _) => self.committed.push(number),
            (What::Row, _) => {
                if let Some(place) = place(line) {
                    self.rows.insert(place, number);
                }
            }
            (What::Key, _) => self.keys.push(number),
            (What::Head, _) => self.heads.push(number),
            (What::Scanned, _) => self.has_scan = true,
            (What::Resource, _) => self.resources.entry(&line.session).or_default().push(number),
            (What::Run | What::Sync | What::AddMember | What::RemoveMember | What::Refresh, _) => {}
        }
    }

    fn session(&mut self, line: &'a Line) -> &mut Session<'a> {
        let session = self.sessions.entry(&line.session).or_default();
        session.user = session.user.or(line.user.as_deref());
        session
    }

    fn take_send(&mut self, number: usize) {
        let line = &self.lines[number];
        let (Some(user), Some(client_id)) = (line.user.as_deref(), line.client_id.as_deref()) else { return };
        let place = *self.send_of.entry((user, client_id)).or_insert_with(|| {
            let chat = line.chat.as_deref().unwrap_or_default();
            let (invokes, oks, fails, infos) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let body = line.body.as_deref();
            self.sends.push(Send { chat, client_id, body, invokes, oks, fails, infos });
            self.sends.len() - 1
        });
        let send = &mut self.sends[place];
        match line.kind {
            Kind::Invoke => send.invokes.push(number),
            Kind::Ok => send.oks.push(number),
            Kind::Fail => send.fails.push(number),
            Kind::Info => send.infos.push(number),
        }
        // The ack of one's own message is its delivery to that connection.
        if line.kind == Kind::Ok {
            self.arrive(number, line.sequence, true);
        }
    }

    fn arrive(&mut self, number: usize, sequence: Option<u64>, is_whole: bool) {
        let line = &self.lines[number];
        if let (Some(chat), Some(sequence), true) = (line.chat.as_deref(), sequence, is_whole) {
            let view = (line.session.as_str(), chat);
            first(self.received.entry(view).or_default(), sequence, line.at, number);
            first(self.pushed.entry(view).or_default(), sequence, line.at, number);
        }
    }

    fn take_member(&mut self, number: usize) {
        let line = &self.lines[number];
        let (Some(user), Some(chat)) = (line.user.as_deref(), line.chat.as_deref()) else { return };
        let member = self.members.entry(chat).or_default().entry(user).or_default();
        if line.what == What::AddMember {
            *member = Membership { added: line.at, removed: None };
        } else {
            member.removed = Some((line.at, number));
        }
    }

    fn count(&mut self) {
        let mut wire = HashSet::new();
        let mut again = 0;
        for line in self.pushes.iter().chain(&self.pages).map(|line| &self.lines[*line]) {
            let chat = line.chat.as_deref().unwrap_or_default();
            for sequence in line.sequence.into_iter().chain(line.items.iter().map(|item| item.0)) {
                if !wire.insert((line.session.as_str(), chat, sequence)) {
                    again += 1;
                }
            }
        }
        let sends = &self.sends;
        self.counts.sends = sends.len();
        self.counts.acknowledged = sends.iter().filter(|send| !send.oks.is_empty()).count();
        self.counts.refused = sends.iter().filter(|send| send.is_refused()).count();
        self.counts.unknown = sends.len() - self.counts.acknowledged - self.counts.refused;
        self.counts.repeated = sends.iter().map(|send| send.invokes.len().saturating_sub(1)).sum();
        self.counts.rows = self.rows.len();
        self.counts.records = self.log.len();
        self.counts.repeated_records = self.log.len() - self.records.len();
        self.counts.pushes = self.pushes.len();
        self.counts.wire_duplicates = again;
        self.counts.pages = self.pages.len();
        self.counts.connections = self.sessions.values().map(|session| session.connections.len()).sum();
    }

    /// The first ack of a send: its line, place and id.
    pub(super) fn ack(&self, send: &Send<'a>) -> Option<(usize, u64, &'a str)> {
        let number = *send.oks.first()?;
        let line = &self.lines[number];
        Some((number, line.sequence?, line.message_id.as_deref()?))
    }

    /// Sessions of a user that lived through the run, not those of the end.
    pub(super) fn live_sessions(&self, user: &str) -> impl Iterator<Item = (&'a str, &Session<'a>)> {
        let all = self.sessions.iter().map(|(name, session)| (*name, session));
        all.filter(move |(_, session)| session.user == Some(user) && !session.is_final)
    }

    /// Who was in a chat all the time until the end.
    pub(super) fn stayed(&self, chat: &str) -> Vec<&'a str> {
        let all = self.members.get(chat).into_iter().flatten();
        all.filter(|(_, member)| member.removed.is_none()).map(|(user, _)| *user).collect()
    }
}

/// The chat and the place that a line names.
pub(super) fn place(line: &Line) -> Option<Place<'_>> {
    Some((line.chat.as_deref()?, line.sequence?))
}

fn first(all: &mut BTreeMap<u64, Arrival>, sequence: u64, at: u64, line: usize) {
    all.entry(sequence).or_insert(Arrival { at, line });
}
