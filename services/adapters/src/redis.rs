//! The cache: settings, connection, and a port a file.

pub mod auth_limits;
pub mod connection_registry;
pub mod membership_cache;
pub mod revocations;

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use platform::{Process, Secret, dependency};
use redis::{
    ConnectionAddr, IntoConnectionInfo as _, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

/// Where the cache is.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Config {
    /// URL of the Redis primary: `redis://host:6379`, or `rediss://host:6379` for TLS
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// What every key begins with, usually `<namespace>.<cluster>.`
    #[arg(long, env = "REDIS_PREFIX", default_value = "")]
    pub redis_prefix: String,

    /// File with the user; without it the one of --redis-url
    #[arg(long, env = "REDIS_USER_FILE")]
    pub redis_user_file: Option<PathBuf>,

    /// File with the password; without it the one of --redis-url
    #[arg(long, env = "REDIS_PASSWORD_FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// PEM file of the authorities that may sign the server's certificate; without it those of the machine
    #[arg(long, env = "REDIS_TLS_CA_FILE")]
    pub redis_tls_ca_file: Option<PathBuf>,
}

impl Config {
    /// The cache at this URL, which holds all that is needed to reach it.
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            redis_url: Secret::new(url),
            redis_prefix: prefix.into(),
            redis_user_file: None,
            redis_password_file: None,
            redis_tls_ca_file: None,
        }
    }

    fn client(&self) -> anyhow::Result<redis::Client> {
        let url = self.redis_url.expose();
        let address = url.into_connection_info().context("--redis-url is not a Redis URL")?;
        let mut login = address.redis_settings().clone();
        if let Some(file) = &self.redis_user_file {
            login = login.set_username(Secret::from_file(file).context("--redis-user-file is of no use")?.expose());
        }
        if let Some(file) = &self.redis_password_file {
            login = login.set_password(Secret::from_file(file).context("--redis-password-file is of no use")?.expose());
        }
        let is_encrypted = matches!(address.addr(), ConnectionAddr::TcpTls { .. });
        let address = address.set_redis_settings(login);
        let client = match &self.redis_tls_ca_file {
            None => redis::Client::open(address),
            Some(file) => {
                anyhow::ensure!(is_encrypted, "--redis-tls-ca-file is set, but --redis-url is not rediss://");
                let authorities = Secret::from_file(file).context("--redis-tls-ca-file is of no use")?;
                let root_cert = Some(authorities.expose().as_bytes().to_vec());
                redis::Client::build_with_tls(address, TlsCertificates { client_tls: None, root_cert })
            }
        };
        client.context("the settings of Redis don't fit together")
    }
}

/// The cache of one cluster.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    config: Config,
    live: RwLock<ConnectionManager>,
}

impl Cache {
    /// Makes a client; it connects when it is first used, and again whenever the connection was lost.
    ///
    /// # Errors
    /// With the name of a setting that is wrong or names a file that can't be read.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let live = RwLock::new(manager(config)?);
        Ok(Self(Arc::new(Inner { config: config.clone(), live })))
    }

    /// The connection, for one call: all calls share it, and it comes back by itself.
    pub fn connection(&self) -> ConnectionManager {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process is ready only while the cache answers.
    pub fn needed_by(&self, process: &Process) {
        let cache = self.clone();
        dependency::watch(process, "cache", move || {
            let cache = cache.clone();
            async move { cache.look().await }
        });
    }

    async fn look(&self) -> anyhow::Result<()> {
        let Err(error) = redis::cmd("PING").query_async::<()>(&mut self.connection()).await else { return Ok(()) };
        if !error.is_io_error() && !error.is_timeout() {
            // A server that refused the login, or was still loading, is never asked again by the library.
            // The files may hold other credentials by now.
            *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = manager(&self.0.config)?;
        }
        Err(error.into())
    }

    /// A key's full name.
    pub fn key(&self, rest: std::fmt::Arguments<'_>) -> String {
        format!("{}{rest}", self.0.config.redis_prefix)
    }
}

fn manager(config: &Config) -> anyhow::Result<ConnectionManager> {
    let settings = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(Duration::from_secs(2)))
        .set_max_delay(Duration::from_secs(1));
    ConnectionManager::new_lazy_with_config(config.client()?, settings)
        .context("the settings of Redis don't fit together")
}
