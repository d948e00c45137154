//! The operator's process, and its command that plans.

use std::process::ExitCode;

use operator::{plan_command, run};

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == plan_command::NAME) {
        return plan_command::main().await;
    }
    platform::run("operator", run::start).await
}
