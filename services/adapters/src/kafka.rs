//! The log: settings, and a port a file.

use clap::Args;
use proto::topics::Topic;
use rdkafka::ClientConfig;

/// Where the log is.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Config {
    /// Bootstrap servers, comma-separated
    #[arg(long, env = "LOG_BROKERS")]
    pub log_brokers: String,

    /// What every topic and consumer group begins with, usually `<namespace>.<cluster>.`
    #[arg(long, env = "LOG_PREFIX")]
    pub log_prefix: String,
}

impl Config {
    /// A topic's full name.
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.log_prefix, topic.name())
    }

    /// What producers and consumers have in common.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.log_brokers).set("allow.auto.create.topics", "false");
        config
    }
}
