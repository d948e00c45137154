//! Answers what a client has missed: heads of chats, and pages of one chat (D5.2, D5.6).

use std::{sync::Arc, time::Duration};

use domain::{
    Error, ErrorKind,
    ids::{ChatId, UserId},
    limits,
    message::{Sequence, StoredMessage},
    ports::{Heads, MessageHistory, heads::Standing},
};
use platform::broken;
use tokio::time::timeout;

/// Bytes that an item of a page takes beside its text.
const ITEM_BYTES: usize = 256;

/// Reads for members, from the store alone.
pub struct Sync {
    heads: Arc<dyn Heads>,
    history: Arc<dyn MessageHistory>,
    store_timeout: Duration,
}

/// A contiguous page of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The messages, ascending, without a hole but for what a restore took out of use.
    pub messages: Vec<StoredMessage>,
    /// Whether there was more above when the page was read.
    pub has_more: bool,
}

impl Sync {
    /// Makes it; `store_timeout` bounds one read.
    pub fn new(heads: Arc<dyn Heads>, history: Arc<dyn MessageHistory>, store_timeout: Duration) -> Self {
        Self { heads, history, store_timeout }
    }

    /// Up to `limit` messages above the cursor, at most 256 KB as JSON.
    ///
    /// # Errors
    /// `NotAMember`, `InvalidArgument` for a limit of 0 or above 500, `Unavailable`.
    pub async fn page(&self, chat: ChatId, user: UserId, after: Sequence, limit: u32) -> Result<Page, Error> {
        let (_, most) = limits::SYNC_PAGE;
        if limit == 0 || limit > most {
            return Err(Error::field("limit", "OUT_OF_RANGE", "a page has 1 to 500 messages"));
        }
        let head = self.head(chat, user).await?;
        if after >= head {
            return Ok(Page { messages: Vec::new(), has_more: false });
        }
        let after = if broken::is("resume_off_by_one") { after.next() } else { after };
        // A hole is watched for two seconds before it is passed over.
        let read = bounded(2 * self.store_timeout, self.history.after(chat, after, limit)).await?;
        let mut messages = read.messages;
        let fitting = fitting(&messages);
        let is_whole = fitting == messages.len();
        messages.truncate(fitting);
        // Behind the last message there may be a gap up to the head, and nothing more.
        let last = messages.last().map_or(head, |last| if is_whole { read.through } else { last.sequence });
        let has_more = last < head && !broken::is("lost_last_page");
        Ok(Page { messages, has_more })
    }

    /// The heads of these chats, by one read.
    ///
    /// # Errors
    /// `InvalidArgument` above 50 chats, `Unavailable`.
    pub async fn heads(&self, user: UserId, chats: &[ChatId]) -> Result<Vec<Standing>, Error> {
        if chats.len() > limits::HEADS_CHATS {
            return Err(Error::field("chat_ids", "TOO_MANY", "at most 50 chats"));
        }
        bounded(self.store_timeout, self.heads.heads(user, chats)).await
    }

    /// The head of one chat.
    ///
    /// # Errors
    /// `NotAMember`, `Unavailable`.
    pub async fn head(&self, chat: ChatId, user: UserId) -> Result<Sequence, Error> {
        let standing = self.heads(user, &[chat]).await?;
        standing
            .first()
            .and_then(|standing| standing.head)
            .ok_or_else(|| Error::new(ErrorKind::NotAMember, "not a member of this chat"))
    }
}

/// How many messages fit into a page as JSON; at least one.
fn fitting(messages: &[StoredMessage]) -> usize {
    let mut bytes = 0;
    let fit = messages.iter().take_while(|message| {
        let text = message.content.as_str();
        let escaped = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\t')).count();
        bytes += ITEM_BYTES + text.len() + escaped;
        bytes <= limits::SYNC_PAGE_BYTES
    });
    fit.count().max(1)
}

async fn bounded<T>(most: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(most, call).await {
        Ok(result) => result,
        Err(elapsed) => Err(Error::unavailable("the store does not answer", elapsed)),
    }
}
