//! Settings of fanout.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser};

/// Settings of the binary.
#[derive(Clone, Debug, Parser)]
#[command(name = "fanout", about = "Brings events to the gateways of everybody they concern")]
pub struct Config {
    /// What every process has.
    #[command(flatten)]
    pub platform: platform::Config,

    /// What fanout has.
    #[command(flatten)]
    pub settings: Settings,
}

impl platform::Settings for Config {
    fn platform(&self) -> &platform::Config {
        &self.platform
    }
}

/// Settings of this service.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Settings {
    /// Where the events come from.
    #[command(flatten)]
    pub log: adapters::kafka::Config,

    /// How they are read.
    #[command(flatten)]
    pub source: adapters::kafka::source::Settings,

    /// Where the registry of connections and the members of chats are.
    #[command(flatten)]
    pub redis: adapters::redis::Config,

    /// Where messages and memberships are.
    #[command(flatten)]
    pub store: adapters::dynamodb::Config,

    /// File with the token that services show each other
    #[arg(long, env = "INTERNAL_TOKEN_FILE")]
    pub internal_token_file: PathBuf,

    /// Queues, limits and timeouts.
    #[command(flatten)]
    pub limits: Limits,
}

impl Settings {
    /// The settings of a fanout in a process with others, with the default limits; `auth_dir` holds `internal-token`.
    pub fn on_loopback(
        store: adapters::dynamodb::Config,
        log: adapters::kafka::Config,
        redis: adapters::redis::Config,
        auth_dir: impl AsRef<Path>,
    ) -> Self {
        let source = adapters::kafka::source::Settings {
            // The embedded log does not wake a waiting fetch when a record comes.
            log_fetch_wait: Duration::from_millis(5),
            // There is one member: when it was killed, the next must not wait long for it.
            log_session_timeout: Duration::from_secs(6),
            ..Default::default()
        };
        let internal_token_file = auth_dir.as_ref().join("internal-token");
        Self { log, source, redis, store, internal_token_file, limits: Limits::default() }
    }
}

/// Queues, limits and timeouts of fanout.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Limits {
    /// Records that wait or are being attempted before partitions are paused
    #[arg(long, env = "WAITING_RECORDS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub waiting_records: u32,

    /// Records of one partition that are attempted together
    #[arg(long, env = "ATTEMPT_RECORDS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub attempt_records: u32,

    /// Attempts at a record that fails by a fault, before it is a dead letter
    #[arg(long, env = "RECORD_ATTEMPTS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub record_attempts: u32,

    /// The longest wait before a paused partition is tried again
    #[arg(long, env = "RETRY_CAP", default_value = "1s", value_parser = humantime::parse_duration)]
    pub retry_cap: Duration,

    /// Chats of one partition whose last sequence is remembered
    #[arg(long, env = "REMEMBERED_CHATS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub remembered_chats: u32,

    /// Event ids of one partition that are remembered
    #[arg(long, env = "REMEMBERED_EVENTS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub remembered_events: u32,

    /// How long fetching what the log skipped may take; a hole that the store has too is watched for two seconds of it
    #[arg(long, env = "HOLE_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub hole_timeout: Duration,

    /// Messages of one hole that are fetched; the rest is left to the clients' sync
    #[arg(long, env = "HOLE_MESSAGES", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub hole_messages: u32,

    /// How long the members of a chat are remembered
    #[arg(long, env = "MEMBERSHIP_TTL", default_value = "300s", value_parser = humantime::parse_duration)]
    pub membership_ttl: Duration,

    /// How long one look-up in the store or the cache may take
    #[arg(long, env = "LOOK_UP_TIMEOUT", default_value = "2s", value_parser = humantime::parse_duration)]
    pub look_up_timeout: Duration,

    /// Look-ups in the store at a time
    #[arg(long, env = "LOOK_UPS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub look_ups: u32,

    /// How long a gateway may take to answer a frame, or to be connected to
    #[arg(long, env = "DELIVERY_TIMEOUT", default_value = "1s", value_parser = humantime::parse_duration)]
    pub delivery_timeout: Duration,

    /// Unanswered frames of one gateway; as many wait
    #[arg(long, env = "DELIVERY_IN_FLIGHT", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub delivery_in_flight: u32,

    /// Users of one gateway that are remembered as owed a frame
    #[arg(long, env = "OWED_USERS", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub owed_users: u32,

    /// How long a silent gateway is remembered
    #[arg(long, env = "GATEWAY_IDLE", default_value = "120s", value_parser = humantime::parse_duration)]
    pub gateway_idle: Duration,

    /// How long a stopping or revoked consumer finishes what it has begun
    #[arg(long, env = "FINISH_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub finish_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_records: 1_000,
            attempt_records: 500,
            record_attempts: 3,
            retry_cap: Duration::from_secs(1),
            remembered_chats: 10_000,
            remembered_events: 1_000,
            hole_timeout: Duration::from_secs(5),
            hole_messages: 1_000,
            membership_ttl: Duration::from_mins(5),
            look_up_timeout: Duration::from_secs(2),
            look_ups: 32,
            delivery_timeout: Duration::from_secs(1),
            delivery_in_flight: 1_024,
            owed_users: 100_000,
            gateway_idle: Duration::from_mins(2),
            finish_timeout: Duration::from_secs(5),
        }
    }
}
