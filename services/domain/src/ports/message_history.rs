//! Stored messages of a chat, in order.

use async_trait::async_trait;

use crate::{
    Error,
    ids::ChatId,
    message::{Sequence, StoredMessage},
};

/// Stored messages of a chat, by strong reads. Pages are contiguous: one never jumps over a sequence
/// that exists (D3.8).
#[async_trait]
pub trait MessageHistory: Send + Sync {
    /// Up to `limit` messages above `after`, ascending, the first of them `after + 1`. Shorter than
    /// `limit` also when a page would be too large; empty means there is none.
    async fn after(&self, chat: ChatId, after: Sequence, limit: u32) -> Result<Vec<StoredMessage>, Error>;

    /// Up to `limit` messages below `before`, descending; `None` begins at the newest.
    async fn before(&self, chat: ChatId, before: Option<Sequence>, limit: u32) -> Result<Vec<StoredMessage>, Error>;
}
