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
use tokio::time::timeout;

/// How long a look may take: less than who watches waits, so that a look that fails has its consequence.
const LOOK_WITHIN: Duration = Duration::from_millis(1_500);
/// How long the key lives that a look writes.
const PROBE_LIVES_MILLISECONDS: u64 = 10_000;

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

    /// Writes something that nobody reads, for a primary that has become a replica still answers all else.
    async fn look(&self) -> anyhow::Result<()> {
        let mut write = redis::cmd("SET");
        write.arg(self.key(format_args!("probe"))).arg("").arg("PX").arg(PROBE_LIVES_MILLISECONDS);
        let error = match timeout(LOOK_WITHIN, write.query_async::<()>(&mut self.connection())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.into(),
            Err(_) => anyhow::anyhow!("no answer within {LOOK_WITHIN:?}"),
        };
        // The library goes on with a connection to who refuses the login, is still loading, has become a replica, or is
        // gone without a word. A new one reads the files again and asks for the address anew.
        *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = manager(&self.0.config)?;
        Err(error)
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::copy_bidirectional,
        net::{TcpListener, TcpStream},
        sync::watch,
        time::{Instant, sleep},
    };

    use super::*;

    /// What becomes of the primary.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        /// It is there, as a replica.
        Demoted,
        /// It is gone, and says nothing: connections to it are open and silent.
        Vanished,
    }

    /// Leads each connection to where `to` points when it comes, and all earlier ones nowhere once `is_cut`.
    async fn lead(listener: TcpListener, to: watch::Receiver<SocketAddr>, is_cut: watch::Receiver<bool>, of: Process) {
        loop {
            let (mut client, _) = listener.accept().await.expect("a client");
            let (target, mut is_cut) = (*to.borrow(), is_cut.clone());
            is_cut.mark_unchanged();
            drop(of.spawn_child(async move {
                let mut server = TcpStream::connect(target).await.expect("a server");
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    cut = is_cut.changed() => {
                        cut.expect("the test goes on");
                        std::future::pending::<()>().await;
                    }
                }
            }));
        }
    }

    async fn a_new_primary_is_found_after(fate: Fate) {
        let process = Process::new();
        let (old, new) =
            (embedded::Cache::start().await.expect("a server"), embedded::Cache::start().await.expect("a server"));
        let (listener, address) = process.bind("redis", ([127, 0, 0, 1], 0).into()).await.expect("loopback");
        let (to, leads_to) = watch::channel(old.address);
        let (cut, is_cut) = watch::channel(false);
        drop(process.spawn_child(lead(listener, leads_to, is_cut, process.clone())));
        let cache = Cache::new(&Config::new(format!("redis://{address}/"), "ns.")).expect("a cache");
        cache.needed_by(&process);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !process.not_ready().is_empty() {
            assert!(Instant::now() < deadline, "not ready");
            sleep(Duration::from_millis(10)).await;
        }
        to.send_replace(new.address);
        match fate {
            Fate::Demoted => {
                let mut command = redis::cmd("REPLICAOF");
                command.arg("127.0.0.1").arg(1);
                command.query_async::<()>(&mut cache.connection()).await.expect("demoted");
            }
            Fate::Vanished => drop(cut.send_replace(true)),
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while redis::cmd("SET").arg("ns.mark").arg(1).query_async::<()>(&mut cache.connection()).await.is_err() {
            assert!(Instant::now() < deadline, "the old one is still asked");
            sleep(Duration::from_millis(50)).await;
        }
        let mut direct =
            redis::Client::open(&*new.url).expect("a URL").get_multiplexed_async_connection().await.expect("it");
        let found: Option<u8> = redis::cmd("GET").arg("ns.mark").query_async(&mut direct).await.expect("an answer");
        assert_eq!(found, Some(1));
        process.stop_token().cancel();
    }

    #[tokio::test]
    async fn a_primary_that_becomes_a_replica_is_left() {
        a_new_primary_is_found_after(Fate::Demoted).await;
    }

    #[tokio::test]
    async fn a_primary_that_vanishes_is_left() {
        a_new_primary_is_found_after(Fate::Vanished).await;
    }
}
