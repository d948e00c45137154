//! P5, P6, P8 and P9: what clients receive has no gaps, pages are whole, nobody sees too much, and all see all in time.

use std::collections::HashMap;

use super::{
    super::line::{Kind, Run, What},
    Lag, Property, Report,
    index::{Index, place},
};

/// P5: at the end, what a client received is contiguous from the first; what its application saw always was. Where all
/// is pushed, a message that was sent while a connection was open came on it by push or as its own ack.
pub(super) fn no_gap(index: &Index<'_>, run: &Run, report: &mut Report) {
    for ((session, chat), received) in &index.received {
        if index.sessions.get(session).is_none_or(|session| session.connections.is_empty()) {
            continue;
        }
        for (expected, (sequence, arrival)) in (1..).zip(received) {
            if *sequence != expected {
                let says = format!("{session} has {sequence} of {chat} and never got {expected}");
                report.found(Property::P5, says, &[arrival.line]);
                break;
            }
        }
    }
    let mut last: HashMap<(&str, &str), (u64, usize)> = HashMap::new();
    for number in &index.shows {
        let line = &index.lines[*number];
        let Some((chat, sequence)) = place(line) else { continue };
        let (before, at) = last.insert((&line.session, chat), (sequence, *number)).unwrap_or((0, *number));
        if sequence > before + 1 {
            let says = format!("the application of {} saw {sequence} of {chat} after {before}", line.session);
            report.found(Property::P5, says, &[at, *number]);
        }
    }
    if run.pushed {
        all_is_pushed(index, run, report);
    }
}

fn all_is_pushed(index: &Index<'_>, run: &Run, report: &mut Report) {
    let within = run.seen_within_ms * 1000;
    for send in &index.sends {
        let (Some((ack, sequence, _)), Some(begun)) = (index.ack(send), send.invokes.first()) else { continue };
        let (begun, due) = (index.lines[*begun].at, index.lines[ack].at.max(index.healed) + within);
        for user in index.stayed(send.chat) {
            for (name, session) in index.live_sessions(user) {
                let mut open = session.connections.values();
                let is_open = open.any(|connection| {
                    connection.ready.is_some_and(|ready| ready < begun)
                        && connection.closed.is_none_or(|closed| closed > due)
                });
                let came = index.pushed.get(&(name, send.chat)).and_then(|pushed| pushed.get(&sequence));
                if is_open && came.is_none() {
                    let says = format!("{sequence} of {} was not pushed to {name}, who was connected", send.chat);
                    report.found(Property::P5, says, &[ack]);
                }
            }
        }
    }
}

/// A page that was asked for: after what, and the highest place that was acknowledged before.
struct Asked {
    cursor: u64,
    due: Option<(u64, usize)>,
    invoke: usize,
}

/// P6: a page begins right after its cursor, has no hole, and the last page reaches what was acknowledged before it was
/// asked for.
pub(super) fn pages_are_whole(index: &Index<'_>, report: &mut Report) {
    // Acks in the order of their lines; for each chat the highest so far.
    let mut acks: Vec<(usize, &str, u64)> = index
        .sends
        .iter()
        .filter_map(|send| index.ack(send).map(|(number, sequence, _)| (number, send.chat, sequence)))
        .collect();
    acks.sort_unstable();
    let (mut acks, mut highest) = (acks.into_iter().peekable(), HashMap::<&str, (u64, usize)>::new());
    let mut asked: HashMap<(&str, u64, &str), Asked> = HashMap::new();
    for (number, line) in index.lines.iter().enumerate() {
        while let Some((ack, chat, sequence)) = acks.next_if(|(ack, _, _)| *ack <= number) {
            let highest = highest.entry(chat).or_default();
            if sequence > highest.0 {
                *highest = (sequence, ack);
            }
        }
        let (What::Sync, Some(chat)) = (line.what, line.chat.as_deref()) else { continue };
        let view = (line.session.as_str(), line.epoch, chat);
        match line.kind {
            Kind::Invoke => {
                let (cursor, due) = (line.cursor.unwrap_or(0), highest.get(chat).copied());
                asked.insert(view, Asked { cursor, due, invoke: number });
            }
            Kind::Ok => {
                let Some(Asked { cursor, due, invoke }) = asked.remove(&view) else { continue };
                let mut expected = cursor + 1;
                for (sequence, _, _) in &line.items {
                    if *sequence != expected {
                        let says = format!("a page of {chat} after {cursor} has {sequence} where {expected} belongs");
                        report.found(Property::P6, says, &[invoke, number]);
                        break;
                    }
                    expected += 1;
                }
                if let (Some((due, ack)), Some(false)) = (due, line.more)
                    && expected <= due
                {
                    let says = format!("the last page of {chat} ends before {expected}, and {due} was acknowledged");
                    report.found(Property::P6, says, &[ack, invoke, number]);
                }
                if line.more == Some(true) && line.items.is_empty() {
                    let says = format!("an empty page of {chat} says that more follows");
                    report.found(Property::P6, says, &[invoke, number]);
                }
            }
            Kind::Fail | Kind::Info => {}
        }
    }
}

/// P8: what was begun after a removal and its grace comes to none of that user's clients.
pub(super) fn nobody_sees_what_came_after_them(index: &Index<'_>, run: &Run, report: &mut Report) {
    let grace = run.removal_grace_ms * 1000;
    for send in &index.sends {
        let (Some((ack, sequence, _)), Some(begun)) = (index.ack(send), send.invokes.first()) else { continue };
        for (user, member) in index.members.get(send.chat).into_iter().flatten() {
            let Some((removed, line)) = member.removed else { continue };
            if index.lines[*begun].at <= removed + grace {
                continue;
            }
            let sessions = index.sessions.iter().filter(|(_, session)| session.user == Some(*user));
            for (name, _) in sessions {
                let got = index.received.get(&(*name, send.chat)).and_then(|received| received.get(&sequence));
                if let Some(arrival) = got {
                    let says = format!("{name} got {sequence} of {}, where {user} was no more", send.chat);
                    report.found(Property::P8, says, &[line, ack, arrival.line]);
                }
            }
        }
    }
    // Nobody else sees a chat either.
    for ((session, chat), received) in &index.received {
        let user = index.sessions.get(session).and_then(|session| session.user);
        let (Some(user), Some(members)) = (user, index.members.get(chat)) else { continue };
        if let (false, Some((sequence, arrival))) = (members.contains_key(user), received.first_key_value()) {
            let says = format!("{session} got {sequence} of {chat}, where {user} never was");
            report.found(Property::P8, says, &[arrival.line]);
        }
    }
}

/// P9: after ack and healing, every client that is there sees the message in time, of itself; each send ends. Where
/// the run says so, acks go on while something is broken.
pub(super) fn everybody_sees_everything_in_time(index: &Index<'_>, run: &Run, report: &mut Report) {
    let within = run.seen_within_ms * 1000;
    let mut lags = Vec::new();
    for send in &index.sends {
        let Some((ack, sequence, _)) = index.ack(send) else { continue };
        let acked = index.lines[ack].at;
        for user in index.stayed(send.chat) {
            let joined = index.members.get(send.chat).and_then(|all| all.get(user)).map_or(0, |member| member.added);
            for (name, session) in index.live_sessions(user) {
                let began = session.connections.values().filter_map(|connection| connection.ready).min().unwrap_or(0);
                let due = acked.max(index.healed).max(began).max(joined) + within;
                let seen = index.received.get(&(name, send.chat)).and_then(|received| received.get(&sequence));
                if seen.is_none() && session.ended.is_some_and(|ended| ended < due) {
                    continue;
                }
                match seen {
                    // Who came later saw it when they came.
                    Some(arrival) if arrival.at <= due && began <= acked => {
                        lags.push(arrival.at.saturating_sub(acked) / 1000);
                    }
                    Some(arrival) if arrival.at <= due => {}
                    Some(arrival) => {
                        let late = (arrival.at - due) / 1000;
                        let says = format!("{name} saw {sequence} of {} {late} ms too late", send.chat);
                        report.found(Property::P9, says, &[ack, arrival.line]);
                    }
                    None => {
                        let says = format!("{name} never saw {sequence} of {}", send.chat);
                        report.found(Property::P9, says, &[ack]);
                    }
                }
            }
        }
    }
    for send in index.sends.iter().filter(|send| send.oks.is_empty() && send.fails.is_empty()) {
        let says = format!("{} of {} has no end", send.client_id, send.chat);
        report.found(Property::P9, says, &send.invokes);
    }
    lags.sort_unstable();
    let at =
        |share: usize| lags.get((lags.len() * share / 100).min(lags.len().saturating_sub(1))).copied().unwrap_or(0);
    report.lag = Lag { p50: at(50), p99: at(99), max: at(100) };
    let mut acks: Vec<(u64, usize)> =
        index.sends.iter().filter_map(|send| index.ack(send)).map(|(ack, _, _)| (index.lines[ack].at, ack)).collect();
    acks.sort_unstable();
    let longest = acks.windows(2).map(|pair| ((pair[1].0 - pair[0].0) / 1000, pair[1].1)).max();
    report.longest_ack_gap_ms = longest.map_or(0, |(gap, _)| gap);
    if let (Some(most), Some((gap, ack))) = (run.acks_within_ms, longest)
        && gap > most
    {
        report.found(Property::P9, format!("nothing was acknowledged for {gap} ms"), &[ack]);
    }
}
