//! ingest: makes messages durable, fixes their place in their chat, and puts them on the log.

use std::process::ExitCode;

use ingest::{Config, wire_up};

#[tokio::main]
async fn main() -> ExitCode {
    platform::run("ingest", |config: Config, process| async move { wire_up::start(config.settings, &process).await })
        .await
}
