//! Which slots may still hold a chat whose last messages are not on the log: the oldest goes into the lease (D4.3).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{Millis, publisher::Slot};

/// Slots in use by batches that are being stored and by chats that are not wholly published.
#[derive(Clone, Debug, Default)]
pub struct Slots(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// No slot given out later is lower: a clock that steps back must not undo what a lease has said.
    latest: Slot,
    in_use: BTreeMap<Slot, usize>,
}

impl Inner {
    fn advance(&mut self, now: Millis) -> Slot {
        self.latest = self.latest.max(Slot::of(now));
        self.latest
    }
}

/// Keeps a slot in use until it is dropped.
#[derive(Debug)]
pub struct SlotHold {
    slot: Slot,
    slots: Slots,
}

impl Slots {
    /// Takes the slot of this moment into use.
    pub fn hold(&self, now: Millis) -> SlotHold {
        self.with(|inner| {
            let slot = inner.advance(now);
            *inner.in_use.entry(slot).or_default() += 1;
            SlotHold { slot, slots: self.clone() }
        })
    }

    /// The oldest slot in use; the slot of this moment when none is.
    pub fn oldest(&self, now: Millis) -> Slot {
        self.with(|inner| {
            let current = inner.advance(now);
            inner.in_use.keys().next().copied().unwrap_or(current)
        })
    }

    /// The moment, but never before a slot that was given out: what a lease says of its end covers all its slots.
    pub fn no_earlier(&self, now: Millis) -> Millis {
        self.with(|inner| now.max(inner.advance(now).begin()))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SlotHold {
    /// Which slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }
}

impl Drop for SlotHold {
    fn drop(&mut self) {
        self.slots.with(|inner| {
            if let Some(count) = inner.in_use.get_mut(&self.slot) {
                *count -= 1;
                if *count == 0 {
                    inner.in_use.remove(&self.slot);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_slot_is_the_oldest_in_use_and_never_goes_back() {
        let at = |slot: i64| Millis(slot * 300_000);
        let slots = Slots::default();
        assert_eq!(slots.oldest(at(4)), Slot(4));
        let (first, second) = (slots.hold(at(5)), slots.hold(at(5)));
        let third = slots.hold(at(7));
        drop(first);
        assert_eq!(slots.oldest(at(8)), Slot(5));
        drop(second);
        assert_eq!(slots.oldest(at(8)), Slot(7));
        assert_eq!(slots.hold(at(3)).slot(), Slot(8), "the clock stepped back");
        drop(third);
        assert_eq!(slots.oldest(at(3)), Slot(8));
        assert_eq!((slots.no_earlier(at(3)), slots.no_earlier(Millis(at(9).0 + 7))), (at(8), Millis(at(9).0 + 7)));
    }
}
