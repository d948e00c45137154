//! The offline checker: reads a history and says which properties it breaks, each with its counterexample.
//!
//! All checks are about sets and sequences, so a history of n lines takes O(n log n).

mod index;
mod order;
mod receive;
mod reply;
mod store;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use self::index::Index;
use super::line::{Line, Run};

/// Counterexamples of one property that a report names; the others are counted.
const NAMED: usize = 10;

/// What every history must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Property {
    /// No acknowledged message is lost: it is in the store, on the log, and in every member's last sync.
    P1,
    /// Nothing is invented: all that is seen was sent, with that text, and not refused for good.
    P2,
    /// Nothing is doubled: one place and one id for each message, one message for each place.
    P3,
    /// One order for each chat, which agrees with real time.
    P4,
    /// No gap: what a connection brings is contiguous, or a sync closes the hole.
    P5,
    /// A sync brings all after its cursor, up to what was acknowledged before it was asked for.
    P6,
    /// The same request has the same answer, whenever it comes again.
    P7,
    /// Nobody sees what was said after they had left.
    P8,
    /// After the healing everybody sees everything in time.
    P9,
    /// Processes give back what they used.
    P10,
    /// Nothing appears or vanishes: sends, rows, heads and records add up.
    P11,
}

impl fmt::Display for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// A property that does not hold, and the lines that show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// In words.
    pub says: String,
    /// Numbers of the lines that show it, from 1.
    pub lines: Vec<usize>,
}

/// What a history says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was done to the system.
    pub row: String,
    /// Where its randomness began.
    pub seed: u64,
    /// Up to ten of each property.
    pub violations: Vec<Violation>,
    /// How many there are of each property.
    pub broken: BTreeMap<Property, usize>,
    /// What the history holds.
    pub counts: Counts,
    /// From the ack to the sight of another member, in milliseconds.
    pub lag: Lag,
    /// The longest time without any ack while messages were on their way, in milliseconds.
    pub longest_ack_gap_ms: u64,
}

/// What a history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages that somebody began to send.
    pub sends: usize,
    /// Of those, acknowledged.
    pub acknowledged: usize,
    /// Of those, refused for good.
    pub refused: usize,
    /// Of those, without a known end.
    pub unknown: usize,
    /// Attempts after the first.
    pub repeated: usize,
    /// Stored messages.
    pub rows: usize,
    /// Records of the log.
    pub records: usize,
    /// Records beyond the first of their message.
    pub repeated_records: usize,
    /// Pushes that came over the wire.
    pub pushes: usize,
    /// Messages that came over the wire and were there already.
    pub wire_duplicates: usize,
    /// Pages of syncs.
    pub pages: usize,
    /// Connections.
    pub connections: usize,
    /// Faults that began.
    pub faults: usize,
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Half were not longer.
    pub p50: u64,
    /// One of a hundred was longer.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Report {
    /// Whether all properties hold.
    pub fn is_accepted(&self) -> bool {
        self.broken.is_empty()
    }

    /// Whether this property does not hold.
    pub fn rejects(&self, property: Property) -> bool {
        self.broken.contains_key(&property)
    }

    fn found(&mut self, property: Property, says: String, lines: &[usize]) {
        let count = self.broken.entry(property).or_default();
        *count += 1;
        if *count <= NAMED {
            self.violations.push(Violation { property, says, lines: lines.iter().map(|line| line + 1).collect() });
        }
    }
}

/// Checks a history; its first line says what is promised of it.
pub fn check(lines: &[Line]) -> Report {
    let run = lines.first().and_then(|line| line.run.clone()).unwrap_or_default();
    let index = Index::new(lines);
    let Run { row, seed, .. } = run.clone();
    let mut report = Report { row, seed, counts: index.counts, ..Report::default() };
    if lines.is_empty() {
        report.found(Property::P1, "the history is empty".to_owned(), &[]);
    }
    store::nothing_acknowledged_is_lost(&index, &mut report);
    store::nothing_is_invented(&index, &mut report);
    store::all_adds_up(&index, &mut report);
    order::nothing_is_doubled(&index, &mut report);
    order::one_order(&index, &mut report);
    receive::no_gap(&index, &run, &mut report);
    receive::pages_are_whole(&index, &mut report);
    receive::nobody_sees_what_came_after_them(&index, &run, &mut report);
    receive::everybody_sees_everything_in_time(&index, &run, &mut report);
    reply::the_same_answer(&index, &mut report);
    reply::processes_give_back(&index, &mut report);
    report
}

#[cfg(test)]
mod tests;
