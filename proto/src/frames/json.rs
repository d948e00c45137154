//! Frames as JSON.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_path_to_error::Segment;

use super::Unread;
use crate::{
    messaging::v1::{
        ClientFrame, ServerFrame, TraceContext, client_frame::Payload as Request, server_frame::Payload as Push,
    },
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
    /// Of clients; nothing that is wrong with it is a fault.
    #[serde(borrow)]
    trace_context: Option<&'a RawValue>,
}

/// Reads a client's JSON frame.
///
/// # Errors
/// [`Unread::UnknownType`] for a type this version does not know, [`Unread::Malformed`] for all else.
pub fn client_from_json(text: &str) -> Result<ClientFrame, Unread> {
    let envelope = envelope(text)?;
    let payload = match envelope.kind.as_deref() {
        None => return Err(envelope.malformed("type", "`type` is missing")),
        Some("send_message") => Request::SendMessage(envelope.payload()?),
        Some("ack") => Request::Ack(envelope.payload()?),
        Some("sync_request") => Request::SyncRequest(envelope.payload()?),
        Some("sync_heads") => Request::SyncHeads(envelope.payload()?),
        Some("heartbeat") => Request::Heartbeat(envelope.payload()?),
        Some(unknown) => return Err(envelope.unknown(unknown)),
    };
    let trace_context = envelope.trace_context.filter(|raw| is_object(raw.get()));
    let trace_context = trace_context.and_then(|raw| serde_json::from_str(raw.get()).ok());
    Ok(ClientFrame { request_id: envelope.request_id.unwrap_or_default(), trace_context, payload: Some(payload) })
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
        #[serde(skip_serializing_if = "Option::is_none")]
        trace_context: &'a Option<TraceContext>,
        payload: &'a T,
    }
    fn write<T: Serialize>(frame: &ClientFrame, kind: &'static str, payload: &T) -> String {
        let out = Out { kind, request_id: &frame.request_id, trace_context: &frame.trace_context, payload };
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
        None => return Err(envelope.malformed("type", "`type` is missing")),
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
        Some(unknown) => return Err(envelope.unknown(unknown)),
    };
    let timestamp = envelope.timestamp.as_deref().and_then(time::from_iso);
    let timestamp = timestamp.ok_or_else(|| envelope.malformed("timestamp", "`timestamp` is not an ISO 8601 time"))?;
    Ok(ServerFrame { request_id: envelope.request_id.unwrap_or_default(), timestamp, payload: Some(payload) })
}

fn envelope(text: &str) -> Result<Envelope<'_>, Unread> {
    let malformed = |field, reason| Unread::Malformed { request_id: None, field, reason };
    if !is_object(text) {
        return Err(malformed(None, "a frame is a JSON object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| malformed(field::<Envelope<'_>>(text), error.to_string()))
}

/// The parser would take a list in the place of an object.
fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}

/// The innermost field for which a text that is JSON is no `T`.
fn field<'de, T: Deserialize<'de>>(json: &'de str) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let error = serde_path_to_error::deserialize::<_, T>(&mut reader).err()?;
    if !error.inner().is_data() {
        return None;
    }
    let told = error.inner().to_string();
    let quoted = ["missing field `", "duplicate field `"].iter().find_map(|start| told.strip_prefix(start));
    if let Some((name, _)) = quoted.and_then(|rest| rest.split_once('`')) {
        return Some(name.to_owned());
    }
    error.path().iter().rev().find_map(|segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
    })
}

impl Envelope<'_> {
    fn payload<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Unread> {
        let raw = self.payload.ok_or_else(|| self.malformed("payload", "`payload` is missing"))?;
        if !is_object(raw.get()) {
            return Err(self.malformed("payload", "`payload` is not an object"));
        }
        serde_json::from_str(raw.get()).map_err(|error| self.unread(field::<T>(raw.get()), format!("payload: {error}")))
    }

    fn unknown(&self, kind: &str) -> Unread {
        Unread::UnknownType { request_id: self.request_id.clone(), name: kind.chars().take(TYPE_CHARS).collect() }
    }

    fn malformed(&self, field: &str, reason: &str) -> Unread {
        self.unread(Some(field.to_owned()), reason.to_owned())
    }

    fn unread(&self, field: Option<String>, reason: String) -> Unread {
        let is_one_way = self.kind.as_deref().is_some_and(|kind| ONE_WAY.contains(&kind));
        let request_id = self.request_id.clone().filter(|_| !is_one_way);
        Unread::Malformed { request_id, field, reason }
    }
}
