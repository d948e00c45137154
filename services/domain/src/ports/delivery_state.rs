//! How far each user has received and read each chat.

use async_trait::async_trait;

use crate::{
    Error, Millis,
    ids::{ChatId, UserId},
    message::Sequence,
};

/// Which of a user's two marks in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watermark {
    /// An application of the user has stored everything up to here.
    Acked,
    /// The user has seen everything up to here.
    Read,
}

/// How far each user has received and read each chat. Marks only rise; ingest alone writes them (D5.8).
#[async_trait]
pub trait DeliveryState: Send + Sync {
    /// Raises the mark to `to` unless it is there already. Returns what is stored now.
    async fn advance(
        &self,
        user: UserId,
        chat: ChatId,
        mark: Watermark,
        to: Sequence,
        at: Millis,
    ) -> Result<Sequence, Error>;
}
