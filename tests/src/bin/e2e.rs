//! Tries the platform on a Kubernetes cluster: installs it, talks through it, and changes and breaks it meanwhile.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tests::e2e::{drive, talk};

/// Tries the platform on the cluster of KUBECONFIG.
#[derive(Debug, Parser)]
#[command(name = "e2e")]
struct Config {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Everything, from outside of the cluster
    Run(drive::Config),
    /// Two people who write to each other all the time, in a pod
    Talk(talk::Config),
    /// One question to the people of this pod, as JSON
    Ask {
        /// For example `"figures"`
        question: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Config::parse().part {
        Part::Run(config) => Box::pin(drive::run(config)).await,
        Part::Talk(config) => talk::talk(config).await,
        Part::Ask { question } => talk::ask(&question).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}
