//! gateway: holds the WebSocket connections of clients.

use std::process::ExitCode;

use gateway::{config::Config, wire_up};

#[tokio::main]
async fn main() -> ExitCode {
    platform::run("gateway", |config: Config, process| async move {
        let (listener, _) = process.bind("--listen", config.listen).await?;
        let running = wire_up::start(config.settings, &process).await?;
        process.serve_http("clients", listener, running.http.clone());
        Ok(running)
    })
    .await
}
