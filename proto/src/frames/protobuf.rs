//! Frames as protobuf.

use prost::{
    DecodeError, Message as _,
    encoding::{DecodeContext, WireType, decode_key, skip_field},
};

use super::Unread;
use crate::messaging::v1::{ClientFrame, ServerFrame};

/// The fields of a frame from here on are its payloads: each is one type.
const FIRST_PAYLOAD: u32 = 10;

/// What a frame that can't be read may still tell of itself.
#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(bytes = "vec", tag = "1")]
    request_id: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "11")]
    ack: Option<Vec<u8>>,
}

/// Reads a client's protobuf frame.
///
/// # Errors
/// [`Unread::UnknownType`] when its payload is of no type of this version, [`Unread::NotUtf8`] when a text is not
/// UTF-8, [`Unread::Malformed`] for all else.
pub fn client_from_protobuf(bytes: &[u8]) -> Result<ClientFrame, Unread> {
    let frame = ClientFrame::decode(bytes).map_err(|error| unread(bytes, &error))?;
    match frame.payload {
        Some(_) => Ok(frame),
        None => Err(without_payload(bytes, frame.request_id)),
    }
}

/// Writes a client's frame as protobuf.
pub fn client_to_protobuf(frame: &ClientFrame) -> Vec<u8> {
    frame.encode_to_vec()
}

/// Reads a server's protobuf frame.
///
/// # Errors
/// As [`client_from_protobuf`].
pub fn server_from_protobuf(bytes: &[u8]) -> Result<ServerFrame, Unread> {
    let frame = ServerFrame::decode(bytes).map_err(|error| unread(bytes, &error))?;
    match frame.payload {
        Some(_) => Ok(frame),
        None => Err(without_payload(bytes, frame.request_id)),
    }
}

/// Writes a server's frame as protobuf.
pub fn server_to_protobuf(frame: &ServerFrame) -> Vec<u8> {
    frame.encode_to_vec()
}

fn unread(bytes: &[u8], error: &DecodeError) -> Unread {
    let head = Head::decode(bytes).ok().filter(|head| head.ack.is_none());
    let request_id = head.and_then(|head| String::from_utf8(head.request_id).ok()).filter(|id| !id.is_empty());
    let reason = error.to_string();
    let field = field(&reason);
    // The decoder has no other word for it.
    if reason.contains("UTF-8") {
        Unread::NotUtf8 { request_id, field }
    } else {
        Unread::Malformed { request_id, field, reason }
    }
}

/// The innermost field that a decoder's error names: `…: Message.field: Message.field: what is wrong`.
fn field(reason: &str) -> Option<String> {
    let (_, field) = reason.split(": ").nth(1)?.split_once('.')?;
    let is_name = field.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_name.then(|| field.to_owned())
}

/// No payload at all, or one that this version does not know.
fn without_payload(mut bytes: &[u8], request_id: String) -> Unread {
    let request_id = Some(request_id).filter(|id| !id.is_empty());
    while let Ok((tag, wire_type)) = decode_key(&mut bytes) {
        if tag >= FIRST_PAYLOAD && wire_type == WireType::LengthDelimited {
            return Unread::UnknownType { request_id, name: format!("payload {tag}") };
        }
        if skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).is_err() {
            break;
        }
    }
    Unread::Malformed { request_id, field: Some("payload".to_owned()), reason: "the payload is missing".to_owned() }
}
