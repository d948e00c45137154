//! The cache: settings, connection, and a port a file.

pub mod auth_limits;
pub mod connection_registry;
pub mod membership_cache;
pub mod revocations;

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use platform::Secret;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

/// Where the cache is.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Config {
    /// URL of the Redis primary
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// What every key begins with, usually `<namespace>.<cluster>.`
    #[arg(long, env = "REDIS_PREFIX", default_value = "")]
    pub redis_prefix: String,
}

/// The cache of one cluster.
#[derive(Clone)]
pub struct Cache {
    /// One multiplexed connection that comes back by itself; clone it for each call.
    pub connection: ConnectionManager,
    prefix: String,
}

impl Cache {
    /// Connects.
    ///
    /// # Errors
    /// When the URL is wrong or nobody answers.
    pub async fn connect(config: &Config) -> anyhow::Result<Self> {
        let client = redis::Client::open(config.redis_url.expose()).context("--redis-url is not a Redis URL")?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(2)))
            .set_max_delay(Duration::from_secs(1));
        let connection =
            client.get_connection_manager_with_config(settings).await.context("failed to connect to --redis-url")?;
        Ok(Self { connection, prefix: config.redis_prefix.clone() })
    }

    /// A key's full name.
    pub fn key(&self, rest: std::fmt::Arguments<'_>) -> String {
        format!("{}{rest}", self.prefix)
    }
}
