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
    /// DynamoDB Local.
    pub store: String,
    /// Redis without authentication.
    pub redis: String,
}

static SHARED: OnceCell<Ground> = OnceCell::const_new();

impl Ground {
    /// The systems that all tests of this process share; each uses names of its own. They end with the process.
    ///
    /// # Errors
    /// With what a script said.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        SHARED.get_or_try_init(Self::start).await
    }

    async fn start() -> anyhow::Result<Self> {
        let (kafka, store, redis) = tokio::try_join!(
            up("kafka.sh", &["1", "--scram"], None),
            up("dynamodb-local.sh", &["memory"], None),
            up("redis.sh", &["plain"], None),
        )?;
        let [kafka_scram, kafka] = kafka.as_slice() else { anyhow::bail!("kafka.sh printed {kafka:?}") };
        Ok(Self { kafka: kafka.clone(), kafka_scram: kafka_scram.clone(), store: last(store)?, redis: last(redis)? })
    }
}

/// A Redis that only speaks TLS, and only with user `app` and the password `app-secret`.
#[derive(Debug)]
pub struct SecureRedis {
    /// `host:port`.
    pub address: String,
    /// Its authority, in PEM.
    pub authority: PathBuf,
    _state: tempfile::TempDir,
}

impl SecureRedis {
    /// Starts one; it ends with this process.
    ///
    /// # Errors
    /// With what the script said.
    pub async fn start() -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let address = last(up("redis.sh", &["secure"], Some(state.path())).await?)?;
        Ok(Self { address, authority: state.path().join("redis/tls/ca.crt"), _state: state })
    }
}

/// A script of `tests/ground`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ground").join(name)
}

/// Starts a system, and returns the lines that its script printed.
async fn up(name: &str, more: &[&str], state: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new(script(name));
    command.arg("up").args(more).env("GROUND_OWNER", std::process::id().to_string()).stdin(Stdio::null());
    if let Some(state) = state {
        command.env("GROUND_STATE", state);
    }
    let output = command.output().await.with_context(|| format!("failed to run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name} did not start: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn last(lines: Vec<String>) -> anyhow::Result<String> {
    lines.into_iter().next_back().context("a script said nothing")
}
