//! `ingest after-restore`: what is done between a restore of the tables and the first service that runs on them (D3.9).

use std::{io::Write as _, process::ExitCode, time::Duration};

use adapters::dynamodb::{
    self, Store,
    restore::{Progress, Restore},
};
use clap::Parser;
use platform::clock::{SystemClock, SystemIds};
use tokio::time::interval;

/// The word that asks for it.
pub const COMMAND: &str = "after-restore";
/// How often it is said how far it is.
const REPORT: Duration = Duration::from_secs(10);

/// Which restore, and where.
#[derive(Debug, Parser)]
#[command(
    name = "ingest after-restore",
    bin_name = "ingest after-restore",
    about = "Raises the counter of every chat after its tables were restored, so that no place is given out twice",
    long_about = "Raises the counter of every chat after its tables were restored, so that no place is given out twice.\n\n\
        To be run once all tables are restored to one moment, and before any service runs on them. It may be repeated: \
        a counter is raised once for each name."
)]
struct Config {
    /// Names the restore, for example by the moment that the tables were restored to; another restore, another name
    #[arg(long, env = "RESTORE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    restore: String,

    /// By how many places: more than any chat can have had in the time that was lost
    #[arg(long, env = "RAISE_BY", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1 << 10..=1 << 40))]
    raise_by: u64,

    /// The store
    #[command(flatten)]
    store: dynamodb::Config,
}

/// Runs it with the arguments of the process.
pub async fn run() -> ExitCode {
    let config = Config::parse_from(std::env::args_os().skip(1));
    match raise(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}\nRun it again before any service runs: what was raised is not raised twice.");
            ExitCode::FAILURE
        }
    }
}

async fn raise(config: &Config) -> anyhow::Result<()> {
    let store = Store::for_service(&config.store, "ingest").await;
    let restore = Restore { name: &config.restore, by: config.raise_by };
    let progress = Progress::default();
    let reports = async {
        let mut ticks = interval(REPORT);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            eprintln!("{} counters raised so far", progress.raised().now);
        }
    };
    let raised = tokio::select! {
        raised = store.raise_counters(restore, &progress, &SystemClock, &SystemIds) => raised?,
        () = reports => return Ok(()), // they have no end
    };
    let (now, before) = (raised.now, raised.before);
    writeln!(std::io::stdout(), "{now} counters raised by {}; {before} had been before", config.raise_by)?;
    Ok(())
}
