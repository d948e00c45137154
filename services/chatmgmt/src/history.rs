//! The history of a chat, for its members (rest-api §6.4).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    Error,
    ids::{ChatId, UserId},
    message::{Sequence, StoredMessage, TEXT},
    ports::MessageHistory,
};
use proto::messaging::v1 as wire;
use serde::{Deserialize, Serialize};

use crate::chats::{self, Parts};

/// Messages of a page: default and maximum.
const PAGE: (u32, u32) = (50, 100);
/// Of the cursor's form.
const VERSION: u8 = 1;

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    /// Newest first.
    Backward,
    /// Oldest first.
    Forward,
}

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    v: u8,
    /// The first sequence of the next page.
    seq: u64,
    direction: Direction,
    /// The filters of the first page, which hold for all.
    after: u64,
    before: Option<u64>,
}

/// What a page is cut from: the open interval, which end is first, and where to begin.
#[derive(Clone, Copy, Debug)]
struct Range {
    direction: Direction,
    after: u64,
    before: Option<u64>,
    /// Inclusive.
    from: Option<u64>,
}

/// A page of the chat's messages.
///
/// # Errors
/// `NotAMember` for all but members, `InvalidArgument` for a page that can't be.
pub(crate) async fn list(
    parts: &Parts,
    caller: UserId,
    request: &wire::ListMessagesRequest,
) -> Result<wire::ListMessagesResponse, Error> {
    let chat = chats::chat_id(&request.chat_id)?;
    let limit = chats::page_limit(request.limit, PAGE)?;
    let range = range(request)?;
    parts.member(chat, caller).await?;
    let (page, next) = read(parts.history.as_ref(), chat, range, limit).await?;

    let mut senders: Vec<UserId> = page.iter().map(|message| message.sender).collect();
    senders.sort_unstable();
    senders.dedup();
    let names = if senders.is_empty() { chats::Names::new() } else { parts.names(&senders).await? };
    let item = |message: StoredMessage| wire::HistoryItem {
        message_id: message.id.to_string(),
        chat_id: chat.to_string(),
        sequence: message.sequence.0,
        sender_id: message.sender.to_string(),
        sender: Some(wire::OtherMember {
            user_id: message.sender.to_string(),
            display_name: chats::name(&names, message.sender),
        }),
        content: message.content.as_str().to_owned(),
        content_type: TEXT.to_owned(),
        created_at: Some(chats::time(message.created_at)),
        client_message_id: (message.sender == caller).then(|| message.client_id.to_string()),
    };
    Ok(wire::ListMessagesResponse {
        data: page.into_iter().map(item).collect(),
        pagination: Some(wire::Pagination {
            has_more: next.is_some(),
            next_cursor: next.map(|seq| encode(seq, range)),
            prev_cursor: None,
        }),
    })
}

fn range(request: &wire::ListMessagesRequest) -> Result<Range, Error> {
    let asked = match request.direction.as_deref() {
        None | Some("") => None,
        Some("backward") => Some(Direction::Backward),
        Some("forward") => Some(Direction::Forward),
        Some(_) => return Err(Error::field("direction", "INVALID", "a direction is `backward` or `forward`")),
    };
    let (after, before) = (request.after_sequence, request.before_sequence);
    let Some(cursor) = request.cursor.as_deref().filter(|cursor| !cursor.is_empty()) else {
        let direction = asked.unwrap_or(Direction::Backward);
        return Ok(Range { direction, after: after.unwrap_or(0), before, from: None });
    };
    if after.is_some() || before.is_some() {
        return Err(Error::field("cursor", "INVALID", "a cursor carries its own bounds: no other goes with it"));
    }
    let cursor = decode(cursor)?;
    if asked.is_some_and(|asked| asked != cursor.direction) {
        return Err(Error::field("cursor", "INVALID", "the cursor is of the other direction"));
    }
    Ok(Range { direction: cursor.direction, after: cursor.after, before: cursor.before, from: Some(cursor.seq) })
}

/// Up to `limit` messages, and the first sequence of the next page if there is one.
async fn read(
    history: &dyn MessageHistory,
    chat: ChatId,
    range: Range,
    limit: u32,
) -> Result<(Vec<StoredMessage>, Option<u64>), Error> {
    // One more than asked for tells whether there is more.
    let fetched = fetch(history, chat, range, limit + 1).await?;
    let is_inside = |message: &StoredMessage| {
        message.sequence.0 > range.after && range.before.is_none_or(|before| message.sequence.0 < before)
    };
    let had = fetched.len();
    let mut page: Vec<StoredMessage> = fetched.into_iter().filter(is_inside).collect();
    let is_cut = page.len() < had;
    let has_more = page.len() > limit as usize;
    page.truncate(limit as usize);
    let Some(last) = page.last().map(|message| message.sequence.0) else { return Ok((page, None)) };
    let next = match range.direction {
        Direction::Forward => last + 1,
        Direction::Backward => last - 1,
    };
    let may_go_on = !is_cut && next > range.after && range.before.is_none_or(|before| next < before);
    // A page is also shorter when it would be too large: then only the next read tells.
    let has_more = has_more
        || may_go_on && {
            let probe = fetch(history, chat, Range { from: Some(next), ..range }, 1).await?;
            probe.first().is_some_and(is_inside)
        };
    Ok((page, has_more.then_some(next)))
}

async fn fetch(
    history: &dyn MessageHistory,
    chat: ChatId,
    range: Range,
    limit: u32,
) -> Result<Vec<StoredMessage>, Error> {
    match range.direction {
        Direction::Forward => {
            let after = range.from.map_or(range.after, |from| from.saturating_sub(1).max(range.after));
            history.after(chat, Sequence(after), limit).await.map(|page| page.messages)
        }
        Direction::Backward => {
            let from = range.from.map(|from| from.saturating_add(1));
            let before = match (from, range.before) {
                (Some(from), Some(before)) => Some(from.min(before)),
                (from, before) => from.or(before),
            };
            history.before(chat, before.map(Sequence), limit).await
        }
    }
}

fn encode(seq: u64, range: Range) -> String {
    let cursor = Cursor { v: VERSION, seq, direction: range.direction, after: range.after, before: range.before };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

fn decode(cursor: &str) -> Result<Cursor, Error> {
    let refuse = || Error::field("cursor", "INVALID", "not a cursor of this list");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refuse())?;
    let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|_| refuse())?;
    if cursor.v == VERSION { Ok(cursor) } else { Err(refuse()) }
}
