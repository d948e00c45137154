//! Settings of ingest.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser};

/// Settings of the binary; each is a flag and an environment variable.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ingest",
    about = "Makes messages durable and puts them on the log",
    after_help = "After a restore of the tables, before any service: `ingest after-restore --help`."
)]
#[group(skip)]
pub struct Config {
    /// What every process has.
    #[command(flatten)]
    pub platform: platform::Config,
    /// What ingest has.
    #[command(flatten)]
    pub settings: Settings,
}

impl platform::Settings for Config {
    fn platform(&self) -> &platform::Config {
        &self.platform
    }
}

/// `ingest after-restore`: what is done between a restore of the tables and the first service on them (D3.9).
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ingest after-restore",
    bin_name = "ingest after-restore",
    about = "Raises the counter of every chat after its tables were restored, so that no place is given out twice",
    long_about = "Raises the counter of every chat after its tables were restored, so that no place is given out twice.\n\n\
        To be run once all tables are restored to one moment, and before any service runs on them. It may be repeated: \
        a counter is raised once for each name."
)]
pub struct AfterRestore {
    /// Names the restore, for example by the moment that the tables were restored to; another restore, another name
    #[arg(long, env = "RESTORE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub restore: String,

    /// By how many places: more than any chat can have had in the time that was lost
    #[arg(long, env = "RAISE_BY", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1 << 10..=1 << 40))]
    pub raise_by: u64,

    /// The store.
    #[command(flatten)]
    pub store: adapters::dynamodb::Config,
}

impl AfterRestore {
    /// The command of this process, if it was called for that. Ends the process when its flags are wrong.
    pub fn asked() -> Option<Self> {
        let mut words = std::env::args_os().skip(1).peekable();
        words.peek().is_some_and(|word| word == "after-restore").then(|| Self::parse_from(words))
    }
}

/// Settings of the service.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Settings {
    /// Where gateway and chatmgmt call
    #[arg(long, env = "GRPC_LISTEN", default_value = "0.0.0.0:9090")]
    pub grpc_listen: SocketAddr,

    /// File with the token that callers show
    #[arg(long, env = "INTERNAL_TOKEN_FILE")]
    pub internal_token_file: PathBuf,

    /// The store.
    #[command(flatten)]
    pub store: adapters::dynamodb::Config,

    /// The log.
    #[command(flatten)]
    pub log: adapters::kafka::Config,

    /// Sizes and times.
    #[command(flatten)]
    pub limits: Limits,
}

impl Settings {
    /// A service on loopback at any free port, with default limits.
    pub fn on_loopback(
        store: adapters::dynamodb::Config,
        log: adapters::kafka::Config,
        internal_token_file: PathBuf,
    ) -> Self {
        let grpc_listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { grpc_listen, internal_token_file, store, log, limits: Limits::default() }
    }
}

/// Sizes and times.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Limits {
    /// How long a caller of `PersistMessage` waits for its answer
    #[arg(long, env = "PERSIST_DEADLINE", default_value = "5s", value_parser = humantime::parse_duration)]
    pub persist_deadline: Duration,

    /// How long one call to the store may take
    #[arg(long, env = "STORE_TIMEOUT", default_value = "3s", value_parser = humantime::parse_duration)]
    pub store_timeout: Duration,

    /// Batches that may be on their way to the store at a time
    #[arg(long, env = "STORE_CALLS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub store_calls: u32,

    /// Messages of one batch
    #[arg(long, env = "BATCH_MESSAGES", default_value_t = 33, value_parser = clap::value_parser!(u32).range(1..=33))]
    pub batch_messages: u32,

    /// Callers that may wait for one chat before it refuses more
    #[arg(long, env = "CHAT_QUEUE", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub chat_queue: u32,

    /// Callers that may wait for all chats before all refuse more
    #[arg(long, env = "TOTAL_QUEUE", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub total_queue: u32,

    /// Chats whose head is remembered
    #[arg(long, env = "KNOWN_CHATS", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub known_chats: u32,

    /// How long the head of an idle chat is remembered
    #[arg(long, env = "CHAT_IDLE", default_value = "10m", value_parser = humantime::parse_duration)]
    pub chat_idle: Duration,

    /// Tries of a batch that the store refuses for its load
    #[arg(long, env = "COMMIT_TRIES", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub commit_tries: u32,

    /// The first wait before a repetition
    #[arg(long, env = "RETRY_BASE", default_value = "50ms", value_parser = humantime::parse_duration)]
    pub retry_base: Duration,

    /// The longest wait before a repetition
    #[arg(long, env = "RETRY_CAP", default_value = "500ms", value_parser = humantime::parse_duration)]
    pub retry_cap: Duration,

    /// Messages held in memory until the log has confirmed them; the rest is read back from the store
    #[arg(long, env = "PUBLISH_WINDOW", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub publish_window: u32,

    /// Messages read back from the store at a time, for one chat
    #[arg(long, env = "PUBLISH_PAGE", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub publish_page: u32,

    /// Chats that may be behind on the log in memory; others are found again in the store
    #[arg(long, env = "PUBLISH_CHATS", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub publish_chats: u32,

    /// How long a stopping process waits for batches under way and for the log
    #[arg(long, env = "INGEST_DRAIN", default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain: Duration,

    /// How long a lease lasts without renewal
    #[arg(long, env = "LEASE_TTL", default_value = "6s", value_parser = humantime::parse_duration)]
    pub lease_ttl: Duration,

    /// How often a lease is renewed
    #[arg(long, env = "LEASE_RENEWAL", default_value = "2s", value_parser = humantime::parse_duration)]
    pub lease_renewal: Duration,

    /// How often abandoned leases are looked for
    #[arg(long, env = "TAKEOVER_INTERVAL", default_value = "1s", value_parser = humantime::parse_duration)]
    pub takeover_interval: Duration,

    /// How long a taken-over lease is searched again for late batches
    #[arg(long, env = "TAKEOVER_WATCH", default_value = "60s", value_parser = humantime::parse_duration)]
    pub takeover_watch: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            persist_deadline: Duration::from_secs(5),
            store_timeout: Duration::from_secs(3),
            store_calls: 256,
            batch_messages: 33,
            chat_queue: 1_000,
            total_queue: 20_000,
            known_chats: 100_000,
            chat_idle: Duration::from_mins(10),
            commit_tries: 8,
            retry_base: Duration::from_millis(50),
            retry_cap: Duration::from_millis(500),
            publish_window: 10_000,
            publish_page: 100,
            publish_chats: 20_000,
            drain: Duration::from_secs(5),
            lease_ttl: Duration::from_secs(6),
            lease_renewal: Duration::from_secs(2),
            takeover_interval: Duration::from_secs(1),
            takeover_watch: Duration::from_mins(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Config, clap::Error> {
        let needed = [
            "ingest",
            "--internal-token-file=/token",
            "--store-table-prefix=a-",
            "--log-brokers=b:9092",
            "--log-prefix=a.",
        ];
        Config::try_parse_from([&needed[..], more].concat())
    }

    #[test]
    fn the_defaults_in_code_are_those_of_the_command_line() {
        assert_eq!(parse(&[]).expect("valid").settings.limits, Limits::default());
    }

    #[test]
    fn a_batch_has_between_1_and_33_messages() {
        assert!(parse(&["--batch-messages=0"]).is_err());
        assert!(parse(&["--batch-messages=33"]).is_ok());
        assert!(parse(&["--batch-messages=34"]).is_err());
    }
}
