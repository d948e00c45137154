//! The requests of one connection that wait or run: sends one at a time per chat, sync one at a time, the
//! rest at once, and never more than may be (D3.5, D5.6).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use domain::{Error, ErrorKind, error::Detail, ids::ChatId};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use proto::messaging::v1::AckDeliveryRequest;
use tokio::time::{Instant, sleep_until};

use crate::{
    Gateway,
    closing::Reason,
    config::Limits,
    connections::{Asked, Link, about},
    heartbeat::{self, Renewal},
    ingest::Pod,
    limits::{Pace, Rate, Window},
    metrics::{self, count},
    receive::{self, Acknowledged, Outgoing, PageRequest, Received, Refused},
    sync,
};

/// A heartbeat renews the registration unless it was renewed within this part of the interval.
const RENEWALS_PER_INTERVAL: u32 = 30;
/// Heartbeats in an interval, of which one is due, and at once.
const HEARTBEATS: (u32, u32) = (2, 10);
/// Who sent several messages to a chat at once, so lately, is waited for: the answers come one by one to the client, and so
/// do the next messages from it.
const LATELY: Duration = Duration::from_secs(1);
/// Acknowledgements of one chat that wait behind the one that runs: rising ones are one.
const ACKS_WAITING: usize = 3;
/// Frames of unknown type within a minute that are logged; a client may send as many as it likes.
const UNKNOWN_LOGGED: usize = 10;

/// What has ended.
enum Done {
    Sent(ChatId, usize, Option<Arc<Pod>>),
    Acknowledged(ChatId),
    Synced,
    Other,
}

/// Sends to a chat that wait for others.
struct Gathering {
    chat: ChatId,
    /// With so many they wait no longer.
    count: usize,
    until: Instant,
}

/// The requests of one connection.
pub struct Inbound {
    gateway: Arc<Gateway>,
    link: Arc<Link>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Requests that wait or run.
    count: usize,
    /// Chats with a send that runs, and the sends behind it.
    sends: HashMap<ChatId, VecDeque<Outgoing>>,
    /// Those of them whose first send is to be started: with what is read by then.
    starting: Vec<ChatId>,
    /// When several sends of one chat had their answers, and how many.
    answered: Option<(Instant, usize)>,
    gathering: Option<Gathering>,
    /// Chats with an acknowledgement that runs, and those behind it.
    acks: HashMap<ChatId, Vec<Acknowledged>>,
    /// Behind the page that is under way.
    pages: VecDeque<PageRequest>,
    is_syncing: bool,
    pace: Paces,
    invalid: Window,
    refused: Window,
    unknown: Window,
    renewed_at: Instant,
    last_heartbeat: Instant,
}

/// How often this connection may ask.
struct Paces {
    sends: Pace,
    pages: Pace,
    heads: Pace,
    heartbeats: Pace,
}

impl Paces {
    fn new(limits: &Limits, now: Instant) -> Self {
        let sync = Rate::new(limits.sync_rate, limits.sync_burst);
        let (count, burst) = HEARTBEATS;
        let heartbeats = Rate::within(count, limits.heartbeat_interval, burst);
        Self {
            sends: Pace::new(Rate::new(limits.send_rate, limits.send_burst), now, "too many messages"),
            pages: Pace::new(sync, now, "too many sync requests"),
            heads: Pace::new(sync, now, "too many requests for heads"),
            heartbeats: Pace::new(heartbeats, now, "too many heartbeats"),
        }
    }
}

impl Inbound {
    /// Nothing waits yet.
    pub fn new(gateway: Arc<Gateway>, link: Arc<Link>) -> Self {
        let limits = gateway.limits.clone();
        let now = Instant::now();
        Self {
            gateway,
            link,
            running: FuturesUnordered::new(),
            count: 0,
            sends: HashMap::new(),
            starting: Vec::new(),
            answered: None,
            gathering: None,
            acks: HashMap::new(),
            pages: VecDeque::new(),
            is_syncing: false,
            pace: Paces::new(&limits, now),
            invalid: Window::new(limits.frame_invalid, limits.frame_invalid_within),
            refused: Window::new(limits.frame_refused, Duration::from_mins(1)),
            unknown: Window::new(UNKNOWN_LOGGED, Duration::from_mins(1)),
            renewed_at: now,
            last_heartbeat: now,
        }
    }

    /// Whether every request has its answer.
    pub fn is_idle(&self) -> bool {
        self.count == 0
    }

    /// When the client last said that it is there.
    pub fn last_heartbeat(&self) -> Instant {
        self.last_heartbeat
    }

    /// Lets the requests go on until one has ended; `None` when there is none.
    pub async fn progress(&mut self) -> Option<()> {
        for chat in std::mem::take(&mut self.starting) {
            self.start_sends(chat, None);
        }
        let until = self.gathering.as_ref().map(|gathering| gathering.until);
        let done = tokio::select! {
            done = self.running.next(), if !self.running.is_empty() => done?,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                if let Some(Gathering { chat, .. }) = self.gathering.take() {
                    self.start_sends(chat, None);
                }
                return Some(());
            }
            else => return None,
        };
        match done {
            Done::Sent(chat, count, pod) => {
                self.count -= count;
                if !self.gathers(chat, count) {
                    self.start_sends(chat, pod);
                }
            }
            Done::Acknowledged(chat) => {
                let next = self.acks.get_mut(&chat).and_then(|all| {
                    all.remove(0);
                    all.first().copied()
                });
                match next {
                    Some(next) => self.run_ack(next),
                    None => forget(&mut self.acks, &chat),
                }
            }
            Done::Synced => {
                self.count -= 1;
                self.is_syncing = false;
                if let Some(next) = self.pages.pop_front() {
                    self.start_sync(next);
                }
            }
            Done::Other => self.count -= 1,
        }
        Some(())
    }

    /// Takes a request on, or refuses it.
    pub fn take(&mut self, received: Result<Received, Refused>) {
        let now = Instant::now();
        let kind = received.as_ref().map_or(metrics::Received::Invalid, Received::kind);
        self.gateway.metrics.received(kind);
        match received {
            Err(Refused { request_id, error }) => {
                self.link.refuse(&self.gateway, Asked { kind, request_id: &request_id, chat: None }, &error);
                let is_invalid = matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::BadRequest);
                if is_invalid && self.invalid.is_reached_by(now) {
                    self.link.close(Reason::ProtocolError);
                }
            }
            Ok(Received::Unknown { request_id, name }) => {
                if !self.unknown.is_reached_by(now) {
                    self.link.log_unknown(Asked { kind, request_id: &request_id, chat: None }, &name);
                }
            }
            Ok(Received::Ack(ack)) => self.take_ack(ack),
            Ok(Received::Send(send)) => self.take_send(send, now),
            Ok(Received::Sync(page)) => {
                let paced = self.pace.pages.take(now);
                if self.admits(Asked { kind, request_id: &page.request_id, chat: Some(page.chat) }, paced) {
                    if self.is_syncing { self.pages.push_back(page) } else { self.start_sync(page) }
                }
            }
            Ok(Received::Heads(request_id, chats)) => {
                let paced = self.pace.heads.take(now);
                if self.admits(Asked { kind, request_id: &request_id, chat: None }, paced) {
                    let (gateway, link) = (self.gateway.clone(), self.link.clone());
                    self.running.push(Box::pin(async move {
                        sync::heads(&gateway, &link, &request_id, &chats).await;
                        Done::Other
                    }));
                }
            }
            Ok(Received::Heartbeat(request_id, open)) => {
                self.last_heartbeat = now;
                let paced = self.pace.heartbeats.take(now);
                if self.admits(Asked { kind, request_id: &request_id, chat: None }, paced) {
                    let renewal = self.renewal(now);
                    let (gateway, link) = (self.gateway.clone(), self.link.clone());
                    self.running.push(Box::pin(async move {
                        heartbeat::beat(&gateway, &link, &request_id, &open, renewal).await;
                        Done::Other
                    }));
                }
            }
        }
    }

    fn take_send(&mut self, send: Outgoing, now: Instant) {
        let user = self.link.record.user;
        let paced = self.pace.sends.take(now);
        let paced = paced.and_then(|()| self.gateway.sends.take((user, send.chat), now));
        let paced = paced.and_then(|()| self.gateway.senders.take(user, now));
        let paced = paced.and_then(|()| self.gateway.hourly.take(user, now));
        if paced.is_err() {
            count(&self.gateway.metrics.sends, metrics::Send::Limited);
        }
        let kind = metrics::Received::SendMessage;
        if self.admits(Asked { kind, request_id: &send.request_id, chat: Some(send.chat) }, paced) {
            if let Some(waiting) = self.sends.get_mut(&send.chat) {
                let chat = send.chat;
                waiting.push_back(send);
                let count = waiting.len();
                if self.gathering.take_if(|gathering| gathering.chat == chat && gathering.count <= count).is_some() {
                    self.starting.push(chat);
                }
                return;
            }
            let chat = send.chat;
            self.sends.insert(chat, VecDeque::from([send]));
            let lately = LATELY.max(self.gateway.limits.sends_gather);
            let answered = self.answered.filter(|(at, _)| now.saturating_duration_since(*at) < lately);
            if !answered.is_some_and(|(_, count)| self.gather(chat, count, now)) {
                self.starting.push(chat);
            }
        }
    }

    fn renewal(&mut self, now: Instant) -> Renewal {
        let interval = self.gateway.limits.heartbeat_interval / RENEWALS_PER_INTERVAL;
        if now.saturating_duration_since(self.renewed_at) < interval {
            return Renewal::JustDone;
        }
        self.renewed_at = now;
        Renewal::Due
    }

    /// Refuses what was sent before the client could know that it is connected: it is not done, and it is a fault.
    pub fn too_early(&mut self, received: Result<Received, Refused>) {
        let request_id = match received {
            Ok(received) => received.request_id().to_owned(),
            Err(refused) => refused.request_id,
        };
        let error = Error::new(ErrorKind::BadRequest, "nothing may be sent before connection_established");
        self.take(Err(Refused { request_id, error }));
    }

    /// Refuses what comes while this gateway stops: it is not stored, and may be sent elsewhere.
    pub fn turn_away(&mut self, received: Result<Received, Refused>) {
        let (kind, request_id) = match &received {
            Ok(Received::Ack(_) | Received::Heartbeat(..) | Received::Unknown { .. }) | Err(_) => {
                return self.take(received);
            }
            Ok(asked) => (asked.kind(), asked.request_id()),
        };
        let error = Error::new(ErrorKind::ServerBusy, "this gateway is being replaced");
        self.link.refuse(&self.gateway, Asked { kind, request_id, chat: None }, &error);
    }

    /// Counts a request in, or refuses it: for its pace, or because too many are under way.
    fn admits(&mut self, asked: Asked<'_>, paced: Result<(), Error>) -> bool {
        let has_room = paced.and_then(|()| {
            if self.count < self.gateway.limits.inbound_requests {
                return Ok(());
            }
            let error = Error::new(ErrorKind::ServerBusy, "too many requests of this connection are under way");
            Err(error.with(Detail::RetryAfterSeconds(1)))
        });
        match has_room {
            Ok(()) => self.count += 1,
            Err(ref error) => self.refuse(asked, error),
        }
        has_room.is_ok()
    }

    fn refuse(&mut self, asked: Asked<'_>, error: &Error) {
        self.link.refuse(&self.gateway, asked, error);
        if self.refused.is_reached_by(Instant::now()) {
            let is_busy = error.kind() == ErrorKind::ServerBusy;
            self.link.close(if is_busy { Reason::ServerBusy } else { Reason::RateLimited });
        }
    }

    fn take_ack(&mut self, ack: Acknowledged) {
        let has_room = self.acks.len() < self.gateway.limits.inbound_requests;
        match self.acks.get_mut(&ack.chat) {
            Some(all) => put_behind(all, ack),
            None if has_room => {
                self.acks.insert(ack.chat, vec![ack]);
                self.run_ack(ack);
            }
            None => drop(self.gateway.metrics.lost_acks.inc()),
        }
    }

    /// Whether the sends behind several of one chat that were answered wait for those that the answers bring.
    fn gathers(&mut self, chat: ChatId, answered: usize) -> bool {
        if answered < 2 {
            return false;
        }
        let (now, together) = (Instant::now(), self.gateway.limits.sends_together);
        self.answered = Some((now, answered));
        let waiting = self.sends.get(&chat).map_or(0, VecDeque::len);
        (1..together).contains(&waiting) && self.gather(chat, together.min(waiting + answered), now)
    }

    /// Lets the sends of a chat wait until there are so many; `false` when they don't.
    fn gather(&mut self, chat: ChatId, count: usize, now: Instant) -> bool {
        let within = self.gateway.limits.sends_gather;
        if within.is_zero() || self.gathering.is_some() {
            return false;
        }
        self.gathering = Some(Gathering { chat, count, until: now + within });
        true
    }

    /// Sends what waits for a chat, or forgets the chat.
    fn start_sends(&mut self, chat: ChatId, mut pod: Option<Arc<Pod>>) {
        let together = self.gateway.limits.sends_together;
        let sends: Vec<Outgoing> = match self.sends.get_mut(&chat) {
            Some(waiting) => waiting.drain(..waiting.len().min(together)).collect(),
            None => Vec::new(),
        };
        if sends.is_empty() {
            return forget(&mut self.sends, &chat);
        }
        let count = sends.len();
        let (gateway, link) = (self.gateway.clone(), self.link.clone());
        self.running.push(Box::pin(async move {
            receive::send(gateway, link, sends, &mut pod).await;
            Done::Sent(chat, count, pod)
        }));
    }

    fn run_ack(&mut self, ack: Acknowledged) {
        let (gateway, link) = (self.gateway.clone(), self.link.clone());
        self.running.push(Box::pin(async move {
            acknowledge(&gateway, &link, ack).await;
            Done::Acknowledged(ack.chat)
        }));
    }

    fn start_sync(&mut self, page: PageRequest) {
        self.is_syncing = true;
        let (gateway, link) = (self.gateway.clone(), self.link.clone());
        self.running.push(Box::pin(async move {
            sync::page(&gateway, &link, page).await;
            Done::Synced
        }));
    }
}

impl Drop for Inbound {
    /// A client acknowledges what it has and goes: that is taken to ingest after it has gone.
    fn drop(&mut self) {
        for all in std::mem::take(&mut self.acks).into_values() {
            let (gateway, link) = (self.gateway.clone(), self.link.clone());
            let process = gateway.process.clone();
            drop(process.spawn_child(async move {
                for ack in all {
                    acknowledge(&gateway, &link, ack).await;
                }
            }));
        }
    }
}

/// Puts an acknowledgement behind the first, which runs, and those that wait.
fn put_behind(all: &mut Vec<Acknowledged>, ack: Acknowledged) {
    let is_full = all.len() > ACKS_WAITING;
    match all.split_first_mut() {
        Some((running, [])) if *running == ack => {}
        // Cumulative: the higher one says it all. A lower one is kept behind a higher one, which may be refused as a fault.
        Some((_, [.., last])) if is_full || last.and(ack) == ack => *last = last.and(ack),
        _ => all.push(ack),
    }
}

async fn acknowledge(gateway: &Gateway, link: &Link, ack: Acknowledged) {
    let request = AckDeliveryRequest {
        chat_id: ack.chat.to_string(),
        user_id: link.record.user.to_string(),
        last_acked_sequence: ack.delivered.0,
        last_read_sequence: ack.read.map(|read| read.0),
    };
    if let Err(error) = gateway.ingest.acknowledge(ack.chat, request).await {
        // Silent for the client, which repeats it with its next one (websocket-protocol §5.6).
        gateway.metrics.lost_acks.inc();
        let asked = Asked { kind: metrics::Received::Ack, request_id: "", chat: Some(ack.chat) };
        let code = platform::wire::codes(error.kind()).frame;
        about!(debug, link, asked, error.code = code, "an ack was not taken: {error}");
    }
}

/// Takes a chat out; an idle connection holds no memory for what it once asked.
fn forget<V>(chats: &mut HashMap<ChatId, V>, chat: &ChatId) {
    chats.remove(chat);
    if chats.is_empty() {
        *chats = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use domain::{Ids as _, message::Sequence};
    use platform::clock::SystemIds;

    use super::*;

    #[test]
    fn rising_acknowledgements_are_one_and_a_lower_one_is_not_lost_behind_a_faulty_one() {
        let chat = ChatId(SystemIds.ulid());
        let ack = |delivered, read: Option<u64>| Acknowledged {
            chat,
            delivered: Sequence(delivered),
            read: read.map(Sequence),
        };
        let waiting = |acks: &[Acknowledged]| {
            let mut all = vec![acks[0]];
            for ack in &acks[1..] {
                put_behind(&mut all, *ack);
            }
            all[1..].to_vec()
        };
        assert_eq!(waiting(&[ack(1, None), ack(1, None)]), []);
        assert_eq!(waiting(&[ack(1, None), ack(2, None), ack(3, Some(1)), ack(9, Some(9))]), [ack(9, Some(9))]);
        assert_eq!(waiting(&[ack(1_000_000, None), ack(2, None)]), [ack(2, None)]);
        assert_eq!(waiting(&[ack(1, None), ack(1_000_000, None), ack(2, None)]), [ack(1_000_000, None), ack(2, None)]);
        assert_eq!(waiting(&[ack(1, None), ack(10, None), ack(5, Some(5))]), [ack(10, None), ack(5, Some(5))]);
        let falling: Vec<_> = (0..9).rev().map(|place| ack(place, None)).collect();
        assert_eq!(waiting(&falling), [ack(7, None), ack(6, None), ack(5, None)], "so many are kept");
    }
}
