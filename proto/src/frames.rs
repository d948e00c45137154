//! Client frames as JSON and as protobuf of the same message (D2.1, D2.2, D2.8).
//!
//! JSON never follows the canonical proto mapping: numbers stay numbers, names stay `snake_case`,
//! times are ISO 8601. The golden samples in the tests decide.

use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    messaging::v1::{ClientFrame, ServerFrame, client_frame::Payload as Request, server_frame::Payload as Push},
    time,
};

/// Subprotocol of the JSON encoding, which is also meant when none is offered.
pub const JSON: &str = "messaging.v1.json";
/// Subprotocol of the protobuf encoding.
pub const PROTOBUF: &str = "messaging.v1.proto";
/// The version in the path, and in `connection_established`.
pub const PROTOCOL_VERSION: u32 = 1;

/// Why a frame was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// A type this version does not know: log it, answer nothing (websocket-protocol §12).
    UnknownType(String),
    /// Not a frame. `request_id` is there whenever it could be read, so that the answer can carry it.
    Malformed {
        /// Of the request, if it had a readable one.
        request_id: Option<String>,
        /// What is wrong, in words for the client's developer.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    request_id: Option<String>,
    timestamp: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Reads a client's JSON frame.
///
/// # Errors
/// [`Unread::UnknownType`] for a type this version does not know, [`Unread::Malformed`] for all else.
pub fn client_from_json(text: &str) -> Result<ClientFrame, Unread> {
    let envelope = envelope(text)?;
    let payload = match envelope.kind.as_deref() {
        None => return Err(envelope.malformed("`type` is missing")),
        Some("send_message") => Request::SendMessage(envelope.payload()?),
        Some("ack") => Request::Ack(envelope.payload()?),
        Some("sync_request") => Request::SyncRequest(envelope.payload()?),
        Some("sync_heads") => Request::SyncHeads(envelope.payload()?),
        Some("heartbeat") => Request::Heartbeat(envelope.payload()?),
        Some(unknown) => return Err(Unread::UnknownType(unknown.chars().take(64).collect())),
    };
    Ok(ClientFrame { request_id: envelope.request_id.unwrap_or_default(), payload: Some(payload) })
}

/// Writes a server's frame as JSON.
pub fn server_to_json(frame: &ServerFrame) -> String {
    #[derive(Serialize)]
    struct Out<'a, T> {
        #[serde(rename = "type")]
        kind: &'static str,
        #[serde(skip_serializing_if = "str::is_empty")]
        request_id: &'a str,
        timestamp: String,
        payload: &'a T,
    }
    fn write<T: Serialize>(frame: &ServerFrame, kind: &'static str, payload: &T) -> String {
        let timestamp = time::to_iso(frame.timestamp);
        let out = Out { kind, request_id: &frame.request_id, timestamp, payload };
        serde_json::to_string(&out).unwrap_or_default() // strings, numbers and lists: it cannot fail
    }
    match &frame.payload {
        None => String::new(),
        Some(Push::ConnectionEstablished(payload)) => write(frame, "connection_established", payload),
        Some(Push::ConnectionClosing(payload)) => write(frame, "connection_closing", payload),
        Some(Push::HeartbeatAck(payload)) => write(frame, "heartbeat_ack", payload),
        Some(Push::SendMessageAck(payload)) => write(frame, "send_message_ack", payload),
        Some(Push::Message(payload)) => write(frame, "message", payload),
        Some(Push::SyncResponse(payload)) => write(frame, "sync_response", payload),
        Some(Push::SyncHeadsResponse(payload)) => write(frame, "sync_heads_response", payload),
        Some(Push::Error(payload)) => write(frame, "error", payload),
        Some(Push::ChatCreated(payload)) => write(frame, "chat_created", payload),
        Some(Push::ChatUpdated(payload)) => write(frame, "chat_updated", payload),
        Some(Push::MemberAdded(payload)) => write(frame, "member_added", payload),
        Some(Push::MemberRemoved(payload)) => write(frame, "member_removed", payload),
    }
}

/// Writes a client's frame as JSON.
pub fn client_to_json(frame: &ClientFrame) -> String {
    #[derive(Serialize)]
    struct Out<'a, T> {
        #[serde(rename = "type")]
        kind: &'static str,
        #[serde(skip_serializing_if = "str::is_empty")]
        request_id: &'a str,
        payload: &'a T,
    }
    fn write<T: Serialize>(frame: &ClientFrame, kind: &'static str, payload: &T) -> String {
        let out = Out { kind, request_id: &frame.request_id, payload };
        serde_json::to_string(&out).unwrap_or_default() // strings, numbers and lists: it cannot fail
    }
    match &frame.payload {
        None => String::new(),
        Some(Request::SendMessage(payload)) => write(frame, "send_message", payload),
        Some(Request::Ack(payload)) => write(frame, "ack", payload),
        Some(Request::SyncRequest(payload)) => write(frame, "sync_request", payload),
        Some(Request::SyncHeads(payload)) => write(frame, "sync_heads", payload),
        Some(Request::Heartbeat(payload)) => write(frame, "heartbeat", payload),
    }
}

/// Reads a server's JSON frame.
///
/// # Errors
/// As [`client_from_json`].
pub fn server_from_json(text: &str) -> Result<ServerFrame, Unread> {
    let envelope = envelope(text)?;
    let payload = match envelope.kind.as_deref() {
        None => return Err(envelope.malformed("`type` is missing")),
        Some("connection_established") => Push::ConnectionEstablished(envelope.payload()?),
        Some("connection_closing") => Push::ConnectionClosing(envelope.payload()?),
        Some("heartbeat_ack") => Push::HeartbeatAck(envelope.payload()?),
        Some("send_message_ack") => Push::SendMessageAck(envelope.payload()?),
        Some("message") => Push::Message(envelope.payload()?),
        Some("sync_response") => Push::SyncResponse(envelope.payload()?),
        Some("sync_heads_response") => Push::SyncHeadsResponse(envelope.payload()?),
        Some("error") => Push::Error(envelope.payload()?),
        Some("chat_created") => Push::ChatCreated(envelope.payload()?),
        Some("chat_updated") => Push::ChatUpdated(envelope.payload()?),
        Some("member_added") => Push::MemberAdded(envelope.payload()?),
        Some("member_removed") => Push::MemberRemoved(envelope.payload()?),
        Some(unknown) => return Err(Unread::UnknownType(unknown.chars().take(64).collect())),
    };
    let timestamp = envelope.timestamp.as_deref().and_then(time::from_iso);
    let timestamp = timestamp.ok_or_else(|| envelope.malformed("`timestamp` is not an ISO 8601 time"))?;
    Ok(ServerFrame { request_id: envelope.request_id.unwrap_or_default(), timestamp, payload: Some(payload) })
}

/// Reads a client's protobuf frame.
///
/// # Errors
/// [`Unread::UnknownType`] when no payload of this version is set, [`Unread::Malformed`] for all else.
pub fn client_from_protobuf(bytes: &[u8]) -> Result<ClientFrame, Unread> {
    let frame = ClientFrame::decode(bytes)
        .map_err(|error| Unread::Malformed { request_id: None, reason: error.to_string() })?;
    if frame.payload.is_none() { Err(Unread::UnknownType(String::new())) } else { Ok(frame) }
}

/// Writes a server's frame as protobuf.
pub fn server_to_protobuf(frame: &ServerFrame) -> Vec<u8> {
    frame.encode_to_vec()
}

fn envelope(text: &str) -> Result<Envelope<'_>, Unread> {
    serde_json::from_str(text).map_err(|error| Unread::Malformed { request_id: None, reason: error.to_string() })
}

impl Envelope<'_> {
    fn payload<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Unread> {
        let raw = self.payload.ok_or_else(|| self.malformed("`payload` is missing"))?;
        serde_json::from_str(raw.get()).map_err(|error| self.malformed(&format!("payload: {error}")))
    }

    fn malformed(&self, reason: &str) -> Unread {
        Unread::Malformed { request_id: self.request_id.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::v1::{ChatHead, HeartbeatAck, Message, SendMessage, SyncItem, SyncResponse};

    const CHAT: &str = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2";
    const AT: i64 = 1_773_480_421_309;

    #[test]
    fn server_frames_look_as_agreed_and_come_back() {
        let push = Push::Message(Message {
            message_id: "msg_01KKNTQ2KYP1XPA7Z3DJ8FSSZ5".into(),
            chat_id: CHAT.into(),
            sequence: 218,
            sender_id: "user_01KKNTQ22TV37E3S3E28JT97KB".into(),
            content: "Meet at the north gate ☕".into(),
            content_type: "text/plain".into(),
            created_at: AT,
            client_message_id: None,
        });
        let page = Push::SyncResponse(SyncResponse {
            chat_id: CHAT.into(),
            messages: vec![SyncItem { sequence: 9_007_199_254_740_991, created_at: AT, ..SyncItem::default() }],
            has_more: true,
            next_sequence: Some(218),
        });
        let beat = Push::HeartbeatAck(HeartbeatAck {
            server_time: AT,
            resync: true,
            heads: vec![ChatHead { chat_id: CHAT.into(), current_sequence: 7 }],
        });
        let cases = [
            (
                "",
                push,
                r#"{"type":"message","timestamp":"2026-03-14T09:27:01.309Z","payload":{"message_id":"msg_01KKNTQ2KYP1XPA7Z3DJ8FSSZ5","chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","sequence":218,"sender_id":"user_01KKNTQ22TV37E3S3E28JT97KB","content":"Meet at the north gate ☕","content_type":"text/plain","created_at":"2026-03-14T09:27:01.309Z"}}"#,
            ),
            (
                "r1",
                page,
                r#"{"type":"sync_response","request_id":"r1","timestamp":"2026-03-14T09:27:01.309Z","payload":{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","messages":[{"message_id":"","sequence":9007199254740991,"sender_id":"","content":"","content_type":"","created_at":"2026-03-14T09:27:01.309Z"}],"has_more":true,"next_sequence":218}}"#,
            ),
            (
                "hb-001",
                beat,
                r#"{"type":"heartbeat_ack","request_id":"hb-001","timestamp":"2026-03-14T09:27:01.309Z","payload":{"server_time":"2026-03-14T09:27:01.309Z","resync":true,"heads":[{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","current_sequence":7}]}}"#,
            ),
        ];
        for (request_id, payload, golden) in cases {
            let frame = ServerFrame { request_id: request_id.into(), timestamp: AT, payload: Some(payload) };
            assert_eq!(server_to_json(&frame), golden);
            assert_eq!(server_from_json(golden), Ok(frame.clone()));
            assert_eq!(ServerFrame::decode(server_to_protobuf(&frame).as_slice()).as_ref(), Ok(&frame));
        }
    }

    #[test]
    fn client_frames_are_read_with_unknown_members_and_without_optional_ones() {
        let golden = r#"{"type":"send_message","request_id":"r","payload":{"client_message_id":"eaefc4d2-d3bf-4d01-abae-4b5b844a7034","chat_id":"c","content":"hi"}}"#;
        let send = SendMessage {
            client_message_id: "eaefc4d2-d3bf-4d01-abae-4b5b844a7034".into(),
            chat_id: "c".into(),
            content: "hi".into(),
            content_type: String::new(),
        };
        let frame = ClientFrame { request_id: "r".into(), payload: Some(Request::SendMessage(send)) };
        assert_eq!(client_to_json(&frame), golden);
        assert_eq!(client_from_json(golden), Ok(frame.clone()));
        assert_eq!(client_from_protobuf(&frame.encode_to_vec()), Ok(frame));
        let more = r#"{"type":"heartbeat","trace_context":{"trace_id":"t"},"payload":{"new":1}}"#;
        assert!(client_from_json(more).is_ok());
    }

    #[test]
    fn unreadable_client_frames_say_why() {
        let malformed = |text: &str| match client_from_json(text) {
            Err(Unread::Malformed { request_id, reason }) => (request_id, reason),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(malformed("{").0, None);
        assert!(malformed(r#"{"payload":{}}"#).1.contains("type"));
        assert!(malformed(r#"{"type":7,"payload":{}}"#).1.contains("string"));
        let missing = malformed(r#"{"type":"ack","request_id":"a","payload":{"chat_id":"c"}}"#);
        assert_eq!(missing.0.as_deref(), Some("a"));
        assert!(missing.1.contains("last_acked_sequence"), "{}", missing.1);
        assert!(malformed(r#"{"type":"ack","payload":{"chat_id":"c","last_acked_sequence":-1}}"#).1.contains("-1"));
        assert!(malformed(r#"{"type":"heartbeat","type":"ack","payload":{}}"#).1.contains("duplicate"));
        assert!(malformed(r#"{"type":"heartbeat"}"#).1.contains("payload"));
        assert_eq!(client_from_json(r#"{"type":"wave","payload":{}}"#), Err(Unread::UnknownType("wave".into())));
    }
}
