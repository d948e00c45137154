//! Everything that crosses a process boundary: frames, RPCs, events, and their names.

pub mod frames;
pub mod time;
pub mod topics;

/// gRPC services and WebSocket frames.
#[allow(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto files are the documentation"
)]
pub mod messaging {
    pub mod v1 {
        tonic::include_proto!("messaging.v1");
    }
}

/// Values of the Kafka topics.
#[allow(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto files are the documentation"
)]
pub mod events {
    pub mod v1 {
        tonic::include_proto!("events.v1");
    }
}

/// The compiled descriptors of all files, HTTP annotations included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
