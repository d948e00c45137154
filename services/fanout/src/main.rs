//! fanout: takes events from the log and brings them to the gateways of everybody they concern.

use std::process::ExitCode;

use fanout::{config::Config, wire_up};

#[tokio::main]
async fn main() -> ExitCode {
    platform::run("fanout", |config: Config, process| async move { wire_up::start(config.settings, &process).await })
        .await
}
