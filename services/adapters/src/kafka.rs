//! The log: settings, and a port a file.

pub mod access;
pub mod admin;
mod create;
pub mod dead_letters;
pub mod iam;
pub mod layout;
pub mod publisher;
pub mod source;

use std::{borrow::Cow, time::Duration};

use clap::Args;
use proto::topics::Topic;
use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError, types::RDKafkaErrorCode};

/// How often the library tells how it is.
const STATISTICS_EVERY: Duration = Duration::from_secs(5);

/// Where the log is, and how records are written to it.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Config {
    /// Bootstrap servers, comma-separated
    #[arg(long, env = "LOG_BROKERS")]
    pub log_brokers: String,

    /// What every topic and consumer group begins with, usually `<namespace>.<cluster>.`
    #[arg(long, env = "LOG_PREFIX")]
    pub log_prefix: String,

    /// How long a record may wait for others of its batch
    #[arg(long, env = "LOG_LINGER", default_value = "1ms", value_parser = humantime::parse_duration)]
    pub log_linger: Duration,

    /// Records the producer holds before it takes no more
    #[arg(long, env = "LOG_QUEUE_RECORDS", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub log_queue_records: u32,

    /// Kilobytes the producer holds before it takes no more
    #[arg(long, env = "LOG_QUEUE_KILOBYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=2_097_151))]
    pub log_queue_kilobytes: u32,

    /// How long a stopping process tries to write what the producer holds
    #[arg(long, env = "LOG_FLUSH_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub log_flush_timeout: Duration,

    /// How long one request to a broker may take
    #[arg(long, env = "LOG_REQUEST_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub log_request_timeout: Duration,

    /// How the brokers are reached.
    #[command(flatten)]
    pub access: access::Access,
}

impl Config {
    /// The log at these brokers, all else as by default.
    pub fn new(log_brokers: impl Into<String>, log_prefix: impl Into<String>) -> Self {
        Self {
            log_brokers: log_brokers.into(),
            log_prefix: log_prefix.into(),
            log_linger: Duration::from_millis(1),
            log_queue_records: 100_000,
            log_queue_kilobytes: 65_536,
            log_flush_timeout: Duration::from_secs(5),
            log_request_timeout: Duration::from_secs(10),
            access: access::Access::default(),
        }
    }

    /// A topic's full name.
    pub fn topic(&self, topic: Topic) -> String {
        self.full_name(topic.name())
    }

    /// What producers, consumers and administrators have in common.
    ///
    /// # Errors
    /// With the name of a setting that can't be used.
    pub fn client(&self) -> anyhow::Result<ClientConfig> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.log_brokers)
            .set("allow.auto.create.topics", "false")
            // A broker that is back is used again within a second (D4.4).
            .set("reconnect.backoff.max.ms", "1000")
            // A topic that is made after the start, or grows, is seen within this time.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("socket.nagle.disable", "true")
            .set("socket.connection.setup.timeout.ms", millis(self.log_request_timeout))
            .set_log_level(RDKafkaLogLevel::Warning);
        self.access.apply(&mut config)?;
        Ok(config)
    }

    /// The full name of what has this name within the cluster: a topic or a consumer group.
    pub(crate) fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.log_prefix)
    }
}

/// A time as the library takes it: whole milliseconds, at least one.
pub(crate) fn millis(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}

/// What the library has to say, as log lines of ours.
pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(event = "log.client_failed", log.facility = facility, "log client: {line}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::debug!(log.facility = facility, "log client: {line}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::trace!(log.facility = facility, "log client: {line}");
        }
    }
}

/// An error of the library that belongs to no record.
pub(crate) fn log_error(error: &KafkaError, reason: &str) {
    let reason: Cow<'_, str> = if reason.is_empty() { error.to_string().into() } else { reason.into() };
    // Each broker and each try says so; once all are away is what somebody has to know.
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
        tracing::warn!(event = "log.unreachable", error.message = %reason, "the log is not reachable");
    } else {
        tracing::debug!("the log is not well: {reason}");
    }
}
