//! systems: the embedded store, and the embedded log, for services that are processes of their own.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use embedded::{DataFolder, Log, Store};
use platform::Process;
use proto::topics::Topic;

/// What is to be started; each says on the log where it listens.
#[derive(Debug, Parser)]
#[command(
    name = "systems",
    about = "The embedded store and log without the services, for development and tests",
    mut_arg("admin_listen", |flag| flag.default_value("127.0.0.1:0")),
    // The embedded store warns of every refused condition, which is how the services ask.
    mut_arg("log", |flag| flag.default_value("info,dynoxide=error"))
)]
struct Config {
    /// What every process has.
    #[command(flatten)]
    platform: platform::Config,

    /// Folder that keeps the store; it is in memory without one
    #[arg(long, env = "DATA")]
    data: Option<PathBuf>,

    /// What the names of the embedded log's topics begin with; there is no log without it
    #[arg(long, env = "LOG_PREFIX")]
    log_prefix: Option<String>,

    /// Partitions of a topic, at most; fewer where a topic has fewer by default
    #[arg(long, env = "PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
}

impl platform::Settings for Config {
    fn platform(&self) -> &platform::Config {
        &self.platform
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    Box::pin(platform::run("systems", start)).await
}

async fn start(config: Config, process: Process) -> anyhow::Result<(Option<DataFolder>, Option<Log>)> {
    let folder = config.data.as_deref().map(DataFolder::lock).transpose()?;
    Store::start(folder.as_ref().map(DataFolder::path), &process).await?;
    let topics = config.log_prefix.map(|prefix| {
        Topic::ALL.map(|topic| (format!("{prefix}{}", topic.name()), topic.default_partitions().min(config.partitions)))
    });
    let log = topics.map(|topics| Log::start(&topics)).transpose()?;
    if let Some(Log { brokers, .. }) = &log {
        tracing::info!(
            event = "process.listening",
            setting = "the embedded log",
            address = brokers,
            "listening on {brokers} for the embedded log"
        );
    }
    Ok((folder, log))
}
