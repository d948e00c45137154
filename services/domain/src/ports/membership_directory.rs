//! Who is in a chat, from the store.

use async_trait::async_trait;

use crate::{
    Error,
    ids::{ChatId, UserId},
    membership::Membership,
};

/// Who is in a chat, by strong reads of the store: the only authority (data-model §7).
#[async_trait]
pub trait MembershipDirectory: Send + Sync {
    /// The user's place in the chat; `None` also when there is no such chat.
    async fn membership(&self, chat: ChatId, user: UserId) -> Result<Option<Membership>, Error>;

    /// Everybody in the chat; empty also when there is no such chat.
    async fn members(&self, chat: ChatId) -> Result<Vec<Membership>, Error>;

    /// The chats of a user, by an index that may lag a moment.
    async fn chats_of(&self, user: UserId) -> Result<Vec<Membership>, Error>;
}
