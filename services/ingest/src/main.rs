//! ingest: makes messages durable, fixes their place in their chat, and puts them on the log.

use std::process::ExitCode;

use ingest::{AfterRestore, Config, wire_up};

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(asked) = AfterRestore::asked() {
        platform::process::choose_cryptography();
        return match wire_up::after_restore(&asked).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}\nRun it again before any service runs: what was raised is not raised twice.");
                ExitCode::FAILURE
            }
        };
    }
    platform::run("ingest", |config: Config, process| async move { wire_up::start(config.settings, &process).await })
        .await
}
