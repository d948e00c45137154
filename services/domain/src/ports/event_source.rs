//! The log: records out, in order per partition, with offsets that move only when told.

use async_trait::async_trait;

use crate::{Error, Millis};

/// One partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Topic, by role, without the cluster's prefix.
    pub topic: &'static str,
    /// Number within the topic.
    pub number: i32,
}

/// One record of the log, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it lies.
    pub partition: Partition,
    /// Its place there.
    pub offset: i64,
    /// When it was produced.
    pub timestamp: Millis,
    /// Its key; empty when it has none.
    pub key: Vec<u8>,
    /// Its value; empty when it has none.
    pub value: Vec<u8>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The first header of that name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// What comes from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// These partitions are ours now, from their committed offsets on.
    Assigned(Vec<Partition>),
    /// Records of our partitions; in order within each.
    Records(Vec<Record>),
    /// These partitions go to another consumer with the next call of `next`: commit what is finished before.
    Revoked(Vec<Partition>),
}

/// Reads the log as one member of a consumer group.
#[async_trait]
pub trait EventSource: Send + Sync {
    /// The next occurrence, in order; waits for it. A dropped call loses nothing.
    ///
    /// # Errors
    /// Only when this member can never go on.
    async fn next(&self) -> Result<Occurrence, Error>;

    /// Sets, for each partition, the offset at which a next owner begins. Returns when the log has it.
    async fn commit(&self, next_offsets: &[(Partition, i64)]) -> Result<(), Error>;

    /// Fetches no more from these partitions, until they are resumed or go; a few records that were under way may still
    /// come.
    async fn pause(&self, partitions: &[Partition]) -> Result<(), Error>;

    /// Fetches again from these partitions.
    async fn resume(&self, partitions: &[Partition]) -> Result<(), Error>;

    /// Records of our partitions that are not committed, as far as the log has told; some seconds old. Of a partition from
    /// which nothing is fetched it is what it was before.
    fn lag(&self) -> Vec<(Partition, u64)>;

    /// Leaves the group, so that others take over at once; nothing comes after it.
    async fn leave(&self);
}
