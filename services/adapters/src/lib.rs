//! The only code that names a backing system: each port of `domain` on the system that serves it.

pub mod dynamodb;
pub mod kafka;
pub mod redis;

#[cfg(test)]
mod contract;
