//! The cache: a real `redis-server`, a child that ends with this process even when that is killed.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep},
};

/// Runs the server and holds a pipe from this process. The pipe ends with this process, however that
/// ends, and then the server is killed.
const GUARD: &str = r#""$@" & server=$!; cat > /dev/null; kill -9 $server; wait $server"#;

const READY_WITHIN: Duration = Duration::from_secs(10);

/// A running cache. It ends when it is dropped, and with this process.
#[derive(Debug)]
pub struct Cache {
    /// What a Redis client takes as its URL.
    pub url: String,
    /// Where it listens.
    pub address: SocketAddr,
    _guard: Child,
    _pipe: ChildStdin,
}

impl Cache {
    /// Starts a cache with no persistence, `noeviction`, on a free port of loopback.
    ///
    /// # Errors
    /// In one line, when there is no `redis-server` or it does not answer.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_program("redis-server").await
    }

    /// The same with that program.
    ///
    /// # Errors
    /// As [`Cache::start`].
    pub async fn start_program(program: &str) -> anyhow::Result<Self> {
        require(program).await?;
        let mut last = None;
        // Another process may take the port between our look and the server's start.
        for _ in 0..3 {
            match Self::start_once(program).await {
                Ok(cache) => return Ok(cache),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("{program} did not start")))
    }

    async fn start_once(program: &str) -> anyhow::Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to find a free port")?;
        let address = free.local_addr().context("failed to find a free port")?;
        drop(free);
        let port = address.port().to_string();
        let settings = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let memory = ["--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning"];
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard", program])
            .args(settings)
            .args(memory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal is for us; the server ends when we do.
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {program}"))?;
        let pipe = guard.stdin.take().context("the guard has no pipe")?;
        let cache = Self { url: format!("redis://{address}/"), address, _guard: guard, _pipe: pipe };
        let deadline = Instant::now() + READY_WITHIN;
        while !answers(address).await {
            anyhow::ensure!(Instant::now() < deadline, "{program} did not answer on {address} within {READY_WITHIN:?}");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(cache)
    }
}

/// Says in one line when the program is not there.
async fn require(program: &str) -> anyhow::Result<()> {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    match found {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => anyhow::bail!("{program} --version ended with {status}"),
        Err(error) if error.kind() == ErrorKind::NotFound => anyhow::bail!(
            "{program} is not installed (Debian and Ubuntu: apt-get install redis-server; macOS: brew install redis)"
        ),
        Err(error) => Err(error).with_context(|| format!("failed to run {program}")),
    }
}

async fn answers(address: SocketAddr) -> bool {
    let ping = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).await?;
        std::io::Result::Ok(reply == *b"+PONG\r\n")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ping).await, Ok(Ok(true)))
}
