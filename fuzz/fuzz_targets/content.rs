//! Texts of messages, from any bytes.

#![no_main]

#[path = "../../services/domain/tests/it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::content(bytes));
