//! Frames of servers as protobuf, from any bytes.

#![no_main]

#[path = "../../proto/tests/it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::server_protobuf(bytes));
