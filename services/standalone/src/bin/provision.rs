//! provision: makes the tables, the topics and the keys that the four services need, where no operator does.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use platform::clock::{SystemClock, SystemIds};

/// Between two rounds at systems that do not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// Where everything is to be made. What is there already stays as it is.
#[derive(Debug, Parser)]
#[command(name = "provision", about = "Makes tables, topics and keys for development and tests")]
struct Config {
    #[command(flatten)]
    store: adapters::dynamodb::Config,

    #[command(flatten)]
    log: adapters::kafka::Config,

    /// Partitions of a topic, at most; fewer where a topic has fewer by default
    #[arg(long, env = "PARTITIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,

    /// Brokers that keep each record
    #[arg(long, env = "REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3))]
    replicas: u16,

    /// Folder for fresh keys and tokens, in the form of the auth Secret; none is made without it
    #[arg(long, env = "AUTH_DIR")]
    auth_dir: Option<PathBuf>,

    /// How long systems that do not answer yet are asked again
    #[arg(long, env = "PROVISION_WITHIN", default_value = "60s", value_parser = humantime::parse_duration)]
    provision_within: Duration,

    /// Makes only this
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// A part of what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Keys and tokens.
    Keys,
    /// Tables and topics.
    Systems,
    /// Tables, for a log that has its topics.
    Tables,
}

#[tokio::main]
async fn main() -> ExitCode {
    match make(Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("provision failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn make(config: Config) -> anyhow::Result<()> {
    if matches!(config.only, None | Some(Part::Keys))
        && let Some(folder) = config.auth_dir.filter(|folder| !folder.exists())
    {
        chatmgmt::secrets::create(&folder, &SystemIds, &SystemClock)?;
    }
    if config.only == Some(Part::Keys) {
        return Ok(());
    }
    let store = adapters::dynamodb::Store::new(&config.store).await;
    let begun = Instant::now();
    loop {
        // What was made in one round is left alone in the next.
        let topics = match config.only {
            Some(Part::Tables) => Ok(()),
            _ => config.log.create_topics(config.partitions, config.replicas).await,
        };
        let made = match topics {
            Ok(()) => store.create_tables().await,
            failed @ Err(_) => failed,
        };
        match made {
            Err(_) if begun.elapsed() < config.provision_within => tokio::time::sleep(AGAIN).await,
            made => return made,
        }
    }
}
