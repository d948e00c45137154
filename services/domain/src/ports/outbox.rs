//! Events that are committed and not on the log yet (D4.6).

use async_trait::async_trait;

use crate::{
    Error, Millis,
    event::Event,
    ids::{ChatId, UserId},
};

/// How many shards the outbox has. Part of the stored form: with another number, events of one chat
/// could lie in two shards.
pub const SHARDS: u16 = 8;

/// One part of the outbox. All events of a chat are in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

impl Shard {
    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// The shard of a chat.
    pub fn of(chat: ChatId) -> Self {
        // The low bits of a ULID are random.
        Self(u16::try_from(chat.0.0 % u128::from(SHARDS)).unwrap_or_default())
    }
}

/// An event in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How many events its chat had before it: their order.
    pub place: u64,
    /// The event.
    pub event: Event,
    /// Of the creation of a group: who is not a member yet. The event is published when nobody is left.
    pub pending: Vec<UserId>,
}

/// Events that are committed and not on the log yet, in the order of their chat. One process at a
/// time publishes a shard.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Takes the shard until then, or keeps it. `false` when another holder has it.
    async fn lease(&self, shard: Shard, holder: &str, now: Millis, until: Millis) -> Result<bool, Error>;

    /// Gives the shard back; harmless when it is another's by now.
    async fn release(&self, shard: Shard, holder: &str) -> Result<(), Error>;

    /// Up to `limit` entries behind `after`, by a strong read: chat by chat, each chat's in order.
    async fn entries(&self, shard: Shard, after: Option<&Entry>, limit: u16) -> Result<Vec<Entry>, Error>;

    /// Makes the next pending users of a new group its members, and takes them off the list. Any
    /// process may do it, several at once too. Returns whether nobody is left.
    async fn complete(&self, group: ChatId) -> Result<bool, Error>;

    /// Forgets an entry, after the broker has confirmed its event; repeating it is harmless.
    async fn delete(&self, entry: &Entry) -> Result<(), Error>;
}
