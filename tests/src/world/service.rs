//! One service as a process of its own, as a pod would run it: variables and files in, addresses from its log.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{LOOK_EVERY, binary, resident_kilobytes};

const WITHIN: Duration = Duration::from_mins(1);

/// A process of one of the four services.
#[derive(Debug)]
pub struct Service {
    name: String,
    program: &'static str,
    variables: BTreeMap<String, String>,
    log: PathBuf,
    child: Option<Child>,
    files: Option<u32>,
    started: Instant,
    http: reqwest::Client,
}

impl Service {
    /// Starts it with these variables and no others; it need not become ready.
    ///
    /// # Errors
    /// When it is not built.
    pub fn start(
        program: &'static str,
        name: &str,
        folder: &Path,
        variables: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.jsonl"));
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let mut service = Self {
            name: name.to_owned(),
            program,
            variables: variables.clone(),
            log,
            child: None,
            files: None,
            started: Instant::now(),
            http,
        };
        service.start_again()?;
        Ok(service)
    }

    /// Starts it again with the same variables; its log begins anew.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::create(&self.log)?;
        self.started = Instant::now();
        let program = binary(self.program)?;
        // It is killed when the thread that starts it ends, however it ends: nothing goes on after a run that was killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(files) = self.files {
            command.args(["sh", "-c", "ulimit -n \"$1\"; exec \"$2\"", "sh", &files.to_string()]);
        }
        let child = command
            .arg(program)
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// How many files it may open from the next start on; as many as this process without a number.
    pub fn limit_files(&mut self, files: Option<u32>) {
        self.files = files;
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, variable: &str, value: impl Into<String>) {
        self.variables.insert(variable.to_owned(), value.into());
    }

    /// Takes a variable away from the next start.
    pub fn unset(&mut self, variable: &str) {
        self.variables.remove(variable);
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        let Some(child) = self.child.as_mut() else { return Ok(false) };
        Ok(child.try_wait()?.is_none())
    }

    /// Its name among the others.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has said since its start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The address it listens on for a setting such as `--listen`.
    ///
    /// # Errors
    /// When it does not say one in time: with its log.
    pub async fn address(&self, setting: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let log = self.log();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let found = lines.rfind(|line| line["setting"] == setting);
            if let Some(address) = found.as_ref().and_then(|line| line["address"].as_str()) {
                return Ok(address.to_owned());
            }
            anyhow::ensure!(Instant::now() < deadline, "{} does not listen for {setting}:\n{log}", self.name);
            sleep(LOOK_EVERY).await;
        }
    }

    /// Status and text of one of its admin pages.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn page(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let address = self.address("--admin-listen").await?;
        let answer = self.http.get(format!("http://{address}{path}")).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Waits until it is ready, and returns how long that took since its start.
    ///
    /// # Errors
    /// When it does not become ready in time, or ends: with why, and its log.
    pub async fn ready(&mut self) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let page = self.page("/readyz").await;
            if matches!(page, Ok((200, _))) {
                return Ok(self.started.elapsed());
            }
            let has_ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = has_ended {
                anyhow::bail!("{} ended with {status}:\n{}", self.name, self.log());
            }
            anyhow::ensure!(Instant::now() < deadline, "{} is not ready: {page:?}\n{}", self.name, self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until its readiness page says this.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn unready_with(&self, word: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let page = self.page("/readyz").await;
            if let Ok((503, text)) = &page
                && text.contains(word)
            {
                return Ok(text.clone());
            }
            anyhow::ensure!(Instant::now() < deadline, "{} said {page:?}, not {word}\n{}", self.name, self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for its end, and returns its exit code and what it said.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn ended(&mut self) -> anyhow::Result<(Option<i32>, String)> {
        let child = self.child.as_mut().context("not running")?;
        let status = timeout(WITHIN, child.wait()).await.context("it did not end")??;
        self.child = None;
        Ok((status.code(), self.log()))
    }

    /// Kills it, as a crash does, and waits until it is gone.
    ///
    /// # Errors
    /// When it was not running.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.take().context("not running")?.kill().await.context("not killed")
    }

    /// Sends SIGTERM, as the kubelet does.
    ///
    /// # Errors
    /// When it was not running.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        self.signal("TERM").await
    }

    /// Sends it a signal, by its name without SIG: `STOP` lets it stand still, `CONT` go on.
    ///
    /// # Errors
    /// When it was not running.
    pub async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let pid = self.pid().context("not running")?.to_string();
        // The shell's own: a small machine has no other.
        let script = "kill \"-$1\" \"$2\"";
        let asked = Command::new("sh").args(["-c", script, "kill", signal, &pid]).status().await?;
        anyhow::ensure!(asked.success(), "not asked");
        Ok(())
    }

    /// Whether it stands still, by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        let stat = self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        // After the name in brackets: the state.
        stat.is_some_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Its resident memory, in kilobytes.
    pub fn memory_kilobytes(&self) -> u64 {
        self.pid().map_or(0, resident_kilobytes)
    }
}
