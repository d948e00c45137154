//! Chats and who joins and leaves them. chatmgmt alone writes them.

use async_trait::async_trait;

use crate::{
    Error, Millis,
    chat::{Chat, ChatName},
    ids::{ChatId, EventId, UserId},
    membership::{Membership, Role},
};

/// Who changes something and when, and the event that tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Who.
    pub by: UserId,
    /// When.
    pub at: Millis,
    /// The id of the event.
    pub event: EventId,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// Whether a direct chat was made or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectChat {
    /// It is new.
    Created(Chat),
    /// The two had it already.
    Existing(Chat),
}

/// Chats and their members. Each change is one transaction that also writes its event to the outbox
/// (D4.6), so an event follows its change and is never lost. Changes of one chat have one order.
#[async_trait]
pub trait Chats: Send + Sync {
    /// Makes the one direct chat of `cause.by` and another, or finds that they have one, whoever asks first.
    async fn create_direct(&self, id: ChatId, other: UserId, cause: &Cause) -> Result<DirectChat, Error>;

    /// Makes a group with its owner, `cause.by`. The invited are not members yet: the outbox holds them,
    /// and whoever calls `Outbox::complete` adds them. The answer has the count with them.
    async fn create_group(&self, id: ChatId, name: &ChatName, invited: &[UserId], cause: &Cause)
    -> Result<Chat, Error>;

    /// A chat's description, by a strong read.
    async fn chat(&self, id: ChatId) -> Result<Option<Chat>, Error>;

    /// Adds one member to a group of fewer than `max_members`.
    ///
    /// # Errors
    /// `AlreadyAMember`; `ChatFull`; `InvalidOperation` when it is not a group.
    async fn add_member(
        &self,
        chat: ChatId,
        user: UserId,
        role: Role,
        max_members: u32,
        cause: &Cause,
    ) -> Result<Membership, Error>;

    /// Takes that member, who must still have that role, out of a group.
    ///
    /// # Errors
    /// `NotFound` when not a member any more; `Conflict` when the role is another one by now;
    /// `InvalidOperation` for the owner, and when it is not a group.
    async fn remove_member(&self, member: &Membership, cause: &Cause) -> Result<(), Error>;
}
