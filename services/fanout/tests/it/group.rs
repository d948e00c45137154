//! A consumer group in memory: a log of a few partitions, members that come to own and lose them, and one that stands still.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use domain::{
    Error, Millis,
    ports::{
        EventSource,
        event_source::{Occurrence, Partition, Record},
    },
};
use tokio::sync::Notify;

/// Records handed out at once.
const BATCH: usize = 7;

/// The log and its group.
#[derive(Default)]
pub(crate) struct Group {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    log: BTreeMap<Partition, Vec<Record>>,
    committed: BTreeMap<Partition, i64>,
    owners: BTreeMap<Partition, usize>,
    /// Partitions on their way, and whose they will be.
    moving: BTreeMap<Partition, usize>,
    members: Vec<Member>,
}

#[derive(Default)]
struct Member {
    occurrences: VecDeque<Occurrence>,
    /// What it may fetch, and from where.
    positions: BTreeMap<Partition, i64>,
    paused: BTreeSet<Partition>,
    /// Handed out and not carried out yet.
    revoking: Vec<Partition>,
    /// It hears nothing and is not heard, and does not know.
    stands_still: bool,
}

impl State {
    fn give(&mut self, partition: Partition, to: usize) {
        self.owners.insert(partition, to);
        let from = self.committed.get(&partition).copied().unwrap_or(0);
        let member = &mut self.members[to];
        member.positions.insert(partition, from);
        member.paused.remove(&partition);
        member.occurrences.push_back(Occurrence::Assigned(vec![partition]));
    }

    /// What was revoked is given to whom it was meant for; how many partitions that were.
    fn carry_out(&mut self, place: usize) -> usize {
        let revoked = std::mem::take(&mut self.members[place].revoking);
        for partition in &revoked {
            self.members[place].positions.remove(partition);
            if let Some(to) = self.moving.remove(partition) {
                // Who stands still is nobody to give anything to.
                self.give(*partition, if self.members[to].stands_still { place } else { to });
            }
        }
        revoked.len()
    }

    fn fetch(&mut self, place: usize) -> Vec<Record> {
        let member = &mut self.members[place];
        let mut found = Vec::new();
        for (partition, position) in &mut member.positions {
            if !member.paused.contains(partition) {
                let log = self.log.get(partition).map(Vec::as_slice).unwrap_or_default();
                let from = usize::try_from(*position).expect("an offset").min(log.len());
                let some = &log[from..log.len().min(from + BATCH)];
                *position += i64::try_from(some.len()).expect("few");
                found.extend_from_slice(some);
            }
        }
        found
    }
}

impl Group {
    /// One more member, which owns nothing yet.
    pub(crate) fn join(self: &Arc<Self>) -> Arc<Source> {
        let mut state = self.state();
        state.members.push(Member::default());
        Arc::new(Source { group: self.clone(), place: state.members.len() - 1 })
    }

    /// The partition goes to that member: at once when nobody has it, else when its owner lets go.
    pub(crate) fn assign(&self, partition: Partition, to: usize) {
        let mut state = self.state();
        match state.owners.get(&partition).copied() {
            None => state.give(partition, to),
            Some(from) if from == to || state.moving.contains_key(&partition) || state.members[from].stands_still => {}
            Some(from) => {
                state.moving.insert(partition, to);
                state.members[from].occurrences.push_back(Occurrence::Revoked(vec![partition]));
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The member stands still; after a while the group gives what it owns to another.
    pub(crate) fn stand_still(&self, place: usize, heir: usize) {
        let mut state = self.state();
        state.members[place].stands_still = true;
        let owned: Vec<_> =
            state.owners.iter().filter(|(_, owner)| **owner == place).map(|(partition, _)| *partition).collect();
        for partition in owned {
            state.moving.remove(&partition);
            state.give(partition, heir);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// It goes on, and learns what it has lost.
    pub(crate) fn go_on(&self, place: usize) {
        let mut state = self.state();
        let member = &mut state.members[place];
        member.stands_still = false;
        member.occurrences.clear();
        let mut lost: BTreeSet<Partition> = member.positions.keys().copied().collect();
        lost.extend(member.revoking.drain(..));
        member.occurrences.push_back(Occurrence::Revoked(lost.into_iter().collect()));
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn stands_still(&self, place: usize) -> bool {
        self.state().members[place].stands_still
    }

    pub(crate) fn write(&self, partition: Partition, key: &str, value: Vec<u8>) {
        let mut state = self.state();
        let log = state.log.entry(partition).or_default();
        let offset = i64::try_from(log.len()).expect("few");
        let key = key.as_bytes().to_vec();
        log.push(Record { partition, offset, timestamp: Millis(0), key, value, headers: Vec::new() });
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether all that is on the log was attempted and committed.
    pub(crate) fn is_done(&self) -> bool {
        let state = self.state();
        state.log.iter().all(|(partition, log)| {
            state.committed.get(partition).copied().unwrap_or(0) == i64::try_from(log.len()).expect("few")
        })
    }

    /// The records below what is committed.
    pub(crate) fn committed(&self) -> Vec<Record> {
        let state = self.state();
        let below = state.log.iter().flat_map(|(partition, log)| {
            let end = state.committed.get(partition).copied().unwrap_or(0);
            log[..usize::try_from(end).expect("an offset")].to_vec()
        });
        below.collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("whole")
    }
}

/// One member's end of the log.
pub(crate) struct Source {
    group: Arc<Group>,
    place: usize,
}

impl Source {
    fn try_next(&self) -> Option<Occurrence> {
        let mut state = self.group.state();
        if state.members[self.place].stands_still {
            return None;
        }
        let changed = state.carry_out(self.place) > 0;
        let occurrence = state.members[self.place].occurrences.pop_front();
        if let Some(Occurrence::Revoked(partitions)) = &occurrence {
            state.members[self.place].revoking.clone_from(partitions);
        }
        let occurrence = occurrence.or_else(|| {
            let records = state.fetch(self.place);
            (!records.is_empty()).then_some(Occurrence::Records(records))
        });
        drop(state);
        if changed {
            self.group.changed.notify_waiters();
        }
        occurrence
    }
}

#[async_trait]
impl EventSource for Source {
    async fn next(&self) -> Result<Occurrence, Error> {
        loop {
            let changed = self.group.changed.notified();
            if let Some(occurrence) = self.try_next() {
                return Ok(occurrence);
            }
            changed.await;
        }
    }

    async fn commit(&self, next_offsets: &[(Partition, i64)]) -> Result<(), Error> {
        let mut state = self.group.state();
        let is_owner = |partition| state.owners.get(partition) == Some(&self.place);
        if state.members[self.place].stands_still || !next_offsets.iter().all(|(partition, _)| is_owner(partition)) {
            return Err(Error::unavailable("the group did not take the offsets", "the partition is another's"));
        }
        for (partition, offset) in next_offsets {
            let committed = state.committed.entry(*partition).or_default();
            assert!(*offset >= *committed, "{partition:?} goes back to {offset}");
            *committed = *offset;
        }
        Ok(())
    }

    async fn pause(&self, partitions: &[Partition]) -> Result<(), Error> {
        self.group.state().members[self.place].paused.extend(partitions);
        Ok(())
    }

    async fn resume(&self, partitions: &[Partition]) -> Result<(), Error> {
        self.group.state().members[self.place].paused.retain(|partition| !partitions.contains(partition));
        self.group.changed.notify_waiters();
        Ok(())
    }

    fn lag(&self) -> Vec<(Partition, u64)> {
        Vec::new()
    }

    async fn leave(&self) {}
}
