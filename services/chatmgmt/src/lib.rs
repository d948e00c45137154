//! chatmgmt: login, users, chats and history, over gRPC and as REST from the same definition.

pub mod auth;
pub mod caller;
pub mod chats;
pub mod config;
pub mod history;
pub mod metrics;
pub mod outbox;
pub mod rate_limits;
pub mod rest;
pub mod secrets;
pub mod users;
pub mod wire_up;

pub use config::{Config, Settings};
pub use wire_up::{Running, start};
