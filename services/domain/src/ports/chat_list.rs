//! Chats with what a list shows of them.

use async_trait::async_trait;

use crate::{
    Error, Millis,
    chat::Chat,
    ids::{ChatId, MessageId, UserId},
    message::Sequence,
};

/// The newest message, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastMessage {
    /// Its id.
    pub id: MessageId,
    /// Who sent it.
    pub sender: UserId,
    /// When it was stored.
    pub created_at: Millis,
    /// Its first 100 characters.
    pub preview: String,
}

/// A chat as one of its members sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedChat {
    /// Its description.
    pub chat: Chat,
    /// The other one of a direct chat.
    pub other: Option<UserId>,
    /// Its highest sequence.
    pub head: Sequence,
    /// The message there; `None` in an empty chat.
    pub last: Option<LastMessage>,
    /// What the member's clients have acknowledged; `None` before the first time.
    pub acked: Option<Sequence>,
}

impl ListedChat {
    /// What the list is ordered by: the last change of the chat or the last message, whichever is later.
    pub fn updated_at(&self) -> Millis {
        self.last.as_ref().map_or(self.chat.updated_at, |last| last.created_at.max(self.chat.updated_at))
    }

    /// How many messages no client of the member has acknowledged.
    pub fn pending_ack_count(&self) -> u64 {
        self.head.0.saturating_sub(self.acked.unwrap_or_default().0)
    }
}

/// Descriptions, heads, last messages and watermarks together, by batch reads. Says nothing about who
/// is a member.
#[async_trait]
pub trait ChatList: Send + Sync {
    /// Those of the chats that exist, in no order, as that member sees them; may lag a moment.
    async fn chats(&self, member: UserId, chats: &[ChatId]) -> Result<Vec<ListedChat>, Error>;

    /// One chat, by strong reads; `None` when there is no such chat.
    async fn chat(&self, member: UserId, chat: ChatId) -> Result<Option<ListedChat>, Error>;

    /// The direct chat of two, by strong reads; `None` when they have none.
    async fn direct(&self, one: UserId, other: UserId) -> Result<Option<Chat>, Error>;
}
