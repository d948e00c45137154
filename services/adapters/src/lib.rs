//! The only code that names a backing system: each port of `domain` on the system that serves it.

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a case names the one answer it expects, and ends the tasks it starts"
)]
mod contract;
pub mod dynamodb;
pub mod kafka;
pub mod redis;
pub mod sms;
