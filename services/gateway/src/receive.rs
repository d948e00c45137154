//! Hop 1 of 6: a client's frame becomes a valid request, and a valid send goes to ingest.
//!
//! From here on the sender is who they say: the id is the connection's, never the frame's. Whether they
//! are a member is decided by ingest alone. Next: `ingest/src/persist.rs`.

use std::sync::Arc;

use axum::extract::ws::Message;
use domain::{
    Error, ErrorKind,
    ids::{ChatId, ClientMessageId},
    limits,
    message::{Content, Sequence},
};
use platform::{
    failpoint, telemetry,
    trace::{self, Claim, Outside},
};
use proto::{
    frames::{self, Unread},
    messaging::v1::{
        Ack, ChatCursor, ClientFrame, PersistMessageRequest, PersistMessageResponse, SendMessageAck, TraceContext,
        client_frame::Payload as Request, server_frame::Payload,
    },
};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::{
    Gateway,
    connections::{Asked, Link, about},
    ingest::Pod,
    metrics::{self, count},
    outbound::Encoding,
};

/// Characters of the reason why a frame could not be read, which may quote it.
const REASON_CHARS: usize = 200;

/// A valid request.
#[derive(Debug)]
pub enum Received {
    /// Store a message.
    Send(Outgoing),
    /// The client has everything up to a sequence.
    Ack(Acknowledged),
    /// A page of a chat, please.
    Sync(PageRequest),
    /// The heads of chats, please.
    Heads(String, Vec<Cursor>),
    /// I am here, with these chats open.
    Heartbeat(String, Vec<Cursor>),
    /// A type that this version does not know: nothing is answered.
    Unknown {
        /// Of the frame, for the log.
        request_id: String,
        /// What the frame calls it.
        name: String,
    },
}

impl Received {
    /// Its type.
    pub fn kind(&self) -> metrics::Received {
        match self {
            Self::Send(_) => metrics::Received::SendMessage,
            Self::Ack(_) => metrics::Received::Ack,
            Self::Sync(_) => metrics::Received::SyncRequest,
            Self::Heads(..) => metrics::Received::SyncHeads,
            Self::Heartbeat(..) => metrics::Received::Heartbeat,
            Self::Unknown { .. } => metrics::Received::Unknown,
        }
    }

    /// What an answer repeats; empty when there is none.
    pub fn request_id(&self) -> &str {
        match self {
            Self::Send(send) => &send.request_id,
            Self::Sync(page) => &page.request_id,
            Self::Heads(request_id, _) | Self::Heartbeat(request_id, _) => request_id,
            Self::Ack(_) | Self::Unknown { .. } => "",
        }
    }
}

/// A message to be stored.
#[derive(Debug)]
pub struct Outgoing {
    /// Of the frame; the answer repeats it.
    pub request_id: String,
    /// Where it goes.
    pub chat: ChatId,
    /// The client's own id of it.
    pub client_id: ClientMessageId,
    /// The same as the client wrote it, which the answer repeats.
    pub client_text: String,
    /// Its text.
    pub content: Content,
    /// Where the client's own trace has come.
    pub outside: Option<Outside>,
    /// When its frame came.
    pub at: Instant,
}

/// What a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of which chat.
    pub chat: ChatId,
    /// Up to where it is stored.
    pub delivered: Sequence,
    /// Up to where it was read, if the client tells.
    pub read: Option<Sequence>,
}

impl Acknowledged {
    /// Both of the same chat in one: marks only rise.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { delivered: self.delivered.max(other.delivered), read: self.read.max(other.read), ..self }
    }
}

/// A page of a chat.
#[derive(Debug)]
pub struct PageRequest {
    /// Of the frame; the answer repeats it.
    pub request_id: String,
    /// Of which chat.
    pub chat: ChatId,
    /// What comes after this.
    pub after: Sequence,
    /// At most so many.
    pub limit: u32,
}

/// How far a client is in a chat.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// Which chat.
    pub chat: ChatId,
    /// The last sequence it has.
    pub last: Sequence,
}

/// A frame that is no valid request.
#[derive(Debug)]
pub struct Refused {
    /// What the answer repeats; empty when there is none.
    pub request_id: String,
    /// Why.
    pub error: Error,
}

/// Reads a frame; `None` when its kind does not fit the encoding.
pub fn read(encoding: Encoding, message: &Message) -> Option<Result<Received, Refused>> {
    let frame = match (encoding, message) {
        (Encoding::Json, Message::Text(text)) => frames::client_from_json(text.as_str()),
        (Encoding::Protobuf, Message::Binary(bytes)) => frames::client_from_protobuf(bytes),
        _ => return None,
    };
    Some(match frame {
        Ok(frame) => check(frame),
        Err(Unread::UnknownType { request_id, name }) => {
            Ok(Received::Unknown { request_id: harmless(request_id), name })
        }
        Err(Unread::Malformed { request_id, field, reason }) => {
            let reason: String = reason.chars().take(REASON_CHARS).collect();
            Err(unread(request_id, field, Error::new(ErrorKind::InvalidArgument, reason)))
        }
        Err(Unread::NotUtf8 { request_id, field }) => {
            Err(unread(request_id, field, Error::new(ErrorKind::InvalidEncoding, "a text is not UTF-8")))
        }
    })
}

fn unread(request_id: Option<String>, field: Option<String>, error: Error) -> Refused {
    let error = match field {
        Some(field) => error.in_field(field, "INVALID"),
        None => error,
    };
    Refused { request_id: harmless(request_id), error }
}

/// An id that may be repeated, or none.
fn harmless(request_id: Option<String>) -> String {
    request_id.filter(|id| is_request_id(id)).unwrap_or_default()
}

fn check(frame: ClientFrame) -> Result<Received, Refused> {
    let ClientFrame { request_id, trace_context, payload } = frame;
    let Some(payload) = payload else {
        return Ok(Received::Unknown { request_id: harmless(Some(request_id)), name: String::new() });
    };
    if let Request::Ack(ack) = payload {
        // One-way: an error about it answers nothing.
        return acknowledged(&ack).map_err(|error| Refused { request_id: String::new(), error });
    }
    let is_needed = !matches!(payload, Request::Heartbeat(_));
    if (is_needed || !request_id.is_empty()) && !is_request_id(&request_id) {
        let error = Error::field("request_id", "INVALID", "request_id must have 1 to 36 of A-Z, a-z, 0-9, _ and -");
        return Err(Refused { request_id: String::new(), error });
    }
    let id = request_id.clone();
    match payload {
        Request::SendMessage(send) => outgoing(id, &send, trace_context.as_ref()),
        Request::SyncRequest(sync) => page_request(id, &sync),
        Request::SyncHeads(heads) => {
            cursors("chats", &heads.chats, limits::HEADS_CHATS).map(|chats| Received::Heads(id, chats))
        }
        Request::Heartbeat(beat) => {
            cursors("open_chats", &beat.open_chats, limits::OPEN_CHATS).map(|chats| Received::Heartbeat(id, chats))
        }
        Request::Ack(ack) => acknowledged(&ack),
    }
    .map_err(|error| Refused { request_id, error })
}

fn outgoing(
    request_id: String,
    send: &proto::messaging::v1::SendMessage,
    trace_context: Option<&TraceContext>,
) -> Result<Received, Error> {
    let client_id = send.client_message_id.parse();
    let client_id =
        client_id.map_err(|_| Error::field("client_message_id", "INVALID", "client_message_id must be a UUID"))?;
    let chat = chat(&send.chat_id)?;
    let content = Content::new(&send.content_type, &send.content)?;
    let client_text = send.client_message_id.clone();
    let claim = trace_context.map(|context| Claim { trace_id: &context.trace_id, span_id: &context.span_id });
    let outside = claim.and_then(Outside::new);
    Ok(Received::Send(Outgoing { request_id, chat, client_id, client_text, content, outside, at: Instant::now() }))
}

fn acknowledged(ack: &Ack) -> Result<Received, Error> {
    let chat = chat(&ack.chat_id)?;
    let delivered = sequence("last_acked_sequence", ack.last_acked_sequence)?;
    if delivered == Sequence(0) {
        return Err(Error::field("last_acked_sequence", "INVALID", "last_acked_sequence begins at 1"));
    }
    let read = ack.last_read_sequence.map(|read| sequence("last_read_sequence", read)).transpose()?;
    if read.is_some_and(|read| read > delivered) {
        let message = "last_read_sequence is at most last_acked_sequence";
        return Err(Error::field("last_read_sequence", "INVALID", message));
    }
    Ok(Received::Ack(Acknowledged { chat, delivered, read }))
}

fn page_request(request_id: String, sync: &proto::messaging::v1::SyncRequest) -> Result<Received, Error> {
    let chat = chat(&sync.chat_id)?;
    let after = sequence("last_acked_sequence", sync.last_acked_sequence)?;
    let (default, maximum) = limits::SYNC_PAGE;
    let limit = sync.limit.unwrap_or(default).min(maximum);
    if limit == 0 {
        return Err(Error::field("limit", "INVALID", "limit begins at 1"));
    }
    Ok(Received::Sync(PageRequest { request_id, chat, after, limit }))
}

fn cursors(field: &'static str, chats: &[ChatCursor], maximum: usize) -> Result<Vec<Cursor>, Error> {
    if chats.len() > maximum {
        return Err(Error::field(field, "TOO_MANY", "too many chats in one frame").with_number("limit", maximum as u64));
    }
    let read = |cursor: &ChatCursor| {
        Ok(Cursor { chat: chat(&cursor.chat_id)?, last: sequence("last_sequence", cursor.last_sequence)? })
    };
    chats.iter().map(read).collect()
}

fn chat(text: &str) -> Result<ChatId, Error> {
    text.parse().map_err(|_| Error::field("chat_id", "INVALID", "chat_id is not the id of a chat"))
}

fn sequence(field: &'static str, number: u64) -> Result<Sequence, Error> {
    if number > limits::MAX_SEQUENCE {
        return Err(Error::field(field, "INVALID", "a sequence is at most 2^53-1"));
    }
    Ok(Sequence(number))
}

/// Opaque, but short and harmless in any log.
fn is_request_id(text: &str) -> bool {
    (1..=limits::REQUEST_ID_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Hands messages of one connection to one chat to ingest, in their order, and tells the client how each ended: always,
/// and once.
pub async fn send(gateway: Arc<Gateway>, link: Arc<Link>, sends: Vec<Outgoing>, pod: &mut Option<Arc<Pod>>) {
    let Some(chat) = sends.first().map(|send| send.chat) else { return };
    let spans: Vec<Span> = sends.iter().map(|send| hop(&link, send)).collect();
    let mut requests: Vec<PersistMessageRequest> = sends.iter().map(|send| request(&link, send)).collect();
    failpoint::reached("receive.before");
    let results = match requests.pop() {
        Some(request) if requests.is_empty() => {
            vec![gateway.ingest.persist(chat, request, pod).instrument(spans[0].clone()).await]
        }
        last => {
            requests.extend(last);
            for (request, span) in requests.iter_mut().zip(&spans) {
                request.traceparent = trace::carry(span).unwrap_or_default();
            }
            match gateway.ingest.persist_all(chat, requests, pod).await {
                Ok(results) => results,
                Err(error) => sends.iter().map(|_| Err(error.again())).collect(),
            }
        }
    };
    failpoint::reached("receive.after");
    for ((send, result), span) in sends.iter().zip(results).zip(spans) {
        span.in_scope(|| answer(&gateway, &link, send, result));
    }
}

/// The first hop of a message.
fn hop(link: &Link, send: &Outgoing) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "gateway.receive",
        trace_id = tracing::field::Empty,
        "message.type" = metrics::Received::SendMessage.name(),
        chat.id = %send.chat,
        connection.id = %link.record.id,
        user.id = %link.record.user,
        request.id = send.request_id,
    );
    trace::begin_in(span, send.outside.as_ref())
}

fn request(link: &Link, send: &Outgoing) -> PersistMessageRequest {
    PersistMessageRequest {
        chat_id: send.chat.to_string(),
        sender_id: link.record.user.to_string(),
        client_message_id: send.client_id.to_string(),
        content_type: domain::message::TEXT.to_owned(),
        content: send.content.as_str().to_owned(),
        origin_connection: link.record.id.to_string(),
        traceparent: String::new(),
    }
}

fn answer(gateway: &Gateway, link: &Link, send: &Outgoing, result: Result<PersistMessageResponse, Error>) {
    count(&gateway.metrics.sends, outcome(&result));
    let asked = Asked { kind: metrics::Received::SendMessage, request_id: &send.request_id, chat: Some(send.chat) };
    match result {
        Ok(stored) => {
            let sequence = Sequence(stored.sequence);
            let took = send.at.elapsed();
            about!(
                debug,
                link,
                asked,
                event = "message.acknowledged",
                operation = "send",
                message.id = stored.message_id,
                latency_ms = telemetry::millis(took),
                "message {} is acknowledged",
                stored.message_id
            );
            link.knows(send.chat, sequence, gateway.limits.fence_chats);
            let ack = SendMessageAck {
                client_message_id: send.client_text.clone(),
                message_id: stored.message_id,
                chat_id: send.chat.to_string(),
                sequence: stored.sequence,
                created_at: stored.created_at,
            };
            link.answer(gateway, &send.request_id, Payload::SendMessageAck(ack));
            gateway.metrics.send_latency.observe(took.as_secs_f64());
        }
        Err(error) => link.refuse(gateway, asked, &error),
    }
}

fn outcome(result: &Result<PersistMessageResponse, Error>) -> metrics::Send {
    match result.as_ref().map_err(Error::kind) {
        Ok(_) => metrics::Send::Acknowledged,
        Err(ErrorKind::Unavailable | ErrorKind::Internal) => metrics::Send::Unknown,
        Err(_) => metrics::Send::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2";
    const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn read_json(text: &str) -> Result<Received, Refused> {
        read(Encoding::Json, &Message::Text(text.into())).expect("text")
    }

    #[test]
    fn valid_frames_become_requests() {
        let content = "x".repeat(4096);
        for (text, expected) in [
            (
                format!(
                    r#"{{"type":"send_message","request_id":"r","payload":{{"client_message_id":"{UUID}","chat_id":"{CHAT}","content":"{content}"}}}}"#
                ),
                "Send",
            ),
            (format!(r#"{{"type":"ack","payload":{{"chat_id":"{CHAT}","last_acked_sequence":1}}}}"#), "Ack"),
            (
                format!(
                    r#"{{"type":"ack","request_id":"will-be-ignored, whatever","payload":{{"chat_id":"{CHAT}","last_acked_sequence":1,"last_read_sequence":1}}}}"#
                ),
                "Ack",
            ),
            (
                format!(
                    r#"{{"type":"sync_request","request_id":"r","payload":{{"chat_id":"{CHAT}","last_acked_sequence":0}}}}"#
                ),
                "limit: 100",
            ),
            (
                format!(
                    r#"{{"type":"sync_request","request_id":"r","payload":{{"chat_id":"{CHAT}","last_acked_sequence":0,"limit":9000}}}}"#
                ),
                "limit: 500",
            ),
            (r#"{"type":"heartbeat","payload":{}}"#.to_owned(), "Heartbeat"),
            (r#"{"type":"heartbeat","request_id":"hb-001","payload":{}}"#.to_owned(), "hb-001"),
            (r#"{"type":"wave","payload":{}}"#.to_owned(), "Unknown"),
        ] {
            let debug = format!("{:?}", read_json(&text).expect("valid"));
            assert!(debug.contains(expected), "{text}: {debug}");
        }
    }

    #[test]
    fn invalid_frames_say_what_is_wrong_and_repeat_the_request_id() {
        let send = |id: &str, chat: &str, content: &str| {
            format!(
                r#"{{"type":"send_message","request_id":"r","payload":{{"client_message_id":"{id}","chat_id":"{chat}","content":"{content}"}}}}"#
            )
        };
        let long = "x".repeat(4097);
        let id_37 = "x".repeat(37);
        let cases = [
            ("{".to_owned(), "", ErrorKind::InvalidArgument),
            (send("not-a-uuid", CHAT, "hi"), "r", ErrorKind::InvalidArgument),
            (send(UUID, "chat_1", "hi"), "r", ErrorKind::InvalidArgument),
            (send(UUID, CHAT, ""), "r", ErrorKind::InvalidArgument),
            (send(UUID, CHAT, &long), "r", ErrorKind::MessageTooLarge),
            (send(UUID, CHAT, "a\\u0000b"), "r", ErrorKind::InvalidContent),
            (send(UUID, CHAT, "hi").replace(r#""request_id":"r","#, ""), "", ErrorKind::InvalidArgument),
            (send(UUID, CHAT, "hi").replace(r#""r""#, &format!("{id_37:?}")), "", ErrorKind::InvalidArgument),
            (
                format!(
                    r#"{{"type":"ack","request_id":"r","payload":{{"chat_id":"{CHAT}","last_acked_sequence":0}}}}"#
                ),
                "",
                ErrorKind::InvalidArgument,
            ),
            (
                format!(
                    r#"{{"type":"ack","payload":{{"chat_id":"{CHAT}","last_acked_sequence":1,"last_read_sequence":2}}}}"#
                ),
                "",
                ErrorKind::InvalidArgument,
            ),
            (
                format!(
                    r#"{{"type":"sync_request","request_id":"r","payload":{{"chat_id":"{CHAT}","last_acked_sequence":9007199254740992}}}}"#
                ),
                "r",
                ErrorKind::InvalidArgument,
            ),
            (
                format!(
                    r#"{{"type":"sync_request","request_id":"r","payload":{{"chat_id":"{CHAT}","last_acked_sequence":1,"limit":0}}}}"#
                ),
                "r",
                ErrorKind::InvalidArgument,
            ),
        ];
        for (text, request_id, kind) in cases {
            let refused = read_json(&text).expect_err(&text);
            assert_eq!((refused.request_id.as_str(), refused.error.kind()), (request_id, kind), "{text}");
        }
    }

    #[test]
    fn a_frame_of_the_other_kind_is_none() {
        assert!(read(Encoding::Json, &Message::Binary(vec![1].into())).is_none());
        assert!(read(Encoding::Protobuf, &Message::Text("{}".into())).is_none());
    }
}
