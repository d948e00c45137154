//! One attempt at the records of some partitions: looked up together, then each partition by itself.

use std::{collections::VecDeque, sync::Arc};

use domain::{
    Clock, ErrorKind,
    ports::{
        DeadLetters,
        dead_letters::DeadLetter,
        event_source::{Partition, Record},
    },
};
use futures_util::future::join_all;
use platform::{broken, failpoint, wire};
use tokio::sync::mpsc;

use crate::{
    config::Limits,
    metrics::DeadFor,
    passed_on::PassedOn,
    read::{Event, read},
    route::{Route, Routes},
};

/// A record that waits for its attempt.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    event: Result<Event, String>,
    attempts: u32,
}

impl Entry {
    pub(crate) fn new(record: Record) -> Self {
        let event = read(&record);
        Self { record, event, attempts: 0 }
    }
}

/// Records of one partition, and what it has passed on before them.
pub(crate) struct Work {
    pub(crate) partition: Partition,
    /// Which assignment of the partition it belongs to.
    pub(crate) assignment: u64,
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) passed_on: PassedOn,
}

/// How far one partition came.
pub(crate) struct Outcome {
    pub(crate) partition: Partition,
    /// Which assignment of the partition it belongs to.
    pub(crate) assignment: u64,
    pub(crate) passed_on: PassedOn,
    /// Where a next owner begins; `None` when nothing was finished.
    pub(crate) next_offset: Option<i64>,
    /// What was not finished, in order.
    pub(crate) rest: VecDeque<Entry>,
    /// Why not.
    pub(crate) trouble: Option<ErrorKind>,
}

/// What is known of members and routes when an attempt begins.
enum Looked {
    Together(Routes),
    Alone,
    Away(ErrorKind),
}

/// What attempts need.
#[derive(Clone)]
pub(crate) struct Attempts {
    pub(crate) route: Arc<Route>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
}

impl Attempts {
    /// Attempts all of it; each partition's outcome is told as soon as it is known.
    pub(crate) async fn run(self, all: Vec<Work>, outcomes: mpsc::Sender<Outcome>) {
        failpoint::reached("route.before");
        if broken::is("commit_first") {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        let events: Vec<&Event> =
            all.iter().flat_map(|work| &work.entries).filter_map(|entry| entry.event.as_ref().ok()).collect();
        let looked_up = self.route.look_up(&events).await;
        drop(events);
        failpoint::reached("route.after");
        let routes = match looked_up {
            Ok(routes) => Looked::Together(routes),
            Err(error) if error.kind().is_retryable() => {
                tracing::warn!(
                    event = "routes.away",
                    error.code = wire::code(&error),
                    error.message = %error,
                    "members and routes are not known, so their partitions wait"
                );
                Looked::Away(error.kind())
            }
            // One of them may be at fault, which must not be held against the others.
            Err(error) => {
                tracing::warn!(
                    event = "routes.refused",
                    error.code = wire::code(&error),
                    error.message = %error,
                    "members and routes are looked up for each record alone"
                );
                Looked::Alone
            }
        };
        let told = all.into_iter().map(|work| async {
            let outcome = match &routes {
                Looked::Away(kind) => Outcome {
                    partition: work.partition,
                    assignment: work.assignment,
                    passed_on: work.passed_on,
                    next_offset: None,
                    rest: work.entries,
                    trouble: Some(*kind),
                },
                Looked::Together(routes) => self.one(work, Some(routes)).await,
                Looked::Alone => self.one(work, None).await,
            };
            if outcomes.send(outcome).await.is_err() {
                tracing::debug!("nobody waits for the outcome of an attempt");
            }
        });
        join_all(told).await;
    }

    /// Passes on what it can; without routes they are looked up for each record.
    async fn one(&self, mut work: Work, routes: Option<&Routes>) -> Outcome {
        let (mut next_offset, mut trouble) = (None, None);
        let mut on_the_way = Vec::new();
        while let Some(entry) = work.entries.front() {
            let offset = entry.record.offset;
            let passed = match &entry.event {
                Ok(event) => match routes {
                    Some(routes) => self.route.pass_on(event, routes, &mut work.passed_on).await,
                    None => match self.route.look_up(&[event]).await {
                        Ok(routes) => self.route.pass_on(event, &routes, &mut work.passed_on).await,
                        Err(error) => Err(error.kind()),
                    },
                },
                Err(reason) => self.give_up(entry, reason, 1, DeadFor::Unreadable).await.map(|()| Vec::new()),
            };
            match passed {
                Ok(frames) => {
                    on_the_way.extend(frames);
                    next_offset = Some(offset + 1);
                    work.entries.pop_front();
                }
                Err(kind) => {
                    if let Some(given_up) = self.or_give_up(&mut work.entries, kind).await {
                        next_offset = Some(given_up);
                        continue;
                    }
                    trouble = Some(kind);
                    break;
                }
            }
        }
        // Attempted means answered, or late: an offset moves only after that.
        self.route.settle(on_the_way).await;
        failpoint::reached("deliver.after");
        Outcome {
            partition: work.partition,
            assignment: work.assignment,
            passed_on: work.passed_on,
            next_offset,
            rest: work.entries,
            trouble,
        }
    }

    /// Counts a failure that is no absence against the first record; at the last one it becomes a dead letter (D4.7).
    async fn or_give_up(&self, entries: &mut VecDeque<Entry>, kind: ErrorKind) -> Option<i64> {
        let first = entries.front_mut().filter(|_| !kind.is_retryable())?;
        first.attempts += 1;
        let (offset, attempts) = (first.record.offset, first.attempts);
        if attempts < self.limits.record_attempts {
            return None;
        }
        self.give_up(first, "it failed by a fault each time", attempts, DeadFor::Failed).await.ok()?;
        entries.pop_front();
        Some(offset + 1)
    }

    async fn give_up(&self, entry: &Entry, reason: &str, attempts: u32, dead_for: DeadFor) -> Result<(), ErrorKind> {
        let Partition { topic, number } = entry.record.partition;
        let offset = entry.record.offset;
        let letter = DeadLetter {
            record: entry.record.clone(),
            reason: reason.to_owned(),
            failed_at: self.clock.now(),
            attempts,
        };
        let kept = self.dead_letters.keep(letter).await;
        // In its hop, if it could be read.
        let _in_hop = entry.event.as_ref().ok().map(|event| event.span.enter());
        match kept {
            Ok(()) => {
                tracing::warn!(
                    event = "record.dead",
                    topic,
                    number,
                    offset,
                    error.message = %reason,
                    "record {topic}/{number}/{offset} is a dead letter"
                );
                self.route.metrics.dead(dead_for);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(
                    event = "record.dead_letter_failed",
                    topic,
                    number,
                    offset,
                    error.code = wire::code(&error),
                    error.message = %error,
                    "record {topic}/{number}/{offset} was not given up"
                );
                Err(ErrorKind::Unavailable)
            }
        }
    }
}
