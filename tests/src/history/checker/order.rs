//! P3 and P4: each message has one place, each place one message, and all agree on one order.

use std::collections::{BTreeMap, HashMap};

use super::{
    Property, Report,
    index::{Index, place},
};

/// P3: client id → message and place, place → message, and message → place are functions over all that was seen; an
/// application sees each once, and no connection is pushed a message twice.
pub(super) fn nothing_is_doubled(index: &Index<'_>, report: &mut Report) {
    let mut functions = Functions::default();
    let acks = index.sends.iter().flat_map(|send| &send.oks);
    let all = acks.chain(index.rows.values()).chain(&index.keys).chain(&index.log);
    for number in all.chain(&index.pushes).chain(&index.shows) {
        let line = &index.lines[*number];
        let (Some((chat, sequence)), Some(id)) = (place(line), line.message_id.as_deref()) else { continue };
        functions.see(*number, chat, sequence, id, report);
        if let (Some(user), Some(client_id)) = (line.user.as_deref(), line.client_id.as_deref()) {
            functions.name(*number, (user, client_id), (sequence, id), report);
        }
    }
    for number in &index.pages {
        let line = &index.lines[*number];
        for (sequence, id, _) in &line.items {
            functions.see(*number, line.chat.as_deref().unwrap_or_default(), *sequence, id, report);
        }
    }
    let mut shown = HashMap::new();
    for number in &index.shows {
        let line = &index.lines[*number];
        if let Some(before) = shown.insert((line.session.as_str(), place(line)), *number) {
            let says = format!("the application of {} saw {:?} twice", line.session, line.sequence);
            report.found(Property::P3, says, &[before, *number]);
        }
    }
    let mut pushed = HashMap::new();
    for number in &index.pushes {
        let line = &index.lines[*number];
        if let Some(before) = pushed.insert((line.session.as_str(), line.epoch, place(line)), *number) {
            let says = format!("connection {} of {} was pushed {:?} twice", line.epoch, line.session, line.sequence);
            report.found(Property::P3, says, &[before, *number]);
        }
    }
}

/// A place and an id.
type Name<'a> = (u64, &'a str);

#[derive(Default)]
struct Functions<'a> {
    at: HashMap<(&'a str, u64), (&'a str, usize)>,
    of: HashMap<&'a str, ((&'a str, u64), usize)>,
    named: HashMap<(&'a str, &'a str), (Name<'a>, usize)>,
}

impl<'a> Functions<'a> {
    fn see(&mut self, number: usize, chat: &'a str, sequence: u64, id: &'a str, report: &mut Report) {
        let (known, before) = *self.at.entry((chat, sequence)).or_insert((id, number));
        if known != id {
            let says = format!("{known} and {id} are both at {sequence} of {chat}");
            report.found(Property::P3, says, &[before, number]);
        }
        let (known, before) = *self.of.entry(id).or_insert(((chat, sequence), number));
        if known != (chat, sequence) {
            let says = format!("{id} is at {} of {} and at {sequence} of {chat}", known.1, known.0);
            report.found(Property::P3, says, &[before, number]);
        }
    }

    fn name(&mut self, number: usize, key: (&'a str, &'a str), is: Name<'a>, report: &mut Report) {
        let (known, before) = *self.named.entry(key).or_insert((is, number));
        if known != is {
            let says = format!("{} is both {known:?} and {is:?}", key.1);
            report.found(Property::P3, says, &[before, number]);
        }
    }
}

/// P4: what was acknowledged before another was begun stands before it; a connection's pushes and an application's
/// messages ascend; the log's first records of a chat ascend.
pub(super) fn one_order(index: &Index<'_>, report: &mut Report) {
    real_time(index, report);
    one_sender(index, report);
    let mut last = HashMap::new();
    for number in &index.pushes {
        let line = &index.lines[*number];
        let Some((chat, sequence)) = place(line) else { continue };
        ascend(&mut last, (line.session.as_str(), line.epoch, chat), sequence, *number, report);
    }
    let mut last = HashMap::new();
    for number in &index.shows {
        let line = &index.lines[*number];
        let Some((chat, sequence)) = place(line) else { continue };
        ascend(&mut last, (line.session.as_str(), 0, chat), sequence, *number, report);
    }
    let mut last: HashMap<&str, (u64, usize)> = HashMap::new();
    for number in index
        .log
        .iter()
        .filter(|number| place(&index.lines[**number]).is_some_and(|here| index.records.get(&here) == Some(*number)))
    {
        let Some((chat, sequence)) = place(&index.lines[*number]) else { continue };
        if let Some((before, line)) = last.get(chat)
            && *before > sequence
        {
            let says = format!("the log has {sequence} of {chat} for the first time after {before}");
            report.found(Property::P4, says, &[*line, *number]);
        }
        last.insert(chat, (sequence, *number));
    }
}

fn ascend<'a>(
    last: &mut HashMap<(&'a str, u64, &'a str), (u64, usize)>,
    view: (&'a str, u64, &'a str),
    sequence: u64,
    number: usize,
    report: &mut Report,
) {
    if let Some((before, line)) = last.insert(view, (sequence, number))
        && before > sequence
    {
        let says = format!("{} got {sequence} of {} after {before}", view.0, view.2);
        report.found(Property::P4, says, &[line, number]);
    }
}

/// Lines are in the order of time: one pass with the highest acknowledged place of each chat.
fn real_time(index: &Index<'_>, report: &mut Report) {
    // Line → what happens there.
    let mut begins: BTreeMap<usize, usize> = BTreeMap::new();
    let mut ends: BTreeMap<usize, (&str, u64)> = BTreeMap::new();
    for (send, number) in index.sends.iter().enumerate().filter_map(|(send, it)| Some((send, *it.invokes.first()?))) {
        begins.insert(number, send);
    }
    for send in &index.sends {
        if let Some((number, sequence, _)) = index.ack(send) {
            ends.insert(number, (send.chat, sequence));
        }
    }
    let mut highest: HashMap<&str, (u64, usize)> = HashMap::new();
    let numbers: std::collections::BTreeSet<usize> = begins.keys().chain(ends.keys()).copied().collect();
    for number in numbers {
        if let Some((chat, sequence)) = ends.get(&number) {
            let highest = highest.entry(chat).or_default();
            if *sequence > highest.0 {
                *highest = (*sequence, number);
            }
        }
        let Some(send) = begins.get(&number).map(|send| &index.sends[*send]) else { continue };
        if let (Some((ack, sequence, _)), Some((before, line))) = (index.ack(send), highest.get(send.chat))
            && sequence <= *before
        {
            let says = format!("{sequence} of {} was begun after {before} was acknowledged", send.chat);
            report.found(Property::P4, says, &[*line, number, ack]);
        }
    }
}

/// Sends of one connection to one chat that needed one attempt stand in the order in which they went out.
fn one_sender(index: &Index<'_>, report: &mut Report) {
    let mut last: HashMap<(&str, u64, &str), (u64, usize)> = HashMap::new();
    let mut sends: Vec<_> = index.sends.iter().filter(|send| send.invokes.len() == 1).collect();
    sends.sort_by_key(|send| send.invokes[0]);
    for send in sends {
        let begun = &index.lines[send.invokes[0]];
        let Some((ack, sequence, _)) = index.ack(send) else { continue };
        if index.lines[ack].epoch == begun.epoch {
            ascend(&mut last, (&begun.session, begun.epoch, send.chat), sequence, ack, report);
        }
    }
}
