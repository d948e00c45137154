//! Compiles the protos in pure Rust, so that a fresh machine needs no protoc.

use std::{error::Error, path::PathBuf};

use prost::Message as _;

/// Everything that crosses a process boundary.
const FILES: [&str; 5] = [
    "messaging/v1/frames.proto",
    "messaging/v1/ingest.proto",
    "messaging/v1/delivery.proto",
    "messaging/v1/chatmgmt.proto",
    "events/v1/events.proto",
];

/// Messages that a client frame may carry: these also exist as JSON.
const IN_FRAMES: [&str; 19] = [
    "TraceContext",
    "SendMessage",
    "Ack",
    "SyncRequest",
    "ChatCursor",
    "ChatHead",
    "SyncHeads",
    "SyncHeadsResponse",
    "Heartbeat",
    "HeartbeatAck",
    "ConnectionEstablished",
    "ConnectionClosing",
    "SendMessageAck",
    "Message",
    "SyncItem",
    "SyncResponse",
    "ErrorFrame",
    "ErrorDetails",
    "ChatEvent",
];

/// Fields shown as ISO 8601 in JSON.
const TIMES: [&str; 6] = [
    "HeartbeatAck.server_time",
    "ConnectionEstablished.server_time",
    "SendMessageAck.created_at",
    "Message.created_at",
    "SyncItem.created_at",
    "ChatEvent.at",
];

/// Optional in JSON, and left out when absent or empty.
const OPTIONAL: [(&str, &str); 17] = [
    ("SendMessage.content_type", "String::is_empty"),
    ("Ack.last_read_sequence", "Option::is_none"),
    ("SyncRequest.limit", "Option::is_none"),
    ("Message.client_message_id", "Option::is_none"),
    ("SyncItem.client_message_id", "Option::is_none"),
    ("SyncResponse.next_sequence", "Option::is_none"),
    ("Heartbeat.open_chats", "Vec::is_empty"),
    ("ErrorFrame.details", "Option::is_none"),
    ("ErrorDetails.field", "Option::is_none"),
    ("ErrorDetails.chat_id", "Option::is_none"),
    ("ErrorDetails.retry_after_seconds", "Option::is_none"),
    ("ErrorDetails.limit", "Option::is_none"),
    ("ErrorDetails.buffer_size", "Option::is_none"),
    ("ErrorDetails.buffer_limit", "Option::is_none"),
    ("ErrorDetails.grace_period_seconds", "Option::is_none"),
    ("ErrorDetails.sunset", "Option::is_none"),
    ("HeartbeatAck.heads", "Vec::is_empty"),
];

/// Absent is the same as false or empty. What is required of a client is refused when it is empty, by one check for both
/// encodings: protobuf can't tell the two apart.
const DEFAULTED: [&str; 11] = [
    "TraceContext.trace_id",
    "TraceContext.span_id",
    "HeartbeatAck.resync",
    "ConnectionClosing.reconnect_allowed",
    "SendMessage.client_message_id",
    "SendMessage.chat_id",
    "SendMessage.content",
    "Ack.chat_id",
    "SyncRequest.chat_id",
    "ChatCursor.chat_id",
    "SyncHeads.chats",
];

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script its folder by environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=messaging");
    println!("cargo:rerun-if-changed=events");
    println!("cargo:rerun-if-changed=third_party");

    let set = protox::Compiler::new([".", "third_party"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?
        .encode_file_descriptor_set();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), &set)?;

    let mut config = tonic_prost_build::configure().build_transport(false).bytes(".events.v1.DeadLetter");
    for name in IN_FRAMES {
        config = config
            .type_attribute(format!(".messaging.v1.{name}"), "#[derive(::serde::Serialize, ::serde::Deserialize)]");
    }
    for field in TIMES {
        config = config.field_attribute(format!(".messaging.v1.{field}"), "#[serde(with = \"crate::time::iso\")]");
    }
    for (field, empty) in OPTIONAL {
        config = config.field_attribute(
            format!(".messaging.v1.{field}"),
            format!("#[serde(default, skip_serializing_if = \"{empty}\")]"),
        );
    }
    for field in DEFAULTED {
        config = config.field_attribute(format!(".messaging.v1.{field}"), "#[serde(default)]");
    }
    let set = protox::prost_reflect::prost_types::FileDescriptorSet::decode(set.as_slice())?;
    config.compile_fds(set)?;
    Ok(())
}
