//! What the topic engine and the table engine have in common: whose things they are, what may be done, what is reported.

use std::{collections::BTreeMap, fmt, time::Duration};

pub use crds::backends::{AdoptionPolicy as Adoption, DeletionPolicy as Deletion, Management};
use crds::conditions;

pub use crate::lease::NotLeader;

/// The cluster that topics and tables belong to. Namespace and name decide; the uid is that of its present life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Namespace of the `MessagingCluster`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a pass may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Carry out what it plans.
    Apply,
    /// Only plan.
    Plan,
}

/// Asked before every change to a backing system, none of which knows who leads.
pub trait Fence: Send + Sync {
    /// Whether this process still leads.
    ///
    /// # Errors
    /// When it does not, or can't be sure.
    fn check(&self) -> Result<(), NotLeader>;
}

impl<F: Fn() -> Result<(), NotLeader> + Send + Sync> Fence for F {
    fn check(&self) -> Result<(), NotLeader> {
        self()
    }
}

/// Why something is, or is not, as asked for; the names are those of conditions' reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Topics are as asked for.
    TopicsInSync,
    /// Tables are as asked for.
    TablesInSync,
    /// A difference is known and not corrected yet.
    DriftDetected,
    /// A table is being made.
    TableCreating,
    /// A table is being changed.
    TableUpdating,
    /// An index is being filled.
    IndexBackfilling,
    /// A table's TTL can be changed again only later.
    CoolingDown,
    /// Partitions are on the move.
    ReassignmentInProgress,
    /// The store asks for fewer calls.
    Throttled,
    /// Kafka does not answer, or fails.
    KafkaUnreachable,
    /// DynamoDB does not answer, or fails.
    DynamoDbUnreachable,
    /// Credentials are not taken.
    AuthenticationFailed,
    /// Credentials are good, but not for this topic.
    AuthorizationFailed,
    /// Credentials are good, but not for this table.
    AccessDenied,
    /// A topic has more partitions than asked for.
    PartitionDecreaseRefused,
    /// A setting is not taken.
    ConfigRejected,
    /// A table's keys are others than ours.
    ImmutableFieldChanged,
    /// A topic is somebody else's.
    ResourceConflict,
    /// A table is somebody else's.
    NotOwned,
    /// The same change was made again and again and nothing came of it.
    NonConvergent,
}

/// Who has to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nobody.
    InSync,
    /// The operator and the backing system, and they do.
    Working,
    /// The backing system has to come back, or to let us in.
    Retrying,
    /// A person: nothing goes on until the spec or the backing system is changed.
    Stalled,
}

impl Reason {
    /// The same as the reason of a condition.
    pub fn of_condition(self) -> conditions::Reason {
        use conditions::Reason as R;
        match self {
            Self::TopicsInSync => R::TopicsInSync,
            Self::TablesInSync => R::TablesInSync,
            Self::DriftDetected => R::DriftDetected,
            Self::TableCreating => R::TableCreating,
            Self::TableUpdating => R::TableUpdating,
            Self::IndexBackfilling => R::IndexBackfilling,
            Self::CoolingDown => R::CoolingDown,
            Self::ReassignmentInProgress => R::ReassignmentInProgress,
            Self::Throttled => R::Throttled,
            Self::KafkaUnreachable => R::KafkaUnreachable,
            Self::DynamoDbUnreachable => R::DynamoDbUnreachable,
            Self::AuthenticationFailed => R::AuthenticationFailed,
            Self::AuthorizationFailed => R::AuthorizationFailed,
            Self::AccessDenied => R::AccessDenied,
            Self::PartitionDecreaseRefused => R::PartitionDecreaseRefused,
            Self::ConfigRejected => R::ConfigRejected,
            Self::ImmutableFieldChanged => R::ImmutableFieldChanged,
            Self::ResourceConflict => R::ResourceConflict,
            Self::NotOwned => R::NotOwned,
            Self::NonConvergent => R::NonConvergent,
        }
    }

    /// The word in conditions.
    pub fn as_str(self) -> &'static str {
        self.of_condition().as_str()
    }

    /// Who has to move.
    pub fn class(self) -> Class {
        match self {
            Self::TopicsInSync | Self::TablesInSync => Class::InSync,
            Self::DriftDetected
            | Self::TableCreating
            | Self::TableUpdating
            | Self::IndexBackfilling
            | Self::CoolingDown
            | Self::ReassignmentInProgress => Class::Working,
            Self::Throttled
            | Self::KafkaUnreachable
            | Self::DynamoDbUnreachable
            | Self::AuthenticationFailed
            | Self::AuthorizationFailed
            | Self::AccessDenied => Class::Retrying,
            Self::PartitionDecreaseRefused
            | Self::ConfigRejected
            | Self::ImmutableFieldChanged
            | Self::ResourceConflict
            | Self::NotOwned
            | Self::NonConvergent => Class::Stalled,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One topic or table, as a pass left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its whole name.
    pub name: String,
    /// The topic's id, or the table's name in AWS.
    pub id: Option<String>,
    /// The topic's partitions.
    pub partitions: Option<u32>,
    /// The table's state, in the store's word.
    pub status: Option<String>,
    /// Why it is, or is not, as asked for.
    pub reason: Reason,
    /// What to do, or what is being done; empty when all is well.
    pub message: String,
}

impl Item {
    /// Whether it is as asked for.
    pub fn is_synced(&self) -> bool {
        self.reason.class() == Class::InSync
    }
}

/// A change that was planned: of a field, or of the whole object when there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// What changes, as `topic/<name>` or `table/<name>`.
    pub object: String,
    /// The field that changes.
    pub field: Option<String>,
    /// What it is.
    pub from: Option<String>,
    /// What it becomes.
    pub to: Option<String>,
    /// Whether data moves or goes, or something can't be undone.
    pub disruptive: bool,
    /// Why, in a sentence.
    pub why: String,
}

/// Something that people should know once, hence an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// One word.
    pub reason: &'static str,
    /// What it is about, as in [`Change::object`].
    pub object: String,
    /// What happened.
    pub message: String,
    /// Whether somebody should look.
    pub is_warning: bool,
}

/// What a pass found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Each topic or table, in the order asked for.
    pub items: Vec<Item>,
    /// The reason of the condition: that of the item which needs most to be done.
    pub reason: Reason,
    /// Its message.
    pub message: String,
    /// What was planned, in the order in which it was known.
    pub changes: Vec<Change>,
    /// What people should know.
    pub notices: Vec<Notice>,
    /// When to look again, at the latest.
    pub next: Duration,
    /// Requests that only read.
    pub reads: u32,
    /// Requests that change something.
    pub writes: u32,
}

impl Report {
    /// Topics or tables in sync.
    pub fn synced(&self) -> usize {
        self.items.iter().filter(|item| item.is_synced()).count()
    }

    /// Who has to move.
    pub fn class(&self) -> Class {
        self.reason.class()
    }

    /// The condition of these items: `good` when each is in sync, else the reason of the worst.
    pub(crate) fn verdict(items: &[Item], good: Reason, kind: &str) -> (Reason, String) {
        let open: Vec<&Item> = items.iter().filter(|item| !item.is_synced()).collect();
        let Some(worst) = open.iter().max_by_key(|item| (item.reason.class(), item.reason)) else {
            return (good, format!("all {} {kind} are as asked for", items.len()));
        };
        let message = format!("{}: {}", worst.name, worst.message);
        if open.len() > 1 {
            return (worst.reason, format!("{message} (and {} more of {} {kind})", open.len() - 1, items.len()));
        }
        (worst.reason, message)
    }
}

/// What a pass of deletion came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Nothing of ours is left that was to be deleted. With what was left alone, and why.
    Done(Vec<Notice>),
    /// It goes on; look again.
    Working(String),
    /// The store refuses until its deletion protection is taken away.
    Protected(String),
    /// Something else keeps it from being deleted.
    Blocked(Reason, String),
}

/// What was made or set by us at the backing systems, where they can't say so themselves. It outlives the cluster's
/// status, and the cluster itself where data are retained; losing it loses no data.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Topics, by whole name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub topics: BTreeMap<String, TopicRecord>,
    /// Tables of stores without tags, by whole name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, TableRecord>,
}

/// What we know of a topic of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicRecord {
    /// Brokers' id of it; absent until it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The settings we set, and their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, String>,
}

/// What we know of a table of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableRecord {
    /// The uid of the cluster for which it was made.
    #[serde(default)]
    pub made_for: String,
}

/// Where the record is kept: a `ConfigMap` of the cluster's namespace, without an owner reference while data are retained.
#[async_trait::async_trait]
pub trait Ledger: Send + Sync {
    /// Reads it; an absent one is empty.
    ///
    /// # Errors
    /// When it can't be read. Nothing is changed without it.
    async fn load(&self) -> anyhow::Result<Record>;

    /// Writes it. Repeating it is safe.
    ///
    /// # Errors
    /// When it can't be written. What it was to say is then not done.
    async fn store(&self, record: &Record) -> anyhow::Result<()>;
}

/// How often the same changes were made in vain; kept by the caller from pass to pass, per cluster and engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Convergence {
    vain: BTreeMap<String, (String, u32)>,
}

impl Convergence {
    /// After so many times it is enough.
    const ENOUGH: u32 = 3;

    /// A change of an object was made, and afterwards the same change was still to be made.
    pub(crate) fn in_vain(&mut self, object: &str, change: String) {
        let times = match self.vain.get(object) {
            Some((last, times)) if *last == change => times + 1,
            _ => 1,
        };
        self.vain.insert(object.to_owned(), (change, times));
    }

    /// The object needs another change, or none.
    pub(crate) fn settled(&mut self, object: &str) {
        self.vain.remove(object);
    }

    /// Whether there is no point in making this change once more. Another change is worth a try.
    pub(crate) fn is_pointless(&self, object: &str, change: &str) -> bool {
        self.vain.get(object).is_some_and(|(last, times)| last == change && *times >= Self::ENOUGH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_vain_try_is_the_last_and_another_change_is_worth_one() {
        let mut convergence = Convergence::default();
        for _ in 0..2 {
            convergence.in_vain("topic/a", "x".to_owned());
            assert!(!convergence.is_pointless("topic/a", "x"));
        }
        convergence.in_vain("topic/a", "x".to_owned());
        assert!(convergence.is_pointless("topic/a", "x"));
        assert!(!convergence.is_pointless("topic/a", "y") && !convergence.is_pointless("topic/b", "x"));
        convergence.settled("topic/a");
        assert!(!convergence.is_pointless("topic/a", "x"));
    }

    #[test]
    fn a_record_survives_being_written_and_read() {
        let topic = TopicRecord { id: Some("abc".to_owned()), configs: BTreeMap::from([("k".into(), "v".into())]) };
        let record = Record {
            topics: BTreeMap::from([("t".to_owned(), topic)]),
            tables: BTreeMap::from([("u".to_owned(), TableRecord { made_for: "uid".to_owned() })]),
        };
        let text = serde_json::to_string(&record).expect("JSON");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("JSON"), record);
        assert_eq!(serde_json::from_str::<Record>("{}").expect("JSON"), Record::default());
    }
}
