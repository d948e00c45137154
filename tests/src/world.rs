//! A running platform: the built binary in a folder of its own, on free ports, killed and started at will.

pub mod cluster;
pub mod ground;
pub mod service;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::client::{Client, Options};

/// How long a start may take.
const READY_WITHIN: Duration = Duration::from_mins(1);
const CODE_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at something that has no event.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Limits that no test is about.
const RAISED: &[&str] = &[
    "--otp-per-phone=1000",
    "--otp-per-ip=100000",
    "--verify-per-phone=1000",
    "--lookup-per-minute=100000",
    "--lookup-per-hour=100000",
    "--send-rate=100000",
    "--send-burst=100000",
    "--send-per-hour=100000000",
    "--connection-new-per-user=100000",
    "--connection-per-user=100",
    "--connection-per-ip=100000",
    "--connection-attempts-per-ip=1000000",
    "--groups-per-day=100000",
];

/// A platform that belongs to one test. What it started ends with it.
#[derive(Debug)]
pub struct World {
    folder: PathBuf,
    flags: Vec<String>,
    running: Option<Running>,
    front: Front,
    _temporary: tempfile::TempDir,
}

/// A fixed address before the platform, whose own changes with each start: clients come back by themselves.
#[derive(Debug)]
struct Front {
    server: String,
    behind: watch::Sender<Option<String>>,
    task: JoinHandle<()>,
}

impl Front {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = format!("http://{}", listener.local_addr()?);
        let (behind, current) = watch::channel(None);
        #[expect(clippy::disallowed_methods, reason = "the front owns this task and ends it")]
        let task = tokio::spawn(forward(listener, current));
        Ok(Self { server, behind, task })
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes on to whatever is behind at the moment; with nothing there, connections end.
async fn forward(listener: TcpListener, current: watch::Receiver<Option<String>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let behind: Option<String> = current.borrow().clone();
        connections.spawn(async move {
            let Some(address) = behind else { return };
            if let Ok(mut server) = TcpStream::connect(address).await {
                drop(client.set_nodelay(true).and_then(|()| server.set_nodelay(true))); // slower without
                drop(copy_bidirectional(&mut client, &mut server).await); // either side may end it
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

#[derive(Debug)]
struct Running {
    child: Child,
    _out: BufReader<ChildStdout>,
}

impl World {
    /// Starts a platform in a new folder.
    ///
    /// # Errors
    /// When it does not become ready: with the end of its log.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more flags; they win over the limits that are raised for all tests.
    ///
    /// # Errors
    /// See [`World::start`].
    pub async fn start_with(flags: &[&str]) -> anyhow::Result<Self> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path().to_owned();
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let named: Vec<String> = flags.iter().map(|flag| name(flag)).collect();
        let raised = RAISED.iter().filter(|flag| !named.contains(&name(flag)));
        let flags = raised.chain(flags).map(|flag| (*flag).to_owned()).collect();
        let front = Front::start().await?;
        let mut world = Self { folder, flags, running: None, front, _temporary: temporary };
        world.restart().await?;
        Ok(world)
    }

    /// Starts it again on the same folder, after it was killed or stopped.
    ///
    /// # Errors
    /// See [`World::start`].
    pub async fn restart(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut child = self
            .command()?
            .args([
                "--listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--drain-delay",
                "0s",
                "--log",
                "info,librdkafka=off",
            ])
            .args(&self.flags)
            .stdout(Stdio::piped())
            .stderr(self.log_file()?)
            .spawn()
            .context("failed to start the platform")?;
        let mut out = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        let read = timeout(READY_WITHIN, out.read_line(&mut line)).await;
        let Some(server) = line.trim().strip_prefix("ready: http://").filter(|_| matches!(read, Ok(Ok(_)))) else {
            drop(child.kill().await);
            anyhow::bail!("the platform did not become ready; its log ends with:\n{}", self.log_end());
        };
        self.front.behind.send_replace(Some(server.to_owned()));
        self.running = Some(Running { child, _out: out });
        Ok(begun.elapsed())
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("standalone")?);
        command.arg("--data").arg(self.data()).kill_on_drop(true);
        Ok(command)
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log_file(&self) -> anyhow::Result<std::fs::File> {
        Ok(std::fs::File::options().create(true).append(true).open(self.log_path())?)
    }

    /// Where its log goes, over all starts.
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("log.jsonl")
    }

    /// Where this world keeps everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Its public address, the same over all starts.
    pub fn server(&self) -> &str {
        &self.front.server
    }

    /// An address of one of its systems, by its name in `addresses.json`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn address(&self, name: &str) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(self.data().join("addresses.json"))?;
        let addresses: serde_json::Value = serde_json::from_str(&text)?;
        Ok(addresses[name].as_str().context("no such address")?.to_owned())
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref()?.child.id()
    }

    /// Kills it, as a crash does, and waits until it is gone.
    ///
    /// # Errors
    /// When it was not running.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("not running")?;
        self.front.behind.send_replace(None);
        running.child.kill().await.context("not killed")
    }

    /// Asks it to stop, waits, and returns whether it ended well.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub async fn stop(&mut self) -> anyhow::Result<bool> {
        let mut running = self.running.take().context("not running")?;
        let pid = running.child.id().context("it has ended")?;
        // The shell's own: a small machine has no other.
        let asked = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "kill", &pid.to_string()]).status().await?;
        anyhow::ensure!(asked.success(), "not asked");
        let ended = timeout(STOP_WITHIN, running.child.wait()).await.context("it did not stop in time")??;
        Ok(ended.success())
    }

    /// Logs in on a new device, and waits until the connection is ready.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn client(&self, phone: &str) -> anyhow::Result<Client> {
        self.client_with(phone, Options::quick(self.server())).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn client_with(&self, phone: &str, options: Options) -> anyhow::Result<Client> {
        let seen = self.codes(phone).len();
        let client = Client::login(options, phone, || self.code(phone, seen)).await?;
        client.ready(READY_WITHIN).await.with_context(|| self.log_end())?;
        Ok(client)
    }

    /// The code that was sent to a phone after the first `seen`, from the log.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn code(&self, phone: &str, seen: usize) -> anyhow::Result<String> {
        let deadline = Instant::now() + CODE_WITHIN;
        loop {
            if let Some(code) = self.codes(phone).into_iter().nth(seen) {
                return Ok(code);
            }
            anyhow::ensure!(Instant::now() < deadline, "no code in the log:\n{}", self.log_end());
            sleep(LOOK_EVERY).await;
        }
    }

    /// Every code that was sent to a phone.
    pub fn codes(&self, phone: &str) -> Vec<String> {
        codes_in(&std::fs::read_to_string(self.log_path()).unwrap_or_default(), phone)
    }

    /// Resident memory of the process and its children, in kilobytes.
    ///
    /// # Errors
    /// When it is not running.
    pub fn memory_kilobytes(&self) -> anyhow::Result<u64> {
        let pid = self.pid().context("not running")?;
        Ok(family(pid).into_iter().map(resident_kilobytes).sum())
    }
}

/// Every code that was sent to a phone, by this log.
pub(crate) fn codes_in(log: &str, phone: &str) -> Vec<String> {
    let last4 = &phone[phone.len() - 4..];
    let events = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    events
        .filter(|event| event["phone_last4"] == last4)
        .filter_map(|event| Some(event["code"].as_str()?.to_owned()))
        .collect()
}

/// A binary of this workspace, which lies beside the test's own.
///
/// # Errors
/// With the command that builds it, when it is not there.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().find(|folder| folder.join(name).is_file());
    folder.map(|folder| folder.join(name)).with_context(|| format!("{name} is not built: run make build"))
}

/// A process and all that it started.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut place = 0;
    while let Some(parent) = family.get(place).copied() {
        let children = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
            let child: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
            // After the name in brackets: state, parent.
            let found: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            (found == parent).then_some(child)
        });
        let children: Vec<u32> = children.collect();
        family.extend(children);
        place += 1;
    }
    family
}

fn resident_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
