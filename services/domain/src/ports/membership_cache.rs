//! Who is in a chat, from memory that all consumers share. It never authorises anything.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Error,
    ids::{ChatId, UserId},
};

/// Raised by each invalidation of a chat: a fill that began before one is discarded (D5.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// What the cache knows of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// These are its members.
    Members(Vec<UserId>),
    /// Nothing: ask the store, and fill with this generation.
    Nothing(Generation),
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Everybody sees it.
    Taken,
    /// The chat was invalidated meanwhile: what the store said may be old.
    Stale,
}

/// Remembers the members of chats.
#[async_trait]
pub trait MembershipCache: Send + Sync {
    /// What is known of each chat, in the order of `chats`. One round trip.
    async fn members(&self, chats: &[ChatId]) -> Result<Vec<Cached>, Error>;

    /// Remembers the members of a chat for `ttl`, all at once, unless the chat was invalidated since
    /// `generation` was read. Nobody in it: nothing is remembered.
    async fn fill(
        &self,
        chat: ChatId,
        generation: Generation,
        members: &[UserId],
        ttl: Duration,
    ) -> Result<Fill, Error>;

    /// Forgets the chats, and every fill that has begun. No fill takes longer than `ttl`.
    async fn invalidate(&self, chats: &[ChatId], ttl: Duration) -> Result<(), Error>;
}
