//! The tables of a cluster: observe, plan, execute. DynamoDB takes one change of a table at a time, and knows no leader.

pub mod plan;
mod store;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use adapters::dynamodb::admin::{Error, Status, Switch, TableState};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

pub use store::Tables;
pub use wanted::{Wanted, WantedTable};

use crate::engine::{
    Act, Change, Class, Convergence, Deletion, Fence, Gone, Item, Ledger, Management, NotLeader, Notice, Reason,
    Record, Report, TableRecord,
};
use plan::{Plan, Standing, Step};

/// When tables that are in sync are looked at again.
const STEADY: Duration = Duration::from_mins(10);
/// When work that goes on is looked at again.
const SOON: Duration = Duration::from_secs(2);
/// When a TTL that was changed less than an hour ago is tried again.
const COOLING: Duration = Duration::from_mins(10);
/// Tables looked at, or changed, at a time.
const AT_ONCE: usize = 13;
/// Time between looks at tables that are being deleted, until they are gone or the budget is spent.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Reads of a whole look at one table.
const READS: u32 = 4;

/// Why a pass came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Another leads: stop.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The ledger can't be read or written: try again.
    #[error("the record of tables is not available: {0:#}")]
    Ledger(anyhow::Error),
}

/// One pass over the tables of a cluster.
pub struct Pass<'a> {
    /// Where they are.
    pub tables: &'a dyn Tables,
    /// What was done before.
    pub ledger: &'a dyn Ledger,
    /// Who leads.
    pub fence: &'a dyn Fence,
    /// What was tried in vain.
    pub convergence: &'a mut Convergence,
}

/// Where a table was left.
struct Left {
    changes: Vec<Change>,
    item: Item,
    /// The work that was done and is still to be done.
    vain: Option<String>,
    notices: Vec<Notice>,
}

/// Requests of a pass.
#[derive(Default)]
struct Count {
    reads: AtomicU32,
    writes: AtomicU32,
}

impl Pass<'_> {
    /// Looks at the tables and, unless it is only to plan, makes them what is asked for, within the budget.
    ///
    /// Costs four requests a table when nothing is to be done. Repeating it is safe at any time, and after a crash at
    /// any place.
    ///
    /// # Errors
    /// When another leads or the ledger is not available; all that concerns the store is in the report.
    pub async fn run(self, wanted: &Wanted, act: Act) -> Result<Report, Failure> {
        let until = Instant::now() + wanted.budget;
        let count = Count::default();
        let mut record = self.ledger.load().await.map_err(Failure::Ledger)?;
        let found = self.observe(wanted, &count).await;
        self.keep(wanted, act, &found, &mut record).await?;

        let ways = wanted.tables.iter().zip(found).map(|(table, found)| {
            let known = record.tables.get(&table.name);
            let way =
                Way { tables: self.tables, fence: self.fence, convergence: &*self.convergence, wanted, table, known };
            Box::pin(way.go(found, act, until, &count))
        });
        // As a list: the compiler can't see that a lazy one may move between threads.
        let ways: Vec<_> = ways.collect();
        let left: Vec<Left> = stream::iter(ways).buffered(AT_ONCE).try_collect().await?;

        let mut report = Report {
            items: Vec::new(),
            reason: Reason::TablesInSync,
            message: String::new(),
            changes: Vec::new(),
            notices: Vec::new(),
            next: STEADY,
            reads: count.reads.into_inner(),
            writes: count.writes.into_inner(),
        };
        for table in left {
            match table.vain {
                Some(work) => self.convergence.in_vain(&table.item.name, work),
                None if table.item.reason == Reason::NonConvergent => {}
                None => self.convergence.settled(&table.item.name),
            }
            report.items.push(table.item);
            report.changes.extend(table.changes);
            report.notices.extend(table.notices);
        }
        (report.reason, report.message) = Report::verdict(&report.items, Reason::TablesInSync, "tables");
        report.next = match report.class() {
            Class::InSync | Class::Stalled => STEADY,
            Class::Working if report.reason == Reason::CoolingDown => COOLING,
            Class::Working => SOON,
            Class::Retrying => 5 * SOON,
        };
        Ok(report)
    }

    /// Deletes the tables that are ours, if that is the policy, and waits for it within the budget.
    ///
    /// # Errors
    /// When another leads or the ledger is not available.
    pub async fn delete(self, wanted: &Wanted) -> Result<Gone, Failure> {
        if wanted.management == Management::External || wanted.deletion == Deletion::Retain {
            return Ok(Gone::Done(Vec::new()));
        }
        let until = Instant::now() + wanted.budget;
        let mut record = self.ledger.load().await.map_err(Failure::Ledger)?;
        let count = Count::default();
        let mut begun = BTreeSet::new();
        loop {
            let (mut notices, mut waiting, mut protected, mut refused) = (Vec::new(), Vec::new(), Vec::new(), None);
            for (table, found) in wanted.tables.iter().zip(self.observe(wanted, &count).await) {
                let name = &table.name;
                let state = match found {
                    Ok(Some(state)) => state,
                    Ok(None) => continue,
                    Err(error) => {
                        refused = Some(error);
                        continue;
                    }
                };
                if state.status == Status::Deleting || begun.contains(name) {
                    waiting.push(name.clone());
                    continue;
                }
                match plan::standing(wanted, name, &state, record.tables.get(name)) {
                    Standing::Ours => {}
                    Standing::Free | Standing::Foreign(_) => {
                        let message = format!("{name} carries no mark of this cluster and stays");
                        notices.push(Notice {
                            reason: "TableLeftAlone",
                            object: format!("table/{name}"),
                            message,
                            is_warning: true,
                        });
                        continue;
                    }
                }
                if state.deletion_protection == Switch::On {
                    protected.push(name.clone());
                    continue;
                }
                self.fence.check()?;
                match self.tables.delete(name).await {
                    Ok(()) => {
                        begun.insert(name.clone());
                        waiting.push(name.clone());
                    }
                    Err(Error::NotFound) => {}
                    Err(Error::InUse { .. } | Error::LimitExceeded { .. } | Error::Throttled { .. }) => {
                        waiting.push(name.clone());
                    }
                    Err(error) => refused = Some(error),
                }
            }
            if let Some(error) = refused {
                let (reason, message) = refusal(&error);
                return Ok(Gone::Blocked(reason, message));
            }
            if waiting.is_empty() {
                if !protected.is_empty() {
                    return Ok(Gone::Protected(format!(
                        "{} are protected: set tables.deletionProtection: false first, or tables.deletionPolicy: Retain",
                        protected.join(", ")
                    )));
                }
                if !record.tables.is_empty() {
                    record.tables.clear();
                    self.ledger.store(&record).await.map_err(Failure::Ledger)?;
                }
                return Ok(Gone::Done(notices));
            }
            if Instant::now() >= until {
                return Ok(Gone::Working(format!("{} are being deleted", waiting.join(", "))));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn observe(&self, wanted: &Wanted, count: &Count) -> Vec<Result<Option<TableState>, Error>> {
        let looks: Vec<_> = wanted.tables.iter().map(|table| look(self.tables, &table.name, count)).collect();
        stream::iter(looks).buffered(AT_ONCE).collect().await
    }

    /// Writes down which tables are about to be made: a store without tags can't say later whose they are.
    async fn keep(
        &self,
        wanted: &Wanted,
        act: Act,
        found: &[Result<Option<TableState>, Error>],
        record: &mut Record,
    ) -> Result<(), Failure> {
        if act == Act::Plan || wanted.management == Management::External {
            return Ok(());
        }
        let before = record.tables.len();
        let absent = wanted.tables.iter().zip(found).filter(|(_, found)| matches!(found, Ok(None)));
        record
            .tables
            .extend(absent.map(|(table, _)| (table.name.clone(), TableRecord { made_for: wanted.owner.uid.clone() })));
        if record.tables.len() != before {
            self.fence.check()?;
            self.ledger.store(record).await.map_err(Failure::Ledger)?;
        }
        Ok(())
    }
}

async fn look(tables: &dyn Tables, name: &str, count: &Count) -> Result<Option<TableState>, Error> {
    let found = tables.describe(name).await;
    let reads = if matches!(found, Ok(None)) { 1 } else { READS };
    count.reads.fetch_add(reads, Ordering::Relaxed);
    found
}

/// The way of one table to what is asked for.
struct Way<'a> {
    tables: &'a dyn Tables,
    fence: &'a dyn Fence,
    convergence: &'a Convergence,
    wanted: &'a Wanted,
    table: &'a WantedTable,
    known: Option<&'a TableRecord>,
}

impl Way<'_> {
    /// Step by step, until nothing is left to do, or nothing can be done, or the time is over.
    async fn go(
        self,
        mut found: Result<Option<TableState>, Error>,
        act: Act,
        until: Instant,
        count: &Count,
    ) -> Result<Left, NotLeader> {
        let mut left = Left { changes: Vec::new(), item: self.unknown(), vain: None, notices: Vec::new() };
        let mut taken: BTreeMap<String, u32> = BTreeMap::new();
        let mut refused: BTreeMap<String, Error> = BTreeMap::new();
        let mut wait = Duration::from_millis(50);
        loop {
            let mut plan = match found {
                Ok(state) => plan::plan(self.wanted, self.table, state.as_ref(), self.known),
                Err(error) => {
                    (left.item.reason, left.item.message) = refusal(&error);
                    return Ok(left);
                }
            };
            // What a new table still needs is a part of making it.
            if left.changes.iter().all(|change| change.field.is_some()) {
                let is_new = |change: &&Change| !left.changes.contains(change);
                let more: Vec<Change> = plan.changes.iter().filter(is_new).cloned().collect();
                left.changes.extend(more);
            }
            self.without_pointless(&mut plan);
            let is_over = act == Act::Plan || Instant::now() >= until;
            let mut is_taken = false;
            for step in plan.steps.iter().filter(|_| !is_over) {
                let word = format!("{step:?}");
                // What was taken once and is planned again is worth no third try in one pass.
                if refused.contains_key(&word) || taken.get(&word).is_some_and(|times| *times >= 2) {
                    continue;
                }
                self.fence.check()?;
                count.writes.fetch_add(1, Ordering::Relaxed);
                match self.tables.carry_out(&self.table.name, step).await {
                    Ok(()) => {
                        self.tell(step, &mut left.notices);
                        *taken.entry(word).or_default() += 1;
                        is_taken = true;
                        if step.is_exclusive() {
                            break;
                        }
                    }
                    Err(error) => drop(refused.insert(word, error)),
                }
            }
            let is_waiting =
                matches!(plan.item.reason, Reason::TableCreating | Reason::TableUpdating | Reason::IndexBackfilling);
            if is_over || !(is_taken || is_waiting) {
                left.vain = plan.steps.iter().map(|step| format!("{step:?}")).find(|word| taken.contains_key(word));
                left.item = plan.item;
                let open = plan.steps.iter().find_map(|step| refused.get(&format!("{step:?}")));
                if let Some(error) = open {
                    (left.item.reason, left.item.message) = refusal(error);
                }
                return Ok(left);
            }
            tokio::time::sleep(wait.min(until.saturating_duration_since(Instant::now()))).await;
            wait = (wait * 2).min(Duration::from_secs(2));
            found = look(self.tables, &self.table.name, count).await;
        }
    }

    fn without_pointless(&self, plan: &mut Plan) {
        let name = &self.table.name;
        let is_pointless = |step: &Step| self.convergence.is_pointless(name, &format!("{step:?}"));
        if plan.steps.iter().any(is_pointless) {
            plan.item.reason = Reason::NonConvergent;
            plan.item.message = format!("the store takes this and does not do it, time and again: {:?}", plan.steps);
            plan.steps.retain(|step| !is_pointless(step));
        }
    }

    fn tell(&self, step: &Step, notices: &mut Vec<Notice>) {
        let name = &self.table.name;
        let (reason, message) = match step {
            Step::Create(_) => ("TableCreated", format!("{name} is being made")),
            Step::Tag(..) => ("TableFound", format!("{name} is there already and is used")),
            Step::Protect(_) | Step::Bill(..) | Step::Index(..) | Step::Ttl(..) | Step::Recovery(_) => {
                ("TableChanged", format!("{name} was not as asked for and is corrected"))
            }
        };
        // What a new table still needs is a part of making it.
        if notices.iter().all(|notice| notice.reason != "TableCreated") {
            notices.push(Notice { reason, object: format!("table/{name}"), message, is_warning: false });
        }
    }

    fn unknown(&self) -> Item {
        Item {
            name: self.table.name.clone(),
            id: None,
            partitions: None,
            status: None,
            reason: Reason::DynamoDbUnreachable,
            message: String::new(),
        }
    }
}

/// What an error means for a condition, and what to do about it.
fn refusal(error: &Error) -> (Reason, String) {
    let (reason, advice) = match error {
        Error::Unreachable { .. } => (Reason::DynamoDbUnreachable, "check spec.dynamodb and the way to it"),
        Error::AuthenticationFailed { .. } => {
            (Reason::AuthenticationFailed, "check the operator's AWS role, or spec.dynamodb.credentialsSecretRef")
        }
        Error::AccessDenied { .. } => (Reason::AccessDenied, "allow the operator's AWS role to do it"),
        Error::Throttled { .. } | Error::LimitExceeded { .. } => (Reason::Throttled, "it is tried again"),
        Error::InUse { .. } => (Reason::TableUpdating, "it is tried again"),
        Error::CoolingDown { .. } => (Reason::CoolingDown, "it is tried again within the hour"),
        Error::NotFound => (Reason::DriftDetected, "it is looked at again"),
        Error::Refused { .. } | Error::Unsupported { .. } => {
            (Reason::ConfigRejected, "ask for something that this store can do")
        }
        Error::Failed { .. } => (Reason::DynamoDbUnreachable, "it is tried again"),
    };
    (reason, format!("{error}; {advice}"))
}
