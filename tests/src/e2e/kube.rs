//! kubectl and helm as child processes, and waits for what they tell.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    process::Command,
    time::{Instant, sleep, timeout},
};

/// No command takes longer, unless it says so itself.
const COMMAND_WITHIN: Duration = Duration::from_mins(3);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The scripts of tests/ground, which know the cluster.
#[derive(Clone, Debug)]
pub(super) struct Kube {
    ground: PathBuf,
}

impl Kube {
    pub(super) fn new(ground: &Path) -> Self {
        Self { ground: ground.to_owned() }
    }

    /// A script of tests/ground, to be started; it ends with whoever holds it.
    pub(super) fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.ground.join(script));
        command.kill_on_drop(true);
        command
    }

    /// Runs a script of tests/ground, and returns what it printed.
    pub(super) async fn script(&self, script: &str, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let mut command = self.command(script);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{script} can't be started"))?;
        let mut stdin = child.stdin.take().context("no input")?;
        stdin.write_all(input.unwrap_or_default().as_bytes()).await?;
        drop(stdin);
        let line = || format!("{script} {}", arguments.join(" "));
        let output = timeout(COMMAND_WITHIN, child.wait_with_output()).await.with_context(line)??;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}: {}", line(), error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.script("kubectl.sh", arguments, None).await
    }

    pub(super) async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.script("helm.sh", arguments, None).await
    }

    /// One object or a list, as JSON.
    pub(super) async fn get(&self, namespace: &str, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut line = vec!["-n", namespace, "get", "-o", "json"];
        line.extend(arguments);
        Ok(serde_json::from_str(&self.kubectl(&line).await?)?)
    }

    /// What an address of the API server answers.
    pub(super) async fn raw(&self, path: &str) -> anyhow::Result<String> {
        self.kubectl(&["get", "--raw", path]).await
    }

    pub(super) async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        let text = object.to_string();
        self.script("kubectl.sh", &["apply", "-f", "-"], Some(&text)).await.map(drop)
    }

    /// Makes a namespace with the strictest rules for pods.
    pub(super) async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let labels = serde_json::json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let metadata = serde_json::json!({"name": name, "labels": labels});
        self.apply(&serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})).await
    }
}

/// Looks until something is there; an error is looked at again, and told when the time is up.
pub(super) async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let seen = look().await;
        if let Ok(Some(found)) = seen {
            return Ok(found);
        }
        if Instant::now() > deadline {
            let why = seen.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            anyhow::bail!("{what}: not within {within:?}{why}");
        }
        sleep(LOOK_EVERY).await;
    }
}
