//! Hop 4 of 6: records are taken from the log, and an offset moves only after the attempt.
//!
//! Each partition goes at its own pace: one that waits for Redis or the store is paused, and tried again (D5.4).
//! Next hop: fanout/src/route.rs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use domain::{
    Error,
    ports::{
        DeadLetters, EventSource,
        event_source::{Occurrence, Partition, Record},
    },
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use platform::{Gate, Process, broken, failpoint, retry::Backoff, wire};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    attempt::{Attempts, Entry, Outcome, Work},
    config::Limits,
    passed_on::PassedOn,
    route::Route,
};

/// Outcomes that wait to be looked at.
const OUTCOMES: usize = 256;
/// How often this loop says that it goes on, and after how long a silence it is stuck.
const BEAT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_mins(1);

/// Offsets, and what became of their commit.
type Committed = (Vec<(Partition, i64)>, Result<(), Error>);

/// Takes records from the log, and sees that each is attempted.
pub struct Consume {
    source: Arc<dyn EventSource>,
    attempts: Attempts,
    lanes: BTreeMap<Partition, Lane>,
    assignments: u64,
    running: FuturesUnordered<JoinHandle<()>>,
    outcomes: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    commit: Option<BoxFuture<'static, Committed>>,
    /// Not before then, after a commit that failed.
    commit_at: Option<Instant>,
    limits: Limits,
    process: Process,
}

/// One partition that is ours.
struct Lane {
    /// Tells this assignment from an earlier one, whose attempt may still run.
    assignment: u64,
    waiting: VecDeque<Entry>,
    /// Records of the attempt that runs.
    attempted: usize,
    /// Away while an attempt runs.
    passed_on: Option<PassedOn>,
    /// Where a next owner would begin, when that is not committed yet.
    finished: Option<i64>,
    is_paused: bool,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Lane {
    fn new(assignment: u64, limits: &Limits) -> Self {
        Self {
            assignment,
            waiting: VecDeque::new(),
            attempted: 0,
            passed_on: Some(PassedOn::new(limits.remembered_chats, limits.remembered_events)),
            finished: None,
            is_paused: false,
            failures: 0,
            retry_at: None,
        }
    }

    fn is_busy(&self) -> bool {
        self.passed_on.is_none()
    }
}

impl Consume {
    /// Joins the parts.
    pub fn new(
        source: Arc<dyn EventSource>,
        route: Arc<Route>,
        dead_letters: Arc<dyn DeadLetters>,
        limits: &Limits,
        process: &Process,
    ) -> Self {
        Self {
            source,
            attempts: Attempts { route, dead_letters, clock: process.clock(), limits: limits.clone() },
            lanes: BTreeMap::new(),
            assignments: 0,
            running: FuturesUnordered::new(),
            outcomes: mpsc::channel(OUTCOMES),
            commit: None,
            commit_at: None,
            limits: limits.clone(),
            process: process.clone(),
        }
    }

    /// Runs until the process stops: then it finishes what has begun, commits, and leaves the group.
    ///
    /// # Errors
    /// When this consumer can never go on.
    pub async fn run(mut self, is_member: Gate) -> anyhow::Result<()> {
        let (process, source) = (self.process.clone(), self.source.clone());
        let alive = process.liveness("consume", SILENCE);
        let mut beats = tokio::time::interval(BEAT);
        loop {
            self.start_attempts();
            self.start_commit();
            let retry_at = self.lanes.values().filter_map(|lane| lane.retry_at).chain(self.commit_at).min();
            tokio::select! {
                () = process.stopping() => break,
                Some(ended) = self.running.next() => ended.context("an attempt failed")?,
                Some(outcome) = self.outcomes.1.recv() => self.take_in(outcome).await,
                committed = committed(&mut self.commit) => self.note_commit(committed),
                occurrence = source.next() => match occurrence.map_err(anyhow::Error::msg).context("the log ended")? {
                    Occurrence::Assigned(partitions) => {
                        self.begin(partitions);
                        is_member.open();
                    }
                    Occurrence::Records(records) => self.keep(records).await,
                    Occurrence::Revoked(partitions) => self.hand_over(&partitions).await?,
                },
                () = until(retry_at) => self.retry(),
                _ = beats.tick() => {
                    alive.beat();
                    self.measure_lag();
                }
            }
        }
        let all: Vec<Partition> = self.lanes.keys().copied().collect();
        let finished = self.hand_over(&all).await;
        self.source.leave().await;
        finished
    }

    fn begin(&mut self, partitions: Vec<Partition>) {
        for partition in partitions {
            self.assignments += 1;
            self.lanes.insert(partition, Lane::new(self.assignments, &self.limits));
        }
        self.measure();
    }

    async fn keep(&mut self, records: Vec<Record>) {
        for record in records {
            // Records of a partition that has gone belong to its next owner.
            if let Some(lane) = self.lanes.get_mut(&record.partition) {
                self.attempts.route.metrics.consumed(record.partition.topic);
                lane.waiting.push_back(Entry::new(record));
            }
        }
        self.pause_and_resume().await;
    }

    /// Starts one attempt at all that waits and can be tried now.
    fn start_attempts(&mut self) {
        let mut all = Vec::new();
        for (partition, lane) in &mut self.lanes {
            if lane.waiting.is_empty() || lane.retry_at.is_some() {
                continue;
            }
            if let Some(passed_on) = lane.passed_on.take() {
                let count = lane.waiting.len().min(self.limits.attempt_records as usize);
                let entries: VecDeque<Entry> = lane.waiting.drain(..count).collect();
                lane.attempted = count;
                if broken::is("commit_first") {
                    lane.finished = entries.back().map(|last| last.record.offset + 1).or(lane.finished);
                }
                all.push(Work { partition: *partition, assignment: lane.assignment, entries, passed_on });
            }
        }
        if !all.is_empty() {
            let attempt = self.attempts.clone().run(all, self.outcomes.0.clone());
            self.running.push(self.process.spawn_child(attempt));
        }
    }

    async fn take_in(&mut self, outcome: Outcome) {
        let backoff = Backoff { base: Duration::from_millis(100), cap: self.limits.retry_cap };
        let lane = self.lanes.get_mut(&outcome.partition);
        if let Some(lane) = lane.filter(|lane| lane.assignment == outcome.assignment) {
            lane.passed_on = Some(outcome.passed_on);
            lane.attempted = 0;
            lane.finished = outcome.next_offset.or(lane.finished);
            for entry in outcome.rest.into_iter().rev() {
                lane.waiting.push_front(entry);
            }
            if outcome.trouble.is_some() {
                lane.retry_at = Some(Instant::now() + backoff.delay(lane.failures, self.process.ids().as_ref()));
                lane.failures = lane.failures.saturating_add(1);
            } else {
                (lane.failures, lane.retry_at) = (0, None);
            }
        }
        self.pause_and_resume().await;
    }

    fn retry(&mut self) {
        let now = Instant::now();
        self.commit_at = self.commit_at.filter(|at| *at > now);
        for lane in self.lanes.values_mut() {
            lane.retry_at = lane.retry_at.filter(|at| *at > now);
        }
    }

    /// Partitions in trouble rest, and all with something waiting do when too much waits.
    async fn pause_and_resume(&mut self) {
        let waiting: usize = self.lanes.values().map(|lane| lane.waiting.len() + lane.attempted).sum();
        let (limit, some) = (self.limits.waiting_records as usize, self.limits.waiting_records as usize / 2);
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (partition, lane) in &self.lanes {
            let is_in_the_way = waiting > limit && !lane.waiting.is_empty();
            if !lane.is_paused && (lane.failures > 0 || is_in_the_way) {
                pause.push(*partition);
            } else if lane.is_paused && lane.failures == 0 && waiting <= some {
                resume.push(*partition);
            }
        }
        for (partitions, is_paused) in [(pause, true), (resume, false)] {
            if partitions.is_empty() {
                continue;
            }
            let done =
                if is_paused { self.source.pause(&partitions).await } else { self.source.resume(&partitions).await };
            match done {
                Ok(()) => {
                    for partition in &partitions {
                        if let Some(lane) = self.lanes.get_mut(partition) {
                            lane.is_paused = is_paused;
                        }
                    }
                }
                // It is tried again with the next records or outcome.
                Err(error) => tracing::warn!(
                    event = "partitions.pause_failed",
                    error.code = wire::code(&error),
                    error.message = %error,
                    "{} partitions were not paused or resumed", partitions.len()
                ),
            }
        }
        self.measure();
    }

    /// One commit at a time: what is finished meanwhile goes with the next.
    fn start_commit(&mut self) {
        if self.commit.is_some() || self.commit_at.is_some() {
            return;
        }
        let finished: Vec<_> =
            self.lanes.iter_mut().filter_map(|(partition, lane)| Some((*partition, lane.finished.take()?))).collect();
        if finished.is_empty() {
            return;
        }
        let source = self.source.clone();
        let commit = async move {
            failpoint::reached("offset.before");
            let result = source.commit(&finished).await;
            failpoint::reached("offset.after");
            (finished, result)
        };
        self.commit = Some(commit.boxed());
    }

    fn note_commit(&mut self, (offsets, result): Committed) {
        self.commit = None;
        let Err(error) = result else { return };
        tracing::warn!(
            event = "offsets.commit_failed",
            error.code = wire::code(&error),
            error.message = %error,
            "the offsets of {} partitions are not committed yet", offsets.len()
        );
        self.commit_at = Some(Instant::now() + self.limits.retry_cap);
        for (partition, offset) in offsets {
            // They go with the next commit, unless it is further already.
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.finished = lane.finished.or(Some(offset));
            }
        }
    }

    /// Finishes what has begun on these partitions, commits it, and forgets them.
    async fn hand_over(&mut self, partitions: &[Partition]) -> anyhow::Result<()> {
        for partition in partitions {
            if let Some(lane) = self.lanes.get_mut(partition) {
                lane.waiting.clear();
            }
        }
        failpoint::reached("drain");
        let deadline = Instant::now() + self.limits.finish_timeout;
        while partitions.iter().any(|partition| self.lanes.get(partition).is_some_and(Lane::is_busy)) {
            tokio::select! {
                Some(ended) = self.running.next() => ended.context("an attempt failed")?,
                Some(outcome) = self.outcomes.1.recv() => self.take_in(outcome).await,
                () = sleep_until(deadline) => {
                    tracing::warn!(
                        event = "partitions.left_unfinished",
                        "records of partitions that go were not finished: their next owner repeats them"
                    );
                    break;
                }
            }
        }
        if let Some(commit) = self.commit.take() {
            if let Ok(committed) = timeout(self.limits.finish_timeout, commit).await {
                self.note_commit(committed);
            } else {
                tracing::warn!(event = "offsets.commit_late", "a commit of offsets did not end in time");
            }
        }
        self.commit_at = None;
        self.start_commit();
        if let Some(commit) = self.commit.take() {
            // Partitions that stay are committed again later.
            if let Ok(committed) = timeout(self.limits.finish_timeout, commit).await {
                self.note_commit(committed);
            } else {
                tracing::warn!(event = "offsets.commit_late", "the last commit of offsets did not end in time");
            }
        }
        for partition in partitions {
            self.lanes.remove(partition);
            self.attempts.route.metrics.gone(*partition);
        }
        self.measure();
        Ok(())
    }

    fn measure_lag(&self) {
        for (partition, records) in self.source.lag() {
            if self.lanes.contains_key(&partition) {
                self.attempts.route.metrics.lags(partition, records);
            }
        }
    }

    fn measure(&self) {
        let metrics = &self.attempts.route.metrics;
        let count = |lanes: usize| i64::try_from(lanes).unwrap_or(i64::MAX);
        metrics.partitions.set(count(self.lanes.len()));
        metrics.paused.set(count(self.lanes.values().filter(|lane| lane.is_paused).count()));
    }
}

async fn committed(commit: &mut Option<BoxFuture<'static, Committed>>) -> Committed {
    match commit {
        Some(commit) => commit.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
