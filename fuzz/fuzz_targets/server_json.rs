//! Frames of servers as JSON, from any bytes.

#![no_main]

#[path = "../../proto/tests/it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::server_json(bytes));
