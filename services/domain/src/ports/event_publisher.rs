//! The log: records in, confirmations out.

use std::{future::Future, pin::Pin};

/// One record for the log, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Topic, by role; the adapter adds the cluster's prefix.
    pub topic: &'static str,
    /// Record key, which decides the partition: the chat id.
    pub key: String,
    /// Record value.
    pub value: Vec<u8>,
    /// Record headers.
    pub headers: Vec<(&'static str, String)>,
}

/// Why a record is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailure {
    /// The producer's own queue is full: nothing was taken, come back later.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The record was not written; the producer goes on.
    #[error("the broker refused the record")]
    Refused,
    /// The producer has ended and was replaced: every unconfirmed record must be published again.
    #[error("the producer failed for good")]
    Fatal,
}

/// Resolves when the brokers have confirmed the record, however long that takes.
pub type Confirmation = Pin<Box<dyn Future<Output = Result<(), PublishFailure>> + Send>>;

/// Writes records to the log: idempotent, acknowledged by all in-sync replicas, no time limit (D4.2).
///
/// Records of one key that were taken in an order are written in that order.
pub trait EventPublisher: Send + Sync {
    /// Takes the record; the answer comes later.
    ///
    /// # Errors
    /// `QueueFull` when it can't be taken now, `Fatal` while the producer is being replaced.
    fn publish(&self, record: Publication) -> Result<Confirmation, PublishFailure>;

    /// Whether there is a connection to the log, some seconds ago.
    fn is_connected(&self) -> bool;
}
