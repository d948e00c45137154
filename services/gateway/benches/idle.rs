//! What an idle, authenticated WebSocket costs: resident bytes of the gateway process for each, as JSON.
//!
//! Starts the built gateway on a Redis of its own, opens sockets on loopback in steps, lets each send one heartbeat, and
//! reads the process' resident memory. Ends by itself. The result is printed and kept in `target/bench/idle.json`.

#![expect(clippy::print_stdout, reason = "the result is for whoever runs it")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    Clock as _, Ids as _,
    ids::{SessionId, UserId},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use platform::{
    clock::{SystemClock, SystemIds},
    tokens::{AUDIENCE, Claims, ISSUER},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// Sockets at which the memory is read; one process may have 20,000 files open.
const STEPS: [usize; 3] = [2_000, 5_000, 8_000];
const AT_ONCE: usize = 64;
const WITHIN: Duration = Duration::from_secs(30);
/// How long the process may have to come to rest before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);
const DEVICE: &str = "e77ffe48-d0a6-4c17-9556-585ea997f351";
/// A masked text frame with a mask of zeros.
const HEARTBEAT: &[u8] = b"\x81\xb2\0\0\0\0{\"type\":\"heartbeat\",\"request_id\":\"b\",\"payload\":{}}";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let key = folder.keys()?;
    let cache = embedded::Cache::start().await?;
    let gateway = Gateway::start(&folder.0, &cache.url).await?;
    // One socket first, so that what is made once is not counted.
    let mut sockets = vec![open(gateway.address, &key).await?];
    sleep(SETTLE).await;
    let before = gateway.resident()?;
    let mut steps = Vec::new();
    for step in STEPS {
        let missing = stream::iter(sockets.len()..=step).map(|_| open(gateway.address, &key)).buffer_unordered(AT_ONCE);
        sockets.extend(missing.try_collect::<Vec<_>>().await?);
        sleep(SETTLE).await;
        let fresh = gateway.resident()?;
        stream::iter(&mut sockets).map(Ok).try_for_each_concurrent(AT_ONCE, beat).await?;
        sleep(SETTLE).await;
        let beaten = gateway.resident()?;
        let each = |resident: u64| resident.saturating_sub(before) / step as u64;
        steps.push(json!({
            "connections": step,
            "resident_bytes": beaten,
            "bytes_per_connection_fresh": each(fresh),
            "bytes_per_connection_after_heartbeat": each(beaten),
        }));
    }
    let result = json!({
        "benchmark": "gateway idle authenticated websocket",
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
        "resident_bytes_before": before,
        "steps": steps,
    });
    save(&result)?;
    println!("{result:#}");
    Ok(())
}

fn save(result: &Value) -> anyhow::Result<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("a target folder")?;
    fs::create_dir_all(target.join("bench"))?;
    Ok(fs::write(target.join("bench/idle.json"), format!("{result:#}\n"))?)
}

/// A folder that goes with this process.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("idle-{}", SystemIds.ulid()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// What gateway checks tokens with, and the key that signs them.
    fn keys(&self) -> anyhow::Result<EncodingKey> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "k1", "x": x}]});
        fs::write(self.0.join("jwks.json"), keys.to_string())?;
        fs::write(self.0.join("internal-token"), "of this benchmark alone")?;
        Ok(EncodingKey::from_ed_der(pkcs8.as_ref()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0)); // of no use to anybody
    }
}

/// The process that is measured.
struct Gateway {
    child: Child,
    address: SocketAddr,
}

impl Gateway {
    async fn start(folder: &Path, redis: &str) -> anyhow::Result<Self> {
        let log = folder.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .env_clear()
            .env("REDIS_URL", redis)
            .env("AUTH_DIR", folder)
            // Idle sockets ask for nothing: that it has an address is enough.
            .env("INGEST", "127.0.0.1:1")
            .env("LISTEN", "127.0.0.1:0")
            .env("GRPC_LISTEN", "127.0.0.1:0")
            .env("ADMIN_LISTEN", "127.0.0.1:0")
            .env("CONNECTION_PER_IP", "100000")
            .env("CONNECTION_ATTEMPTS_PER_IP", "1000000")
            .env("HEARTBEAT_INTERVAL", "5m")
            .env("LOG", "warn,platform=info")
            .env("LOG_FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let deadline = Instant::now() + WITHIN;
        loop {
            let text = fs::read_to_string(&log)?;
            let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let listens = lines.iter().find(|line| line["setting"] == "--listen");
            let is_started = lines.iter().any(|line| line["message"] == "gateway started");
            if let Some(address) = listens.and_then(|line| line["address"].as_str()).filter(|_| is_started) {
                return Ok(Self { child, address: address.parse()? });
            }
            anyhow::ensure!(Instant::now() < deadline, "gateway did not start:\n{text}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its resident memory in bytes.
    fn resident(&self) -> anyhow::Result<u64> {
        let pid = self.child.id().context("gateway has ended")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }
}

/// A socket of a new user, with its first frame read.
async fn open(address: SocketAddr, key: &EncodingKey) -> anyhow::Result<TcpStream> {
    let opening = async {
        let now = SystemClock.now().seconds();
        let claims = Claims {
            sub: UserId(SystemIds.ulid()).to_string(),
            sid: SessionId(SystemIds.ulid()).to_string(),
            jti: SystemIds.ulid().to_string(),
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            iat: now,
            exp: now + 3600,
            scope: "messaging".into(),
        };
        let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::EdDSA) };
        let token = encode(&header, &claims, key)?;
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\nX-Device-ID: {DEVICE}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        until(&mut stream, b"\"protocol_version\":1}}").await?;
        Ok(stream)
    };
    timeout(WITHIN, opening).await.context("not connected in time")?
}

async fn beat(stream: &mut TcpStream) -> anyhow::Result<()> {
    let beating = async {
        stream.write_all(HEARTBEAT).await?;
        until(stream, b"\"resync\":false}}").await
    };
    timeout(WITHIN, beating).await.context("no answer in time")?
}

/// Reads up to and including these bytes, with which a frame ends.
async fn until(stream: &mut TcpStream, end: &[u8]) -> anyhow::Result<()> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let count = stream.read_buf(&mut read).await?;
        anyhow::ensure!(count > 0, "ended after: {}", String::from_utf8_lossy(&read));
    }
    Ok(())
}
