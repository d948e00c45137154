//! The operator's process.

use std::process::ExitCode;

use operator::run;

#[tokio::main]
async fn main() -> ExitCode {
    platform::run("operator", run::start).await
}
