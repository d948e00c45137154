//! Measures what messages cost, on real systems and separate processes, and saves it as JSON.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tests::{
    bench::{
        deliver,
        latency::{self, Load},
        one_chat,
    },
    world::ground::{OwnGround, Systems},
};

/// Measures what messages cost. Figures are of this machine at this time; processor time is steadier than speed.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Config {
    #[command(subcommand)]
    what: What,
    /// What keeps the messages
    #[arg(long, default_value = "embedded", global = true)]
    store: StoreKind,
    /// Where the store keeps its tables; disk counts for more than the store's own work
    #[arg(long, default_value = "memory", value_parser = ["memory", "disk"], global = true)]
    tables: String,
    /// Folder of the results
    #[arg(long, default_value = "target/bench", global = true)]
    into: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// That of `make run`, as a process of its own
    Embedded,
    /// Amazon's, a Java program for tests
    DynamodbLocal,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Processor time of gateway and fanout for one delivered message
    Deliver {
        /// Members of the chat
        #[arg(long, default_value_t = 1000)]
        members: usize,
        /// Messages in each run
        #[arg(long, default_value_t = 200)]
        messages: u64,
        /// Messages under way at a time, a run for each
        #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
        in_flight: Vec<u64>,
    },
    /// Time from a send to its acknowledgement and to its arrival, hop by hop
    Latency {
        /// Chats of two people each
        #[arg(long, default_value_t = 50)]
        chats: usize,
        /// Messages a second, in all chats together, at an even pace
        #[arg(long, default_value_t = 500)]
        rate: u32,
        /// Seconds of load
        #[arg(long, default_value_t = 20)]
        seconds: u32,
        /// Seconds before the first message that is measured, in which the rate grows from nothing
        #[arg(long, default_value_t = 20)]
        warm: u32,
        /// Traces that each gateway keeps of a minute: of more messages, a part
        #[arg(long, default_value_t = 300)]
        traces: u32,
    },
    /// Speed of one chat over a slow store
    OneChat {
        /// Senders
        #[arg(long, default_value_t = 10)]
        senders: usize,
        /// Messages that each has under way
        #[arg(long, default_value_t = 8)]
        in_flight: usize,
        /// Time of a transaction, in milliseconds
        #[arg(long, default_value_t = 25)]
        transaction: u64,
        /// Seconds of load
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    match Box::pin(measure(&config)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(config: &Config) -> anyhow::Result<()> {
    let tables = config.tables.as_str();
    let systems = match config.store {
        StoreKind::Embedded => Systems::EmbeddedStore { tables },
        StoreKind::DynamodbLocal => Systems::Real { brokers: 1, tables },
    };
    let own = OwnGround::start_with(systems).await?;
    let (name, result) = match &config.what {
        What::Deliver { members, messages, in_flight } => {
            ("deliver", Box::pin(deliver::run(&own.ground, *members, in_flight, *messages)).await?)
        }
        What::Latency { chats, rate, seconds, warm, traces } => {
            let load = Load { chats: *chats, rate: *rate, seconds: *seconds, warm: *warm, traces: *traces };
            ("latency", Box::pin(latency::run(&own.ground, load)).await?)
        }
        What::OneChat { senders, in_flight, transaction, seconds } => {
            let (delay, during) = (Duration::from_millis(*transaction), Duration::from_secs(*seconds));
            ("one-chat", Box::pin(one_chat::run(&own.ground, *senders, *in_flight, delay, during)).await?)
        }
    };
    let store = config.store.to_possible_value().map(|value| value.get_name().to_owned());
    let all = json!({ "bench": name, "machine": machine(), "store": store, "tables": tables, "result": result });
    std::fs::create_dir_all(&config.into)?;
    let text = serde_json::to_string_pretty(&all)?;
    std::fs::write(config.into.join(format!("{name}.json")), &text)?;
    eprintln!("{text}");
    Ok(())
}

/// What the figures depend on.
fn machine() -> Value {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    json!({ "cores": cores, "load_average": load.split(' ').next(), "optimised": !cfg!(debug_assertions) })
}
