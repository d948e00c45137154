//! What one partition has passed on: each chat's last sequence, and recent event ids (D5.3).

use std::collections::{HashMap, HashSet, VecDeque};

use domain::{ids::ChatId, message::Sequence};

/// Where a message stands to what was passed on before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Passed on already.
    Old,
    /// The next one, or the first of its chat since the assignment.
    Next,
    /// Some are missing after this one.
    After(Sequence),
}

/// What one partition has passed on since it was assigned; the oldest entries are forgotten.
#[derive(Debug)]
pub(crate) struct PassedOn {
    last: HashMap<ChatId, Sequence>,
    chats: VecDeque<ChatId>,
    chats_limit: usize,
    events: HashSet<String>,
    events_in_order: VecDeque<String>,
    events_limit: usize,
}

impl PassedOn {
    pub(crate) fn new(chats_limit: u32, events_limit: u32) -> Self {
        Self {
            last: HashMap::new(),
            chats: VecDeque::new(),
            chats_limit: chats_limit as usize,
            events: HashSet::new(),
            events_in_order: VecDeque::new(),
            events_limit: events_limit as usize,
        }
    }

    pub(crate) fn place(&self, chat: ChatId, sequence: Sequence) -> Place {
        match self.last.get(&chat) {
            None => Place::Next,
            Some(last) if sequence <= *last => Place::Old,
            Some(last) if sequence == last.next() => Place::Next,
            Some(last) => Place::After(*last),
        }
    }

    pub(crate) fn pass(&mut self, chat: ChatId, sequence: Sequence) {
        if self.last.insert(chat, sequence).is_none() {
            self.chats.push_back(chat);
            if self.chats.len() > self.chats_limit
                && let Some(oldest) = self.chats.pop_front()
            {
                self.last.remove(&oldest);
            }
        }
    }

    pub(crate) fn knows(&self, event_id: &str) -> bool {
        self.events.contains(event_id)
    }

    pub(crate) fn remember(&mut self, event_id: &str) {
        if self.events.insert(event_id.to_owned()) {
            self.events_in_order.push_back(event_id.to_owned());
            if self.events_in_order.len() > self.events_limit
                && let Some(oldest) = self.events_in_order.pop_front()
            {
                self.events.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ChatId = ChatId(ulid::Ulid(1));
    const B: ChatId = ChatId(ulid::Ulid(2));

    #[test]
    fn the_first_message_sets_the_position_and_the_rest_is_compared_with_it() {
        let mut passed = PassedOn::new(10, 10);
        assert_eq!(passed.place(A, Sequence(7)), Place::Next);
        passed.pass(A, Sequence(7));
        assert_eq!(passed.place(A, Sequence(6)), Place::Old);
        assert_eq!(passed.place(A, Sequence(7)), Place::Old);
        assert_eq!(passed.place(A, Sequence(8)), Place::Next);
        assert_eq!(passed.place(A, Sequence(10)), Place::After(Sequence(7)));
    }

    #[test]
    fn the_oldest_chats_and_events_are_forgotten() {
        let mut passed = PassedOn::new(1, 1);
        passed.pass(A, Sequence(7));
        passed.pass(B, Sequence(1));
        assert_eq!(passed.place(A, Sequence(3)), Place::Next);
        assert_eq!(passed.place(B, Sequence(1)), Place::Old);
        passed.remember("one");
        passed.remember("two");
        assert!(!passed.knows("one") && passed.knows("two"));
    }
}
