//! Checks a recorded history offline: `check HISTORY.jsonl` says which properties it breaks, and where.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Parser;
use tests::history::{checker::check, recorder};

/// Checks recorded histories. Exit code 1: a property is broken.
#[derive(Debug, Parser)]
#[command(name = "check")]
struct Config {
    /// Histories, each as JSON lines
    #[arg(required = true)]
    histories: Vec<PathBuf>,
    /// Show the lines of each counterexample
    #[arg(long)]
    lines: bool,
}

fn main() -> ExitCode {
    match run(&Config::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let mut are_accepted = true;
    for path in &config.histories {
        let lines = recorder::read(path)?;
        let report = check(&lines);
        are_accepted &= report.is_accepted();
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        if config.lines {
            for violation in &report.violations {
                writeln!(out, "{}: {}", violation.property, violation.says)?;
                for number in &violation.lines {
                    writeln!(out, "  {number}: {}", serde_json::to_string(&lines[number - 1])?)?;
                }
            }
        }
    }
    Ok(are_accepted)
}
