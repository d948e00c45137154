//! Frames as JSON.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Unread;
use crate::{
    messaging::v1::{ClientFrame, ServerFrame, client_frame::Payload as Request, server_frame::Payload as Push},
    time,
};

/// Types that are never answered, not even when they can't be read.
const ONE_WAY: [&str; 1] = ["ack"];
/// Characters of an unknown type that are told.
const TYPE_CHARS: usize = 64;

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
        Some(unknown) => return Err(Unread::UnknownType(unknown.chars().take(TYPE_CHARS).collect())),
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
        Some(unknown) => return Err(Unread::UnknownType(unknown.chars().take(TYPE_CHARS).collect())),
    };
    let timestamp = envelope.timestamp.as_deref().and_then(time::from_iso);
    let timestamp = timestamp.ok_or_else(|| envelope.malformed("`timestamp` is not an ISO 8601 time"))?;
    Ok(ServerFrame { request_id: envelope.request_id.unwrap_or_default(), timestamp, payload: Some(payload) })
}

fn envelope(text: &str) -> Result<Envelope<'_>, Unread> {
    let malformed = |reason: String| Unread::Malformed { request_id: None, reason };
    if !is_object(text) {
        return Err(malformed("a frame is a JSON object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| malformed(error.to_string()))
}

/// The parser would take a list in the place of an object.
fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}

impl Envelope<'_> {
    fn payload<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Unread> {
        let raw = self.payload.ok_or_else(|| self.malformed("`payload` is missing"))?;
        if !is_object(raw.get()) {
            return Err(self.malformed("`payload` is not an object"));
        }
        serde_json::from_str(raw.get()).map_err(|error| self.malformed(&format!("payload: {error}")))
    }

    fn malformed(&self, reason: &str) -> Unread {
        let is_one_way = self.kind.as_deref().is_some_and(|kind| ONE_WAY.contains(&kind));
        let request_id = self.request_id.clone().filter(|_| !is_one_way);
        Unread::Malformed { request_id, reason: reason.to_owned() }
    }
}
