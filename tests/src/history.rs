//! What was seen, and what the promises say about it: whole histories by [`checker`], single views by the functions here.

pub mod checker;
pub mod line;
pub mod recorder;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::client::{HistoryItem, Kept, Sent};

/// A message that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its chat.
    pub chat: String,
    /// What was sent.
    pub content: String,
    /// What the ack said.
    pub sent: Sent,
}

/// What went against the promises. Empty is good.
pub type Violations = BTreeSet<String>;

/// The stored history of a chat, against the acks of its senders.
///
/// - `lost`: acknowledged, and not there at its sequence with its id and content
/// - `doubled`: one client message id, or one message id, more than once
/// - `hole`: the sequences are not 1, 2, 3, …
/// - `invented`: stored, and nobody tried to send it
pub fn check_history(history: &[HistoryItem], acknowledged: &[Acknowledged], attempted: &[String]) -> Violations {
    let mut violations = Violations::new();
    for (place, item) in history.iter().enumerate() {
        if item.sequence != place as u64 + 1 {
            violations.insert(format!("hole: {} stands at place {}", item.sequence, place + 1));
            break;
        }
    }
    let mut ids = HashMap::new();
    let mut contents = HashMap::new();
    for item in history {
        *ids.entry(item.message_id.as_str()).or_insert(0) += 1;
        *contents.entry(item.content.as_str()).or_insert(0) += 1;
    }
    for (id, count) in ids.into_iter().chain(contents.iter().map(|(content, count)| (*content, *count))) {
        if count > 1 {
            violations.insert(format!("doubled: {id} {count} times"));
        }
    }
    let by_sequence: BTreeMap<u64, &HistoryItem> = history.iter().map(|item| (item.sequence, item)).collect();
    for ack in acknowledged {
        let found = by_sequence.get(&ack.sent.sequence);
        if !found.is_some_and(|item| item.message_id == ack.sent.message_id && item.content == ack.content) {
            violations.insert(format!("lost: {} acknowledged at {}", ack.content, ack.sent.sequence));
        }
    }
    let attempted: BTreeSet<&str> = attempted.iter().map(String::as_str).collect();
    for item in history {
        if !attempted.contains(item.content.as_str()) {
            violations.insert(format!("invented: {} at {}", item.content, item.sequence));
        }
    }
    violations
}

/// The acks of each sender to one chat, who is named by `sender_of`, in the order in which messages were handed over.
///
/// - `overtaken`: a message stands before one of the same sender that was handed over before it
pub fn check_order(acknowledged: &[Acknowledged], sender_of: impl Fn(&Acknowledged) -> String) -> Violations {
    let mut violations = Violations::new();
    let mut last: HashMap<(String, String), u64> = HashMap::new();
    for ack in acknowledged {
        let last = last.entry((ack.chat.clone(), sender_of(ack))).or_default();
        if ack.sent.sequence <= *last {
            violations.insert(format!("overtaken: {} at {} after {last}", ack.content, ack.sent.sequence));
        }
        *last = ack.sent.sequence.max(*last);
    }
    violations
}

/// One application's view of a chat, against the stored history.
///
/// - `reordered`: not in ascending order, or twice at one place
/// - `missed`: stored, and not in the view
/// - `differs`: another message at that place than the stored one
pub fn check_view(view: &[Kept], history: &[HistoryItem]) -> Violations {
    let mut violations = Violations::new();
    for pair in view.windows(2) {
        if pair[0].sequence >= pair[1].sequence {
            violations.insert(format!("reordered: {} before {}", pair[0].sequence, pair[1].sequence));
        }
    }
    let by_sequence: BTreeMap<u64, &Kept> = view.iter().map(|kept| (kept.sequence, kept)).collect();
    for item in history {
        match by_sequence.get(&item.sequence) {
            None => {
                violations.insert(format!("missed: {}", item.sequence));
            }
            Some(kept) if kept.message_id != item.message_id || kept.content != item.content => {
                violations.insert(format!("differs: {}", item.sequence));
            }
            Some(_) => {}
        }
    }
    violations
}

/// First occurrences of the sequences of one chat on the log must come in their order, and cover all.
///
/// - `unordered`: a first occurrence after a higher one
/// - `unpublished`: stored, and not on the log
pub fn check_log(sequences: &[u64], from: u64, through: u64) -> Violations {
    let mut violations = Violations::new();
    let mut seen = BTreeSet::new();
    for sequence in sequences {
        if seen.insert(*sequence) && seen.last() != Some(sequence) {
            violations.insert(format!("unordered: {sequence}"));
        }
    }
    for sequence in from..=through {
        if !seen.contains(&sequence) {
            violations.insert(format!("unpublished: {sequence}"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sequence: u64) -> HistoryItem {
        HistoryItem {
            message_id: format!("msg_{sequence}"),
            sequence,
            sender_id: "user".to_owned(),
            content: format!("text {sequence}"),
            created_at: String::new(),
            client_message_id: None,
        }
    }

    fn kept(sequence: u64) -> Kept {
        Kept {
            chat: "chat".to_owned(),
            sequence,
            message_id: format!("msg_{sequence}"),
            sender: "user".to_owned(),
            content: format!("text {sequence}"),
            created_at: 0,
        }
    }

    fn acknowledged(sequence: u64) -> Acknowledged {
        let sent =
            Sent { client_message_id: format!("client_{sequence}"), message_id: format!("msg_{sequence}"), sequence };
        Acknowledged { chat: "chat".to_owned(), content: format!("text {sequence}"), sent }
    }

    fn named(violations: &Violations, name: &str) -> bool {
        violations.iter().any(|violation| violation.starts_with(name))
    }

    #[test]
    fn what_keeps_the_promises_passes() {
        let history: Vec<_> = (1..=5).map(item).collect();
        let attempted: Vec<_> = history.iter().map(|item| item.content.clone()).collect();
        let acks: Vec<_> = [1, 2, 4].map(acknowledged).into();
        assert_eq!(check_history(&history, &acks, &attempted), Violations::new());
        assert_eq!(check_view(&(1..=5).map(kept).collect::<Vec<_>>(), &history), Violations::new());
        assert_eq!(check_log(&[1, 2, 1, 2, 3], 1, 3), Violations::new());
    }

    #[test]
    fn each_broken_promise_is_named() {
        let history: Vec<_> = (1..=5).map(item).collect();
        let attempted: Vec<_> = history.iter().map(|item| item.content.clone()).collect();
        let acks: Vec<_> = (1..=5).map(acknowledged).collect();
        let check = |mutate: fn(&mut Vec<HistoryItem>)| {
            let mut mutant = history.clone();
            mutate(&mut mutant);
            check_history(&mutant, &acks, &attempted)
        };
        assert!(named(&check(|history| drop(history.pop())), "lost"));
        assert!(named(&check(|history| drop(history.remove(2))), "hole"));
        assert!(named(&check(|history| history.push(item(5))), "hole"));
        assert!(named(&check(|history| history.push(HistoryItem { sequence: 6, ..item(5) })), "doubled"));
        assert!(named(&check(|history| history.push(item(6))), "invented"));
        assert!(named(&check(|history| history.swap(0, 1)), "hole"));
        assert!(named(&check(|history| history[3].content = "else".to_owned()), "lost"));

        let view = |mutate: fn(&mut Vec<Kept>)| {
            let mut mutant: Vec<_> = (1..=5).map(kept).collect();
            mutate(&mut mutant);
            check_view(&mutant, &history)
        };
        assert!(named(&view(|view| view.swap(1, 2)), "reordered"));
        assert!(named(&view(|view| view.push(kept(5))), "reordered"));
        assert!(named(&view(|view| drop(view.remove(4))), "missed"));
        assert!(named(&view(|view| view[0].message_id = "msg_x".to_owned()), "differs"));

        let sender = |_: &Acknowledged| "ana".to_owned();
        assert_eq!(check_order(&acks, sender), Violations::new());
        let mut swapped = acks.clone();
        swapped.swap(1, 3);
        assert!(named(&check_order(&swapped, sender), "overtaken"));
        let alternating = |ack: &Acknowledged| (ack.sent.sequence % 2).to_string();
        assert_eq!(check_order(&[acks[1].clone(), acks[0].clone()], alternating), Violations::new());

        assert!(named(&check_log(&[1, 3, 2], 1, 3), "unordered"));
        assert!(named(&check_log(&[1, 3], 1, 3), "unpublished"));
    }
}
