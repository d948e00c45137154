//! The one place where messages become durable: batches of one chat, all or nothing.

use async_trait::async_trait;

use crate::{
    Error, Millis,
    ids::{ChatId, ClientMessageId, MessageId, UserId},
    message::{Sequence, StoredMessage},
    publisher::PublisherMark,
};

/// What a chat's counter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The sequence of the last message; 0 when there is none.
    pub sequence: Sequence,
    /// All up to here was on the log when the last batch was stored.
    pub published_through: Sequence,
    /// Who stored the last batch; `None` when there is none.
    pub publisher: Option<PublisherMark>,
}

/// Messages of one chat to be stored together (D3.2). At most `limits::BATCH_MESSAGES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Their chat.
    pub chat: ChatId,
    /// Names this request: the same batch under the same token is stored once. At most 36 characters.
    pub token: String,
    /// Where the counter must stand; the messages have the sequences after it, in order.
    pub after: Sequence,
    /// The messages, at least one, no two with the same sender and client id.
    pub messages: Vec<StoredMessage>,
    /// All up to here is on the log.
    pub published_through: Sequence,
    /// Who publishes the rest.
    pub publisher: PublisherMark,
    /// Now.
    pub at: Millis,
}

impl Batch {
    /// Each sender once, in the order of their first message.
    pub fn senders(&self) -> Vec<UserId> {
        let mut senders = Vec::new();
        for message in &self.messages {
            if !senders.contains(&message.sender) {
                senders.push(message.sender);
            }
        }
        senders
    }
}

/// What became of a batch.
#[derive(Debug)]
pub enum Commit {
    /// Stored.
    Committed,
    /// Not stored, for these reasons.
    Cancelled(Cancelled),
    /// Not stored: the store takes nothing at the moment, for it is asked too much (`ServerBusy`) or denies access
    /// (`Unavailable`).
    NotNow(Error),
    /// Not stored: the store finds the request itself invalid.
    Invalid(Error),
    /// Nobody knows. The same batch under the same token will tell.
    Unknown(Error),
}

/// What a cancelled batch says about one of its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Nothing: it may or may not hold.
    Nothing,
    /// It does not hold, and this is there instead.
    Failed(T),
    /// Another transaction was at the same item.
    Conflict,
    /// Its partition is asked too much at the moment.
    Throttled,
    /// The item itself is invalid.
    Invalid,
}

/// The reasons of a cancelled batch, position by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// The counter stands elsewhere; `None` when there is no counter.
    pub counter: Verdict<Option<Head>>,
    /// By message: its place is taken.
    pub places: Vec<Verdict<()>>,
    /// By message: its sender used the client id before.
    pub keys: Vec<Verdict<Original>>,
    /// By sender, as in [`Batch::senders`]: not a member.
    pub members: Vec<Verdict<()>>,
}

/// What was stored under a client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// The message's id.
    pub id: MessageId,
    /// Its place.
    pub sequence: Sequence,
    /// When it was stored.
    pub created_at: Millis,
}

/// Counters and the transaction that moves them: only ingest writes here (D3.7).
#[async_trait]
pub trait MessageLog: Send + Sync {
    /// The chat's counter, by a strong read; `None` when there is none.
    async fn head(&self, chat: ChatId) -> Result<Option<Head>, Error>;

    /// Stores the batch, or nothing of it, in one round trip.
    async fn commit(&self, batch: &Batch) -> Commit;

    /// What the sender stored under the client id, by a strong read.
    async fn original(
        &self,
        chat: ChatId,
        sender: UserId,
        client_id: ClientMessageId,
    ) -> Result<Option<Original>, Error>;

    /// Chats that carry the mark, by an index that may lag a moment.
    async fn marked(&self, mark: PublisherMark) -> Result<Vec<ChatId>, Error>;
}
