//! Answers to those who catch up: pages of a chat, and heads of chats (D5.2, D5.6).

use domain::Error;
use proto::messaging::v1::{
    HeadsRequest, ServerFrame, SyncHeadsResponse, SyncItem, SyncMessagesRequest, SyncMessagesResponse, SyncResponse,
    server_frame::Payload,
};

use crate::{
    Gateway,
    connections::{Asked, Link},
    metrics,
    outbound::Encoding,
    receive::{Cursor, PageRequest},
};

/// Bytes of a sync item besides its text, in either encoding.
const ITEM_BYTES: usize = 300;
/// Bytes of a page besides its items.
const PAGE_BYTES: usize = 300;

/// Sends a page, and waits until the socket has taken it.
pub async fn page(gateway: &Gateway, link: &Link, page: PageRequest) {
    let user_id = link.record.user.to_string();
    let request = SyncMessagesRequest {
        chat_id: page.chat.to_string(),
        user_id: user_id.clone(),
        after_sequence: page.after.0,
        limit: page.limit,
    };
    match gateway.ingest.sync(page.chat, request).await {
        Ok(found) => {
            let response = cut(found, &page, &user_id, (link.encoding, gateway.limits.outbound_page_bytes));
            let payload = Payload::SyncResponse(response);
            gateway.metrics.sent(&payload);
            let frame =
                ServerFrame { request_id: page.request_id, timestamp: gateway.clock.now().0, payload: Some(payload) };
            link.line.outbound.page(link.encoding.encode(&frame)).await;
        }
        Err(error) => {
            let (kind, chat) = (metrics::Received::SyncRequest, Some(page.chat));
            link.refuse(gateway, Asked { kind, request_id: &page.request_id, chat }, &error);
        }
    }
}

/// Keeps a page below its limit of bytes, and others' ids of their messages out of it (D2.10).
fn cut(
    mut found: SyncMessagesResponse,
    page: &PageRequest,
    user: &str,
    (encoding, bytes): (Encoding, usize),
) -> SyncResponse {
    let mut total = PAGE_BYTES;
    let fits = found.messages.iter().take_while(|item| {
        total += length(item, encoding);
        total <= bytes
    });
    let kept = fits.count().max(1);
    if kept < found.messages.len() {
        found.messages.truncate(kept);
        found.has_more = true;
    }
    for item in found.messages.iter_mut().filter(|item| item.sender_id != user) {
        item.client_message_id = None;
    }
    let last = found.messages.last().map_or(page.after.0, |item| item.sequence);
    SyncResponse {
        chat_id: page.chat.to_string(),
        messages: found.messages,
        has_more: found.has_more,
        next_sequence: found.has_more.then_some(last + 1),
    }
}

/// The most bytes that an item takes on the wire. Stored texts have no control characters but newline and tab.
fn length(item: &SyncItem, encoding: Encoding) -> usize {
    let escaped = match encoding {
        Encoding::Json => item.content.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\t')).count(),
        Encoding::Protobuf => 0,
    };
    item.content.len() + escaped + ITEM_BYTES
}

/// Answers with the heads of chats.
pub async fn heads(gateway: &Gateway, link: &Link, request_id: &str, chats: &[Cursor]) {
    match ask_heads(gateway, link, chats).await {
        Ok(response) => link.answer(gateway, request_id, Payload::SyncHeadsResponse(response)),
        Err(error) => {
            link.refuse(gateway, Asked { kind: metrics::Received::SyncHeads, request_id, chat: None }, &error);
        }
    }
}

/// Asks ingest for the heads of chats.
///
/// # Errors
/// Ingest's.
pub async fn ask_heads(gateway: &Gateway, link: &Link, chats: &[Cursor]) -> Result<SyncHeadsResponse, Error> {
    let Some(first) = chats.first() else { return Ok(SyncHeadsResponse::default()) };
    let user_id = link.record.user.to_string();
    let chat_ids = chats.iter().map(|cursor| cursor.chat.to_string()).collect();
    let found = gateway.ingest.heads(first.chat, HeadsRequest { user_id, chat_ids }).await?;
    Ok(SyncHeadsResponse { chats: found.chats, not_member: found.not_member })
}

#[cfg(test)]
mod tests {
    use domain::{ids::ChatId, limits, message::Sequence};
    use proto::frames;

    use super::*;

    const JSON: Encoding = Encoding::Json;

    fn item(sequence: u64, sender: &str, length: usize) -> SyncItem {
        let (sender_id, content) = (sender.to_owned(), "x".repeat(length));
        SyncItem { sequence, sender_id, content, client_message_id: Some("c".into()), ..SyncItem::default() }
    }

    fn request(after: u64) -> PageRequest {
        let chat = ChatId(ulid::Ulid::from(1_u128));
        PageRequest { request_id: "r".into(), chat, after: Sequence(after), limit: 500 }
    }

    #[test]
    fn a_page_stays_below_its_bytes_and_shows_only_own_client_ids() {
        let page = request(4);
        let messages = vec![item(5, "me", 700), item(6, "you", 700), item(7, "me", 700)];
        let found = SyncMessagesResponse { messages, has_more: false };
        let whole = cut(found.clone(), &page, "me", (JSON, 3300));
        assert_eq!((whole.messages.len(), whole.has_more, whole.next_sequence), (3, false, None));
        let ids = whole.messages.iter().map(|item| item.client_message_id.is_some()).collect::<Vec<_>>();
        assert_eq!(ids, [true, false, true]);
        let part = cut(found.clone(), &page, "me", (JSON, 2300));
        assert_eq!((part.messages.len(), part.has_more, part.next_sequence), (2, true, Some(7)));
        let least = cut(found, &page, "me", (JSON, 1));
        assert_eq!((least.messages.len(), least.next_sequence), (1, Some(6)), "never an empty page that has more");
        let empty = cut(SyncMessagesResponse::default(), &page, "me", (JSON, 1));
        assert_eq!((empty.messages.len(), empty.has_more), (0, false));
    }

    #[test]
    fn the_longest_page_is_within_its_bytes_on_the_wire() {
        const BYTES: usize = 256 * 1024;
        for content in ["\n", "\"", "\\", "\t", "x", "☕"] {
            let content = content.repeat(4096 / content.len());
            let message = |sequence| SyncItem {
                message_id: format!("msg_{}", "0".repeat(26)),
                sequence: limits::MAX_SEQUENCE - 500 + sequence,
                sender_id: format!("user_{}", "0".repeat(26)),
                content: content.clone(),
                content_type: "text/plain".into(),
                created_at: 1_773_480_421_309,
                client_message_id: Some("6ba7b810-9dad-11d1-80b4-00c04fd430c8".into()),
            };
            let found = SyncMessagesResponse { messages: (0..500).map(message).collect(), has_more: false };
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                let sender = found.messages[0].sender_id.clone();
                let response = cut(found.clone(), &request(1), &sender, (encoding, BYTES));
                let request_id = "r".repeat(36);
                let payload = Some(Payload::SyncResponse(response));
                let frame = ServerFrame { request_id, timestamp: 1_773_480_421_309, payload };
                let bytes = match encoding {
                    Encoding::Json => frames::server_to_json(&frame).len(),
                    Encoding::Protobuf => frames::server_to_protobuf(&frame).len(),
                };
                assert!((BYTES * 9 / 10..=BYTES).contains(&bytes), "{content:.1} {encoding:?}: {bytes}");
            }
        }
    }
}
