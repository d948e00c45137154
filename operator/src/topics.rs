//! The topics of a cluster: observe, plan, execute. Kafka knows no owners and no leader; both are minded here.

mod brokers;
pub mod plan;
mod settings;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use adapters::kafka::admin::{Error, Mode, Outcomes};
use tokio::time::Instant;

pub use brokers::Brokers;
pub use wanted::{Partitions, Provider, Wanted, WantedTopic};

use crate::engine::{
    Act, Class, Convergence, Deletion, Fence, Gone, Ledger, Management, NotLeader, Notice, Reason, Report,
};
use plan::Plan;

/// When topics that are in sync are looked at again.
const STEADY: Duration = Duration::from_mins(5);
/// When work that goes on is looked at again.
const SOON: Duration = Duration::from_secs(2);
/// Time between looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a pass waits for brokers to tell each other of its changes.
const SETTLE: Duration = Duration::from_secs(3);

/// Why a pass came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Another leads: stop.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The ledger can't be read or written: try again.
    #[error("the record of topics is not available: {0:#}")]
    Ledger(anyhow::Error),
}

/// One pass over the topics of a cluster.
pub struct Pass<'a> {
    /// Where they are.
    pub brokers: &'a dyn Brokers,
    /// What was done before.
    pub ledger: &'a dyn Ledger,
    /// Who leads.
    pub fence: &'a dyn Fence,
    /// What was tried in vain.
    pub convergence: &'a mut Convergence,
}

/// Requests of a pass.
#[derive(Default)]
struct Count {
    reads: u32,
    writes: u32,
}

/// A describe is a metadata request and one for settings.
const READS: u32 = 2;

impl Pass<'_> {
    /// Looks at the topics and, unless it is only to plan, makes them what is asked for, within the budget.
    ///
    /// Costs two requests when nothing is to be done. Repeating it is safe at any time, and after a crash at any place.
    ///
    /// # Errors
    /// When another leads or the ledger is not available; all that concerns brokers is in the report.
    pub async fn run(mut self, wanted: &Wanted, act: Act) -> Result<Report, Failure> {
        let begun = Instant::now();
        let mut count = Count::default();
        let mut record = self.ledger.load().await.map_err(Failure::Ledger)?;
        let mut planned = match self.observe(wanted, &record, &mut count).await {
            Ok(planned) => planned,
            Err(error) => return Ok(unavailable(wanted, &error, &count)),
        };
        let changes = planned.changes.clone();
        let mut notices = std::mem::take(&mut planned.notices);
        if act == Act::Plan || wanted.management == Management::External {
            self.check(&mut planned, &mut count).await;
            return Ok(report(planned, changes, notices, &count));
        }

        self.give_up_on_pointless(&mut planned);
        self.keep(&planned, &mut record).await?;
        if planned.is_empty() {
            self.settled(&planned);
            return Ok(report(planned, changes, notices, &count));
        }
        let mut tried = planned.work();
        let (begun_with, refusals) = self.execute(&planned, begun + wanted.budget, &mut count).await?;

        // What the time did not suffice for was not tried.
        tried.retain(|name, _| begun_with.contains(name));

        // Brokers tell each other of changes; what they say meanwhile is no drift.
        let deadline = Instant::now() + SETTLE.min(wanted.budget);
        loop {
            planned = match self.observe(wanted, &record, &mut count).await {
                Ok(planned) => planned,
                Err(error) => return Ok(unavailable(wanted, &error, &count)),
            };
            let left = planned.work();
            let is_open = tried.iter().any(|(name, work)| !refusals.contains_key(name) && left.get(name) == Some(work));
            if !is_open || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        notices.append(&mut planned.notices);
        self.give_up_on_pointless(&mut planned);
        self.keep(&planned, &mut record).await?;
        let left = planned.work();
        for (name, work) in tried {
            if !refusals.contains_key(&name) && left.get(&name) == Some(&work) {
                self.convergence.in_vain(&name, work);
            } else {
                self.convergence.settled(&name);
            }
        }
        for item in &mut planned.items {
            if let Some(error) = refusals.get(&item.name) {
                (item.reason, item.message) = refusal(error);
            }
        }
        Ok(report(planned, changes, notices, &count))
    }

    /// Deletes the topics that are ours, if that is the policy.
    ///
    /// # Errors
    /// When another leads or the ledger is not available.
    pub async fn delete(self, wanted: &Wanted) -> Result<Gone, Failure> {
        if wanted.management == Management::External || wanted.deletion == Deletion::Retain {
            return Ok(Gone::Done(Vec::new()));
        }
        let mut record = self.ledger.load().await.map_err(Failure::Ledger)?;
        let mut names = wanted.names();
        names.extend(record.topics.keys().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
        let found = match self.brokers.describe(&names).await {
            Ok(found) => found,
            Err(error) => return Ok(blocked(&error)),
        };
        let mut notices = Vec::new();
        let mut ours = Vec::new();
        for name in names {
            match found.get(&name) {
                Some(Ok(Some(state))) => match plan::may_be_deleted(wanted, &name, state, record.topics.get(&name)) {
                    Ok(()) => ours.push(name),
                    Err(message) => {
                        notices.push(Notice {
                            reason: "TopicLeftAlone",
                            object: format!("topic/{name}"),
                            message,
                            is_warning: true,
                        });
                    }
                },
                Some(Ok(None)) => {}
                Some(Err(error)) => return Ok(blocked(error)),
                None => return Ok(Gone::Working(format!("the brokers said nothing about {name}"))),
            }
        }
        if !ours.is_empty() {
            self.fence.check()?;
            match self.brokers.delete(&ours).await {
                Ok(outcomes) => {
                    let refused = outcomes.iter().find_map(|(_, outcome)| match outcome {
                        Ok(()) | Err(Error::NotFound) => None,
                        Err(error) => Some(error),
                    });
                    if let Some(error) = refused {
                        return Ok(blocked(error));
                    }
                }
                Err(error) => return Ok(blocked(&error)),
            }
        }
        if !record.topics.is_empty() {
            record.topics.clear();
            self.ledger.store(&record).await.map_err(Failure::Ledger)?;
        }
        Ok(Gone::Done(notices))
    }

    async fn observe(&self, wanted: &Wanted, record: &crate::engine::Record, count: &mut Count) -> Result<Plan, Error> {
        count.reads += READS;
        let found = self.brokers.describe(&wanted.names()).await?;
        Ok(plan::plan(wanted, &found, record))
    }

    /// Asks brokers what they would say to the plan.
    async fn check(&self, planned: &mut Plan, count: &mut Count) {
        let mut refusals = BTreeMap::new();
        let mut take = |outcomes: Result<Outcomes, Error>| {
            for (name, outcome) in outcomes.unwrap_or_default() {
                // Brokers that can't judge a change in advance have said nothing against it.
                if let Err(error) = outcome
                    && !matches!(error, Error::Unsupported { .. })
                {
                    refusals.insert(name, error);
                }
            }
        };
        if !planned.create.is_empty() {
            count.reads += 1;
            take(self.brokers.create(planned.create.clone(), Mode::ValidateOnly).await);
        }
        if !planned.grow.is_empty() {
            count.reads += 1;
            take(self.brokers.grow(planned.grow.clone(), Mode::ValidateOnly).await);
        }
        for (name, changes) in &planned.alter {
            count.reads += 1;
            let outcome = self.brokers.alter(name, changes.clone(), Mode::ValidateOnly).await;
            take(Ok(BTreeMap::from([(name.clone(), outcome)])));
        }
        for item in &mut planned.items {
            if let Some(error) = refusals.get(&item.name) {
                (item.reason, item.message) = refusal(error);
            }
        }
    }

    fn give_up_on_pointless(&mut self, planned: &mut Plan) {
        for (name, work) in planned.work() {
            if !self.convergence.is_pointless(&name, &work) {
                continue;
            }
            planned.create.retain(|topic| topic.name != name);
            planned.grow.retain(|(topic, _)| *topic != name);
            planned.alter.retain(|(topic, _)| *topic != name);
            for item in planned.items.iter_mut().filter(|item| item.name == name) {
                item.reason = Reason::NonConvergent;
                item.message = format!("the brokers take this and do not do it, time and again: {work}");
            }
        }
    }

    fn settled(&mut self, planned: &Plan) {
        for item in planned.items.iter().filter(|item| item.is_synced()) {
            self.convergence.settled(&item.name);
        }
    }

    /// Writes down what is about to be done: a crash in between leaves a record of too much, never of too little.
    async fn keep(&self, planned: &Plan, record: &mut crate::engine::Record) -> Result<(), Failure> {
        if planned.record != *record {
            self.fence.check()?;
            self.ledger.store(&planned.record).await.map_err(Failure::Ledger)?;
            record.clone_from(&planned.record);
        }
        Ok(())
    }

    /// Carries the plan out as far as the time goes; returns the topics that were begun with, and what brokers refused.
    async fn execute(
        &self,
        planned: &Plan,
        until: Instant,
        count: &mut Count,
    ) -> Result<(BTreeSet<String>, BTreeMap<String, Error>), Failure> {
        let (mut begun_with, mut refusals) = (BTreeSet::new(), BTreeMap::new());
        let mut take = |outcomes: Result<Outcomes, Error>, names: &mut dyn Iterator<Item = &String>| match outcomes {
            Ok(outcomes) => {
                for (name, outcome) in outcomes {
                    match outcome {
                        // Somebody was faster; the next look says what there is.
                        Ok(()) | Err(Error::AlreadyExists) => {}
                        Err(error) => drop(refusals.insert(name, error)),
                    }
                }
            }
            Err(error) => refusals.extend(names.map(|name| (name.clone(), error.clone()))),
        };
        if !planned.create.is_empty() && Instant::now() < until {
            self.fence.check()?;
            count.writes += 1;
            begun_with.extend(planned.create.iter().map(|topic| topic.name.clone()));
            let outcomes = self.brokers.create(planned.create.clone(), Mode::Do).await;
            take(outcomes, &mut planned.create.iter().map(|topic| &topic.name));
        }
        if !planned.grow.is_empty() && Instant::now() < until {
            self.fence.check()?;
            count.writes += 1;
            begun_with.extend(planned.grow.iter().map(|(name, _)| name.clone()));
            let outcomes = self.brokers.grow(planned.grow.clone(), Mode::Do).await;
            take(outcomes, &mut planned.grow.iter().map(|(name, _)| name));
        }
        for (name, changes) in &planned.alter {
            if Instant::now() >= until {
                break;
            }
            self.fence.check()?;
            count.writes += 1;
            begun_with.insert(name.clone());
            let outcome = self.brokers.alter(name, changes.clone(), Mode::Do).await;
            take(Ok(BTreeMap::from([(name.clone(), outcome)])), &mut std::iter::empty());
        }
        Ok((begun_with, refusals))
    }
}

fn report(planned: Plan, changes: Vec<crate::engine::Change>, notices: Vec<Notice>, count: &Count) -> Report {
    let (reason, message) = Report::verdict(&planned.items, Reason::TopicsInSync, "topics");
    let next = match reason.class() {
        Class::InSync | Class::Stalled => STEADY,
        Class::Working => SOON,
        Class::Retrying => 5 * SOON,
    };
    Report { items: planned.items, reason, message, changes, notices, next, reads: count.reads, writes: count.writes }
}

/// The report of a pass in which brokers could not be asked.
fn unavailable(wanted: &Wanted, error: &Error, count: &Count) -> Report {
    let (reason, message) = refusal(error);
    let items = wanted.topics.iter().map(|topic| crate::engine::Item {
        name: topic.name.clone(),
        id: None,
        partitions: None,
        status: None,
        reason,
        message: message.clone(),
    });
    Report {
        items: items.collect(),
        reason,
        message,
        changes: Vec::new(),
        notices: Vec::new(),
        next: 5 * SOON,
        reads: count.reads,
        writes: count.writes,
    }
}

fn blocked(error: &Error) -> Gone {
    let (reason, message) = refusal(error);
    Gone::Blocked(reason, message)
}

/// What an error means for a condition, and what to do about it.
pub(crate) fn refusal(error: &Error) -> (Reason, String) {
    let (reason, advice) = match error {
        Error::Unreachable { .. } => (Reason::KafkaUnreachable, "check spec.kafka.bootstrapServers and the brokers"),
        Error::AuthenticationFailed { .. } => {
            (Reason::AuthenticationFailed, "check spec.kafka.authentication and its Secret")
        }
        Error::AuthorizationFailed { .. } => {
            (Reason::AuthorizationFailed, "allow the operator's user to describe, create and alter these topics")
        }
        Error::ReassignmentInProgress => (Reason::ReassignmentInProgress, "it goes on once they have moved"),
        Error::DeletionDisabled => {
            (Reason::ConfigRejected, "enable it on the brokers, or set topics.deletionPolicy: Retain")
        }
        Error::Refused { .. } | Error::Unsupported { .. } => {
            (Reason::ConfigRejected, "ask for something the brokers take")
        }
        Error::Throttled { .. } | Error::Failed { .. } => (Reason::KafkaUnreachable, "it is tried again"),
        Error::NotFound | Error::AlreadyExists => (Reason::DriftDetected, "it is looked at again"),
    };
    (reason, format!("{error}; {advice}"))
}
