//! ingest: makes messages durable, fixes their place in their chat, and puts them on the log.

pub mod acknowledge;
pub mod api;
pub mod commit;
pub mod config;
pub mod incarnation;
pub mod metrics;
pub mod persist;
pub mod publish;
pub mod republish;
pub mod slots;
pub mod sync;
pub mod wire_up;

pub use config::{AfterRestore, Config, Limits, Settings};
