//! standalone: the whole platform in one process, over embedded backing systems.

mod addresses;
mod config;
mod start;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    Box::pin(platform::run("standalone", start::all)).await
}
