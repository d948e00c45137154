//! Stored messages of a chat, in order.

use async_trait::async_trait;

use crate::{
    Error,
    ids::ChatId,
    message::{Sequence, StoredMessage},
};

/// What follows a place of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The messages, ascending.
    pub messages: Vec<StoredMessage>,
    /// Up to here there is nothing but these: the place of the last, or of the gap behind it.
    pub through: Sequence,
    /// Places up to there that a restore took out of use (D3.9).
    pub gap: u64,
}

/// Stored messages of a chat, by strong reads. Pages are contiguous: one never jumps over a sequence
/// that exists (D3.8).
#[async_trait]
pub trait MessageHistory: Send + Sync {
    /// Up to `limit` messages above `after`, ascending, the first of them `after + 1` unless a restore took that out of
    /// use. Shorter than `limit` also when a page would be too large; empty means there is none.
    async fn after(&self, chat: ChatId, after: Sequence, limit: u32) -> Result<Page, Error>;

    /// Up to `limit` messages below `before`, descending; `None` begins at the newest.
    async fn before(&self, chat: ChatId, before: Option<Sequence>, limit: u32) -> Result<Vec<StoredMessage>, Error>;
}
