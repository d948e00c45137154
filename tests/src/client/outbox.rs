//! Messages on their way: per chat in the order in which they were written, until each has its outcome. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::{sync::oneshot, time::Instant};

use super::{NotSent, Sent, keep::Unsent};

/// Who waits for a message's outcome.
pub(super) type Waiter = oneshot::Sender<Result<Sent, NotSent>>;

#[derive(Debug)]
struct Entry {
    unsent: Unsent,
    waiter: Option<Waiter>,
    progress: Progress,
    refusals: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    InFlight,
    Until(Instant),
}

/// All messages without an outcome.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: BTreeMap<u64, Entry>,
    places: HashMap<String, u64>,
    written: u64,
}

impl Outbox {
    /// Behind all that was written before.
    pub(super) fn push(&mut self, unsent: Unsent, waiter: Option<Waiter>) {
        self.written += 1;
        self.places.insert(unsent.client_message_id.clone(), self.written);
        self.entries.insert(self.written, Entry { unsent, waiter, progress: Progress::Waiting, refusals: 0 });
    }

    /// What may go out now: at most `window` of a chat in flight, and none past one of its chat that has to wait.
    pub(super) fn due(&self, now: Instant, window: usize) -> Vec<Unsent> {
        let mut in_flight: HashMap<&str, usize> = HashMap::new();
        let mut held = HashSet::new();
        let mut due = Vec::new();
        for entry in self.entries.values() {
            let chat = entry.unsent.chat.as_str();
            let count = in_flight.entry(chat).or_default();
            let waits = matches!(entry.progress, Progress::Until(at) if at > now);
            if waits || *count >= window {
                held.insert(chat);
            }
            if held.contains(chat) {
                continue;
            }
            *count += 1;
            if entry.progress != Progress::InFlight {
                due.push(entry.unsent.clone());
            }
        }
        due
    }

    /// An attempt goes out.
    pub(super) fn went_out(&mut self, client_message_id: &str) {
        if let Some(entry) = self.entry(client_message_id) {
            entry.progress = Progress::InFlight;
        }
    }

    /// An attempt was refused; how often that happened to this message.
    pub(super) fn refused(&mut self, client_message_id: &str) -> u32 {
        self.entry(client_message_id).map_or(0, |entry| {
            entry.refusals += 1;
            entry.refusals
        })
    }

    /// The message goes again then, and those of its chat behind it wait with it.
    pub(super) fn again_at(&mut self, client_message_id: &str, at: Instant) {
        if let Some(entry) = self.entry(client_message_id) {
            entry.progress = Progress::Until(at);
        }
    }

    /// What was in flight goes again on the next connection, in its order: which that is.
    pub(super) fn connection_lost(&mut self) -> Vec<String> {
        let in_flight = self.entries.values_mut().filter(|entry| entry.progress == Progress::InFlight);
        in_flight
            .map(|entry| {
                entry.progress = Progress::Waiting;
                entry.unsent.client_message_id.clone()
            })
            .collect()
    }

    /// The message has its outcome; who waits for it.
    pub(super) fn take(&mut self, client_message_id: &str) -> Option<Waiter> {
        let place = self.places.remove(client_message_id)?;
        self.entries.remove(&place)?.waiter
    }

    /// When a message that waits may go.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let waits = self.entries.values().filter_map(|entry| match entry.progress {
            Progress::Until(at) if at > now => Some(at),
            Progress::Until(_) | Progress::Waiting | Progress::InFlight => None,
        });
        waits.min()
    }

    fn entry(&mut self, client_message_id: &str) -> Option<&mut Entry> {
        self.entries.get_mut(self.places.get(client_message_id)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outbox(messages: &[(&str, &str)]) -> Outbox {
        let mut outbox = Outbox::default();
        for (id, chat) in messages {
            let unsent = Unsent {
                client_message_id: (*id).to_owned(),
                chat: (*chat).to_owned(),
                content: String::new(),
                written_at: 0,
            };
            outbox.push(unsent, None);
        }
        outbox
    }

    fn due(outbox: &Outbox, now: Instant, window: usize) -> Vec<String> {
        outbox.due(now, window).into_iter().map(|unsent| unsent.client_message_id).collect()
    }

    #[test]
    fn a_message_never_overtakes_one_of_its_chat_that_waits() {
        let now = Instant::now();
        let mut outbox = outbox(&[("a", "1"), ("b", "1"), ("c", "2")]);
        assert_eq!(due(&outbox, now, 1), ["a", "c"]);
        outbox.went_out("a");
        assert_eq!(due(&outbox, now, 1), ["c"]);
        assert_eq!(due(&outbox, now, 2), ["b", "c"]);
        let later = now + Duration::from_secs(1);
        outbox.again_at("a", later);
        assert_eq!(due(&outbox, now, 2), ["c"]);
        assert_eq!(outbox.wake(now), Some(later));
        assert_eq!(due(&outbox, later, 2), ["a", "b", "c"]);
    }

    #[test]
    fn what_was_in_flight_goes_again_in_order_after_a_lost_connection() {
        let now = Instant::now();
        let mut outbox = outbox(&[("a", "1"), ("b", "1"), ("c", "1")]);
        for id in ["a", "b", "c"] {
            outbox.went_out(id);
        }
        outbox.take("a");
        assert!(due(&outbox, now, 8).is_empty());
        assert_eq!(outbox.connection_lost(), ["b", "c"]);
        assert_eq!(due(&outbox, now, 8), ["b", "c"]);
    }
}
