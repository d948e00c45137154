//! What any process needs: settings, telemetry, start and stop, health, error codes. Knows nothing of chat.

#![deny(missing_docs)]

mod accept;
pub mod admin;
pub mod broken;
pub mod clock;
pub mod config;
pub mod dependency;
pub mod failpoint;
pub mod grpc;
mod http;
pub mod process;
pub mod retry;
pub mod secret;
pub mod telemetry;
pub mod tokens;
pub mod trace;
pub mod wire;

pub use config::{Config, Settings};
pub use process::{Gate, Liveness, Process, run};
pub use secret::Secret;
