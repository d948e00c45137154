//! One chat that is behind on the log.

use std::{collections::VecDeque, sync::Arc};

use domain::message::Sequence;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::Outgoing;
use crate::slots::SlotHold;

/// One chat that is behind: `confirmed ≤ sent ≤ target`.
pub(super) struct Tail {
    /// All up to here is on the log.
    pub(super) confirmed: Sequence,
    /// All up to here was taken by the producer, in order.
    pub(super) sent: Sequence,
    /// All up to here is to be on the log.
    pub(super) target: Sequence,
    /// What follows `sent` without a hole, as far as it is in memory.
    pub(super) held: VecDeque<Held>,
    /// The slot of the mark under which the store remembers the chat, if the mark is ours.
    pub(super) hold: Option<SlotHold>,
    pub(super) wake: Arc<Notify>,
}

pub(super) struct Held {
    pub(super) outgoing: Outgoing,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Tail {
    pub(super) fn new(confirmed: Sequence) -> Self {
        Self {
            confirmed,
            sent: confirmed,
            target: confirmed,
            held: VecDeque::new(),
            hold: None,
            wake: Arc::new(Notify::new()),
        }
    }

    /// Takes what somebody else has put on the log into account.
    pub(super) fn raise(&mut self, published_through: Sequence) {
        self.confirmed = self.confirmed.max(published_through);
        if self.sent < self.confirmed {
            self.sent = self.confirmed;
            while self.held.front().is_some_and(|held| held.outgoing.message.sequence <= self.sent) {
                self.held.pop_front();
            }
        }
    }

    pub(super) fn held_through(&self) -> Sequence {
        self.held.back().map_or(self.sent, |held| held.outgoing.message.sequence)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.confirmed >= self.target
    }
}
