//! ingest: makes messages durable, fixes their place in their chat, and puts them on the log.

use std::process::ExitCode;

use ingest::{Config, restore, wire_up};

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == restore::COMMAND) {
        platform::process::choose_cryptography();
        return restore::run().await;
    }
    platform::run("ingest", |config: Config, process| async move { wire_up::start(config.settings, &process).await })
        .await
}
