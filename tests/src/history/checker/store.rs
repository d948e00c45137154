//! P1, P2 and P11: what was acknowledged is there, what is there was sent, and the numbers agree.

use std::collections::{BTreeMap, HashMap};

use super::{
    Property, Report,
    index::{Index, place},
};

/// P1: every acknowledged message is in the store, on the log, and in the last sync of every member.
pub(super) fn nothing_acknowledged_is_lost(index: &Index<'_>, report: &mut Report) {
    let finals: Vec<_> = index.sessions.iter().filter(|(_, session)| session.is_final).collect();
    // A history that did not look must not pass.
    for (is_there, what) in [
        (index.has_scan, "the store was not read at the end"),
        (index.has_dump, "the log was not read at the end"),
        (!finals.is_empty(), "nobody read everything at the end"),
    ] {
        if !is_there {
            report.found(Property::P1, what.to_owned(), &[]);
        }
    }
    for send in &index.sends {
        let Some((ack, sequence, message_id)) = index.ack(send) else { continue };
        let here = (send.chat, sequence);
        let says = |where_: &str| {
            format!("{} of {} was acknowledged at {sequence} and is not {where_}", message_id, send.chat)
        };
        if index.has_scan {
            let row = index.rows.get(&here).copied();
            let is_there = row.is_some_and(|row| {
                let row = &index.lines[row];
                row.message_id.as_deref() == Some(message_id) && row.client_id.as_deref() == Some(send.client_id)
            });
            if !is_there {
                let lines: Vec<usize> = [ack].into_iter().chain(row).collect();
                report.found(Property::P1, says("in the store"), &lines);
            }
        }
        if index.has_dump {
            let record = index.records.get(&here).copied();
            let is_there = record.is_some_and(|record| index.lines[record].message_id.as_deref() == Some(message_id));
            if !is_there {
                report.found(Property::P1, says("on the log"), &[ack]);
            }
        }
        let stayed = index.stayed(send.chat);
        for (name, _) in finals.iter().filter(|(_, session)| session.user.is_some_and(|user| stayed.contains(&user))) {
            let has = index.received.get(&(**name, send.chat)).is_some_and(|received| received.contains_key(&sequence));
            if !has {
                report.found(Property::P1, says(&format!("in the last sync of {name}")), &[ack]);
            }
        }
    }
}

/// P2: all that is seen is stored, and all that is stored was sent with that text and not refused for good.
pub(super) fn nothing_is_invented(index: &Index<'_>, report: &mut Report) {
    for (number, row) in index.rows.values().map(|row| (*row, &index.lines[*row])) {
        let key = (row.user.as_deref().unwrap_or_default(), row.client_id.as_deref().unwrap_or_default());
        let Some(send) = index.send_of.get(&key).map(|send| &index.sends[*send]) else {
            report.found(
                Property::P2,
                format!("{:?} of {:?} is stored and was never sent", key.1, row.chat),
                &[number],
            );
            continue;
        };
        if send.is_refused() {
            let mut lines = vec![number];
            lines.extend(&send.fails);
            report.found(Property::P2, format!("{} is stored and was refused for good", send.client_id), &lines);
        }
        if Some(send.chat) != row.chat.as_deref() || send.body != row.body.as_deref() {
            let mut lines = vec![number];
            lines.extend(send.invokes.first());
            report.found(Property::P2, format!("{} is stored with another text or chat", send.client_id), &lines);
        }
    }
    if !index.has_scan {
        return;
    }
    let mut see = |number: usize, chat: &str, sequence: u64, message_id: Option<&str>, body: Option<&str>| {
        let row = index.rows.get(&(chat, sequence)).map(|row| &index.lines[*row]);
        let is_stored = row.is_some_and(|row| {
            row.message_id.as_deref() == message_id && (body.is_none() || row.body.as_deref() == body)
        });
        if !is_stored {
            let id = message_id.unwrap_or_default();
            report.found(
                Property::P2,
                format!("{id} was seen at {sequence} of {chat} and is not stored so"),
                &[number],
            );
        }
    };
    for number in index.pushes.iter().chain(&index.shows).chain(&index.log).copied() {
        let line = &index.lines[number];
        if let Some((chat, sequence)) = place(line) {
            see(number, chat, sequence, line.message_id.as_deref(), line.body.as_deref());
        }
    }
    for number in index.pages.iter().copied() {
        let line = &index.lines[number];
        for (sequence, message_id, body) in &line.items {
            see(number, line.chat.as_deref().unwrap_or_default(), *sequence, Some(message_id), Some(body));
        }
    }
}

/// P11: each stored message is one send, each head is the number of its rows, each row is on the log, and no group
/// stands behind the end of a partition.
pub(super) fn all_adds_up(index: &Index<'_>, report: &mut Report) {
    let counts = &report.counts;
    let (known, sends) = (counts.acknowledged + counts.refused + counts.unknown, counts.sends);
    if known != sends {
        report.found(Property::P11, format!("{sends} sends have {known} ends"), &[]);
    }
    if index.has_scan {
        let mut by_key: HashMap<(Option<&str>, Option<&str>), Vec<usize>> = HashMap::new();
        let mut by_chat: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((chat, sequence), number) in &index.rows {
            let row = &index.lines[*number];
            by_key.entry((row.user.as_deref(), row.client_id.as_deref())).or_default().push(*number);
            let (count, last) = by_chat.entry(chat).or_default();
            (*count, *last) = (*count + 1, (*last).max(*sequence));
        }
        for (key, rows) in by_key.iter().filter(|(_, rows)| rows.len() > 1) {
            report.found(Property::P11, format!("{:?} has {} rows", key.1.unwrap_or_default(), rows.len()), rows);
        }
        for number in &index.heads {
            let Some((chat, head)) = place(&index.lines[*number]) else { continue };
            let (count, last) = by_chat.get(chat).copied().unwrap_or_default();
            if (count, last) != (head, head) {
                let says = format!("the counter of {chat} is {head}, and it has {count} rows up to {last}");
                report.found(Property::P11, says, &[*number]);
            }
        }
        if !index.keys.is_empty() && index.keys.len() != index.rows.len() {
            let says = format!("{} rows have {} client ids", index.rows.len(), index.keys.len());
            report.found(Property::P11, says, &[]);
        }
    }
    if index.has_scan && index.has_dump {
        for (here, number) in index.rows.iter().filter(|(here, _)| !index.records.contains_key(*here)) {
            report.found(Property::P11, format!("{} of {} is stored and not on the log", here.1, here.0), &[*number]);
        }
    }
    if index.has_dump {
        let mut ends: HashMap<Option<i32>, i64> = HashMap::new();
        for line in index.log.iter().map(|line| &index.lines[*line]) {
            let end = ends.entry(line.partition).or_default();
            *end = (*end).max(line.offset.unwrap_or(0) + 1);
        }
        for number in &index.committed {
            let line = &index.lines[*number];
            let (at, end) = (line.offset.unwrap_or(0), ends.get(&line.partition).copied().unwrap_or(0));
            if at > end {
                let says = format!("the group is at {at} of partition {:?}, which ends at {end}", line.partition);
                report.found(Property::P11, says, &[*number]);
            }
        }
    }
}
