//! Runs the rows of the fault matrix on real or embedded systems, or the broken builds, and saves what they showed as JSON.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;
use serde_json::json;
use tests::faults::{
    mutant::{self, Mutant},
    row::Row,
    run::{self, On},
};

/// Runs rows of the fault matrix. Exit code 1: a history was rejected, or a broken build accepted.
#[derive(Debug, Parser)]
#[command(name = "faults")]
struct Config {
    /// Rows by the beginning of their name, for example `04` or `25-parted`; all without any
    rows: Vec<String>,
    /// Where the randomness of each run begins
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3])]
    seeds: Vec<u64>,
    /// Broken builds instead of rows
    #[arg(long)]
    broken: bool,
    /// With --broken: the same runs with whole builds, which must be accepted
    #[arg(long, requires = "broken")]
    whole: bool,
    /// On the embedded store and log instead of Apache Kafka and DynamoDB Local
    #[arg(long, conflicts_with = "broken")]
    embedded: bool,
    /// Where histories and results go
    #[arg(long, default_value = "target/faults")]
    into: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match all(&Config::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn all(config: &Config) -> anyhow::Result<bool> {
    let (begun, mut is_good, mut results) = (Instant::now(), true, Vec::new());
    let asked = |name: &str| config.rows.is_empty() || config.rows.iter().any(|row| name.starts_with(row.as_str()));
    if config.broken {
        for mutant in Mutant::ALL.into_iter().filter(|mutant| asked(mutant.name())) {
            for seed in &config.seeds {
                let (outcome, wanted) = if config.whole {
                    (Box::pin(run::run(mutant.row(), On::Real, *seed, &config.into)).await, "none".to_owned())
                } else {
                    (Box::pin(mutant::run(mutant, *seed, &config.into)).await, mutant.breaks().to_string())
                };
                let is_found = outcome.as_ref().is_ok_and(|outcome| {
                    let report = &outcome.report;
                    if config.whole { report.is_accepted() } else { report.rejects(mutant.breaks()) }
                });
                is_good &= is_found;
                let found = broken(&outcome);
                eprintln!("{} seed {seed}: {}, wanted {wanted}: {found}", mutant.name(), said(is_found));
                results.push(json!({"build": mutant.name(), "seed": seed, "wanted": wanted, "found": found}));
            }
        }
    } else {
        let on = if config.embedded { On::Embedded } else { On::Real };
        for row in Row::ALL.into_iter().filter(|row| row.runs_on(on) && asked(row.name())) {
            for seed in &config.seeds {
                let outcome = Box::pin(run::run(row, on, *seed, &config.into)).await;
                let is_accepted = outcome.as_ref().is_ok_and(|outcome| outcome.report.is_accepted());
                is_good &= is_accepted;
                eprintln!("{} seed {seed}: {} {}", row.name(), said(is_accepted), broken(&outcome));
                results.push(match outcome {
                    Ok(outcome) => serde_json::to_value(outcome)?,
                    Err(error) => json!({"row": row.name(), "seed": seed, "error": format!("{error:#}")}),
                });
            }
        }
    }
    let name = match (config.broken, config.whole, config.embedded) {
        (true, false, _) => "broken.json",
        (true, true, _) => "whole.json",
        (false, _, false) => "rows.json",
        (false, _, true) => "rows-embedded.json",
    };
    let all = json!({"seconds": begun.elapsed().as_secs(), "results": results});
    std::fs::create_dir_all(&config.into)?;
    std::fs::write(config.into.join(name), serde_json::to_string_pretty(&all)?)?;
    Ok(is_good)
}

fn said(is_good: bool) -> &'static str {
    if is_good { "good" } else { "BAD" }
}

/// Which properties do not hold, or why the run failed.
fn broken(outcome: &anyhow::Result<run::Outcome>) -> String {
    match outcome {
        Ok(outcome) => {
            let first = outcome.report.violations.first().map_or("", |first| first.says.as_str());
            format!("{:?} {first} ({} s)", outcome.report.broken, outcome.seconds)
        }
        Err(error) => format!("{error:#}"),
    }
}
