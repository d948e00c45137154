//! The real systems under the services: Apache Kafka, DynamoDB Local and Redis, started by the scripts of `tests/ground`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context as _;
use tokio::{process::Command, sync::OnceCell};

/// Where the systems listen, each as `host:port`.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Kafka without authentication.
    pub kafka: String,
    /// The same Kafka for user `app` with the password `app-secret`, by SCRAM-SHA-512.
    pub kafka_scram: String,
    /// The same Kafka for who has a certificate of its authority.
    pub kafka_tls: String,
    /// Folder with `ca.crt`, `client.crt` and `client.key` for that.
    pub kafka_certificates: PathBuf,
    /// DynamoDB Local.
    pub store: String,
    /// Redis without authentication.
    pub redis: String,
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
}

impl OwnGround {
    /// Starts them; they end when this is dropped, or with this process.
    ///
    /// # Errors
    /// With what a script said.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(1, "disk").await
    }

    /// The same with one or three brokers, and tables on `disk` or in `memory`.
    ///
    /// # Errors
    /// With what a script said.
    pub async fn start_with(brokers: u8, tables: &str) -> anyhow::Result<Self> {
        let state = State::new()?;
        let ground = Ground::start(tables, brokers, state.path()).await?;
        Ok(Self { ground, state })
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
        let brokers = brokers.to_string();
        let kafka = ["up", &brokers, "--scram", "--tls"];
        let store = ["up", tables];
        let (kafka, store, redis) = tokio::try_join!(
            run("kafka.sh", &kafka, state),
            run("dynamodb-local.sh", &store, state),
            run("redis.sh", &["up", "plain"], state),
        )?;
        let [kafka_tls, kafka_scram, kafka] = kafka.as_slice() else { anyhow::bail!("kafka.sh printed {kafka:?}") };
        Ok(Self {
            kafka: kafka.clone(),
            kafka_scram: kafka_scram.clone(),
            kafka_tls: kafka_tls.clone(),
            kafka_certificates: state.join("kafka/tls"),
            store: last(store)?,
            redis: last(redis)?,
        })
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
