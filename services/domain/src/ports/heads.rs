//! Where chats stand, for one user.

use async_trait::async_trait;

use crate::{
    Error,
    ids::{ChatId, UserId},
    message::Sequence,
};

/// One chat as one user may know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which chat.
    pub chat: ChatId,
    /// The sequence of its last message; `None` for who is not in it, and for a chat that does not exist.
    pub head: Option<Sequence>,
}

/// Where chats stand, for one user.
#[async_trait]
pub trait Heads: Send + Sync {
    /// The heads of up to `limits::HEADS_CHATS` chats, in the order of the first mention of each, by one
    /// strong read of counters and memberships (D5.2).
    async fn heads(&self, user: UserId, chats: &[ChatId]) -> Result<Vec<Standing>, Error>;
}
