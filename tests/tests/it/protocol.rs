//! The protocol of the WebSocket, id by id: each rule with JSON frames and with protobuf frames, on the embedded
//! platform and on real systems.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test that sees another frame has failed")]

mod errors;
mod handshake;
mod messages;
mod place;
mod pressure;
mod speaker;
mod tokens;
