//! What holds for the decoders of frames, whatever bytes come: the fuzz targets look for bytes that break it.

#![allow(dead_code, reason = "each fuzz target takes one of them")]

use proto::{
    frames::{
        Unread, client_from_json, client_from_protobuf, client_to_json, client_to_protobuf, server_from_json,
        server_from_protobuf, server_to_json, server_to_protobuf,
    },
    messaging::v1::{ClientFrame, ServerFrame},
};

/// What a client may read of a fault stays short enough for a log line once gateway has cut it; here it only must not be
/// empty.
fn tells_why(unread: &Unread) {
    match unread {
        Unread::UnknownType { name, .. } => assert!(name.chars().count() <= 64),
        Unread::Malformed { reason, .. } => assert!(!reason.is_empty()),
        Unread::NotUtf8 { .. } => {}
    }
}

/// A frame that was read is written and read again in both encodings without a change.
fn client_frame(frame: &ClientFrame) {
    assert_eq!(client_from_json(&client_to_json(frame)).as_ref(), Ok(frame));
    assert_eq!(client_from_protobuf(&client_to_protobuf(frame)).as_ref(), Ok(frame));
}

fn server_frame(frame: &ServerFrame) {
    assert_eq!(server_from_protobuf(&server_to_protobuf(frame)).as_ref(), Ok(frame));
    // JSON shows only times from 1970 to 9999: once it did, nothing changes any more.
    let shown = server_to_json(frame);
    let read = server_from_json(&shown).expect("what is written can be read");
    assert_eq!(server_to_json(&read), shown);
}

/// Any bytes as a client's JSON frame.
pub(crate) fn client_json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match client_from_json(text) {
        Ok(frame) => client_frame(&frame),
        Err(unread) => tells_why(&unread),
    }
}

/// Any bytes as a client's protobuf frame.
pub(crate) fn client_protobuf(bytes: &[u8]) {
    match client_from_protobuf(bytes) {
        Ok(frame) => client_frame(&frame),
        Err(unread) => tells_why(&unread),
    }
}

/// Any bytes as a server's JSON frame.
pub(crate) fn server_json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match server_from_json(text) {
        Ok(frame) => server_frame(&frame),
        Err(unread) => tells_why(&unread),
    }
}

/// Any bytes as a server's protobuf frame.
pub(crate) fn server_protobuf(bytes: &[u8]) {
    match server_from_protobuf(bytes) {
        Ok(frame) => server_frame(&frame),
        Err(unread) => tells_why(&unread),
    }
}
