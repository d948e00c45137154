//! standalone: the whole platform in one process, over embedded backing systems.

mod addresses;
mod config;
mod start;

use std::process::ExitCode;

use config::Config;

#[tokio::main]
async fn main() -> ExitCode {
    platform::run("standalone", start::all).await
}
