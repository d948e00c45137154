//! chatmgmt: login, users, chats and history.

use std::process::ExitCode;

use chatmgmt::{Config, wire_up};

#[tokio::main]
async fn main() -> ExitCode {
    platform::run("chatmgmt", |config: Config, process| async move {
        let running = wire_up::start(config.settings, &process).await?;
        let (listener, _) = process.bind("--listen", config.listen).await?;
        process.serve_http("rest", listener, running.http);
        anyhow::Ok(())
    })
    .await
}
