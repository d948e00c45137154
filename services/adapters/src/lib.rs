//! The only code that names a backing system: each port of `domain` on the system that serves it.

#[cfg(test)]
#[macro_use]
#[path = "../tests/it/on.rs"]
mod on;

#[cfg(test)]
mod contract;
pub mod dynamodb;
pub mod kafka;
pub mod redis;
pub mod sms;
