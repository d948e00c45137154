//! The systems under the services: Apache Kafka, DynamoDB Local and Redis, started by the scripts of `tests/ground`, or
//! the embedded ones in their place.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context as _;
use tokio::{process::Command, sync::OnceCell};

use super::service::Service;

/// Where the systems listen, each as `host:port`.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Kafka without authentication.
    pub kafka: String,
    /// The same Kafka for those who show who they are; the embedded log is for everybody.
    pub secured: Option<SecuredKafka>,
    /// Whether the log has the topics of its one cluster already.
    pub has_topics: bool,
    /// DynamoDB Local, or the embedded store.
    pub store: String,
    /// Redis without authentication.
    pub redis: String,
}

/// Listeners of a Kafka that want to know who comes, each as `host:port`.
#[derive(Clone, Debug)]
pub struct SecuredKafka {
    /// For user `app` with the password `app-secret`, by SCRAM-SHA-512.
    pub scram: String,
    /// For who has a certificate of its authority.
    pub tls: String,
    /// Folder with `ca.crt`, `client.crt` and `client.key` for that.
    pub certificates: PathBuf,
}

/// What serves the store and the log; Redis is itself in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Systems<'a> {
    /// Apache Kafka with one or three brokers, and DynamoDB Local with its tables on `disk` or in `memory`.
    Real {
        /// One or three.
        brokers: u8,
        /// `disk` or `memory`.
        tables: &'a str,
    },
    /// One broker of Apache Kafka, and the embedded store.
    EmbeddedStore {
        /// `disk` or `memory`.
        tables: &'a str,
    },
    /// The embedded store in memory, and the embedded log with the topics of the cluster of that name.
    Embedded {
        /// As [`Plan::new`](super::cluster::Plan::new) has it.
        cluster: &'a str,
    },
}

/// What the topics of a cluster begin with.
pub(super) fn log_prefix(cluster: &str) -> String {
    format!("test.{cluster}.")
}

/// A system that a test may kill and start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// The log.
    Kafka,
    /// The store.
    DynamoDb,
    /// The cache.
    Redis,
}

/// Folder of systems, which end when it is dropped. A killed process leaves that to the systems' guard, which needs the
/// folder to know them.
#[derive(Debug)]
struct State(PathBuf);

impl State {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("ground.").tempdir()?.keep()))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let parts = [("kafka", "kafka.sh"), ("dynamodb", "dynamodb-local.sh"), ("redis", "redis.sh")];
        let ending = parts.into_iter().filter(|(part, _)| self.0.join(part).exists()).map(|(_, name)| {
            let mut command = std::process::Command::new(script(name));
            command.arg("down").env("GROUND_STATE", &self.0).stdin(Stdio::null()).stdout(Stdio::null());
            (name, command.stderr(Stdio::null()).spawn())
        });
        for (name, child) in ending.collect::<Vec<_>>() {
            match child.and_then(|mut child| child.wait()) {
                Ok(status) if status.success() => {}
                other => tracing::warn!("{name} down: {other:?}"),
            }
        }
    }
}

/// Systems of one test alone, which keep their data when they are killed.
#[derive(Debug)]
pub struct OwnGround {
    /// Where they listen, the same after each start.
    pub ground: Ground,
    state: State,
    _embedded: Option<Embedded>,
}

impl OwnGround {
    /// Starts real ones; they end when this is dropped, or with this process.
    ///
    /// # Errors
    /// With what a script said.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Systems::Real { brokers: 1, tables: "disk" }).await
    }

    /// The same with these.
    ///
    /// # Errors
    /// With what a script said, or the log of the embedded ones.
    pub async fn start_with(systems: Systems<'_>) -> anyhow::Result<Self> {
        let state = State::new()?;
        let (ground, embedded) = match systems {
            Systems::Real { brokers, tables } => (Ground::start(tables, brokers, state.path()).await?, None),
            Systems::EmbeddedStore { tables } => {
                let (embedded, kafka, redis) = tokio::try_join!(
                    Embedded::start(None, tables),
                    start_kafka(1, state.path()),
                    start_redis(state.path()),
                )?;
                let ((kafka, secured), store) = (kafka, embedded.store.clone());
                (Ground { kafka, secured: Some(secured), has_topics: false, store, redis }, Some(embedded))
            }
            Systems::Embedded { cluster } => {
                let prefix = log_prefix(cluster);
                let (embedded, redis) =
                    tokio::try_join!(Embedded::start(Some(&prefix), "memory"), start_redis(state.path()))?;
                let (kafka, store) = (embedded.log.clone().context("there is no log")?, embedded.store.clone());
                (Ground { kafka, secured: None, has_topics: true, store, redis }, Some(embedded))
            }
        };
        Ok(Self { ground, state, _embedded: embedded })
    }

    /// Kills a broker, by its number from 1.
    ///
    /// # Errors
    /// With what its script said.
    pub async fn kill_broker(&self, number: u8) -> anyhow::Result<()> {
        run("kafka.sh", &["kill", &number.to_string()], self.state.path()).await.map(drop)
    }

    /// Starts a killed broker again.
    ///
    /// # Errors
    /// With what its script said.
    pub async fn start_broker(&self, number: u8) -> anyhow::Result<()> {
        run("kafka.sh", &["start", &number.to_string()], self.state.path()).await.map(drop)
    }

    /// Kills a system, as a crash does.
    ///
    /// # Errors
    /// With what its script said.
    pub async fn kill(&self, system: System) -> anyhow::Result<()> {
        self.tell(system, "kill").await
    }

    /// Starts a killed one again.
    ///
    /// # Errors
    /// With what its script said.
    pub async fn start_again(&self, system: System) -> anyhow::Result<()> {
        self.tell(system, "start").await
    }

    async fn tell(&self, system: System, what: &str) -> anyhow::Result<()> {
        let arguments: (&str, &[&str]) = match system {
            System::Kafka => ("kafka.sh", &[what, "1"]),
            System::DynamoDb => ("dynamodb-local.sh", &[what]),
            System::Redis => ("redis.sh", &[what]),
        };
        run(arguments.0, arguments.1, self.state.path()).await?;
        Ok(())
    }
}

static SHARED: OnceCell<Ground> = OnceCell::const_new();

impl Ground {
    /// The systems that all tests of this process share; each uses names of its own. They end with the process.
    ///
    /// # Errors
    /// With what a script said.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        let start = || async {
            // The systems' guard removes it when this process has ended.
            let state = tempfile::Builder::new().prefix("ground.").tempdir()?.keep();
            Self::start("memory", 1, &state).await
        };
        SHARED.get_or_try_init(start).await
    }

    async fn start(tables: &str, brokers: u8, state: &Path) -> anyhow::Result<Self> {
        let store = ["up", tables];
        let (kafka, store, redis) = tokio::try_join!(
            start_kafka(brokers, state),
            run("dynamodb-local.sh", &store, state),
            start_redis(state),
        )?;
        let ((kafka, secured), store) = (kafka, last(store)?);
        Ok(Self { kafka, secured: Some(secured), has_topics: false, store, redis })
    }
}

async fn start_kafka(brokers: u8, state: &Path) -> anyhow::Result<(String, SecuredKafka)> {
    let printed = run("kafka.sh", &["up", &brokers.to_string(), "--scram", "--tls"], state).await?;
    let [tls, scram, plain] = printed.as_slice() else { anyhow::bail!("kafka.sh printed {printed:?}") };
    let certificates = state.join("kafka/tls");
    Ok((plain.clone(), SecuredKafka { scram: scram.clone(), tls: tls.clone(), certificates }))
}

async fn start_redis(state: &Path) -> anyhow::Result<String> {
    last(run("redis.sh", &["up", "plain"], state).await?)
}

/// The process of the embedded store and, with topics, of the embedded log.
#[derive(Debug)]
struct Embedded {
    store: String,
    log: Option<String>,
    _service: Service,
    _folder: tempfile::TempDir,
}

impl Embedded {
    async fn start(log_prefix: Option<&str>, tables: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut variables = BTreeMap::from([("LOG_FORMAT".to_owned(), "json".to_owned())]);
        if let Some(prefix) = log_prefix {
            variables.insert("LOG_PREFIX".to_owned(), prefix.to_owned());
        }
        if tables == "disk" {
            variables.insert("DATA".to_owned(), folder.path().join("data").display().to_string());
        }
        let mut service = Service::start("systems", "systems", folder.path(), &variables)?;
        service.ready().await?;
        let store = service.address("the embedded store").await?;
        let log = match log_prefix {
            Some(_) => Some(service.address("the embedded log").await?),
            None => None,
        };
        Ok(Self { store, log, _service: service, _folder: folder })
    }
}

/// A Redis besides that of the systems, without authentication.
#[derive(Debug)]
pub struct PlainRedis {
    /// `host:port`.
    pub address: String,
    _state: State,
}

impl PlainRedis {
    /// Starts one; it ends when this is dropped, or with this process.
    ///
    /// # Errors
    /// With what the script said.
    pub async fn start() -> anyhow::Result<Self> {
        let state = State::new()?;
        Ok(Self { address: start_redis(state.path()).await?, _state: state })
    }
}

/// A Redis that only speaks TLS, and only with user `app` and the password `app-secret`.
#[derive(Debug)]
pub struct SecureRedis {
    /// `host:port`.
    pub address: String,
    /// Its authority, in PEM.
    pub authority: PathBuf,
    _state: State,
}

impl SecureRedis {
    /// Starts one; it ends when this is dropped, or with this process.
    ///
    /// # Errors
    /// With what the script said.
    pub async fn start() -> anyhow::Result<Self> {
        let state = State::new()?;
        let address = last(run("redis.sh", &["up", "secure"], state.path()).await?)?;
        Ok(Self { address, authority: state.path().join("redis/tls/ca.crt"), _state: state })
    }
}

/// A script of `tests/ground`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ground").join(name)
}

/// Runs a script to its end, and returns the lines that it printed.
async fn run(name: &str, arguments: &[&str], state: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new(script(name));
    command.args(arguments).env("GROUND_OWNER", std::process::id().to_string()).env("GROUND_STATE", state);
    let output = command.stdin(Stdio::null()).output().await.with_context(|| format!("failed to run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name} {arguments:?} failed: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn last(lines: Vec<String>) -> anyhow::Result<String> {
    lines.into_iter().next_back().context("a script said nothing")
}
