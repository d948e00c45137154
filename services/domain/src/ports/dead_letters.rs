//! Records that nobody could read, kept for people.

use async_trait::async_trait;

use crate::{Error, Millis, ports::event_source::Record};

/// A record, and why it was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record as it came.
    pub record: Record,
    /// Why, without content.
    pub reason: String,
    /// When it was given up.
    pub failed_at: Millis,
    /// How often it was tried.
    pub attempts: u32,
}

/// Keeps records that nobody could read (D4.7).
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Keeps the record; returns when it is safe. Until then its offset must not move.
    async fn keep(&self, letter: DeadLetter) -> Result<(), Error>;
}
