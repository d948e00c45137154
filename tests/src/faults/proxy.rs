//! A TCP proxy that can be slow, silent, refuse, reset or cut short, from one moment to the next.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use super::random::Random;

/// Bytes that are taken at once; pieces that wait for their time.
const PIECE: usize = 16 * 1024;
const WAITING: usize = 256;

/// How a proxy treats its connections. The default lets everything pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Toxics {
    /// Whether new connections are reset at once.
    pub refuses: bool,
    /// What each piece waits.
    pub latency: Duration,
    /// And up to so much more, by the seed.
    pub jitter: Duration,
    /// Whether what the client says is held back.
    pub holds_requests: bool,
    /// Whether what the server says is held back.
    pub holds_answers: bool,
    /// Bytes a second in each direction.
    pub bytes_per_second: Option<u64>,
    /// A connection is reset after so many bytes of answers.
    pub cut_after: Option<u64>,
}

impl Toxics {
    /// Nothing passes in either direction; nobody is told.
    pub fn black_hole() -> Self {
        Self { holds_requests: true, holds_answers: true, ..Self::default() }
    }
}

/// What happened at a proxy.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    refused: AtomicU64,
    delayed: AtomicU64,
    held: AtomicU64,
    reset: AtomicU64,
}

/// What happened at a proxy until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Connections that came.
    pub connections: u64,
    /// Of those, refused.
    pub refused: u64,
    /// Pieces that waited for latency or bandwidth.
    pub delayed: u64,
    /// Pieces that were held back.
    pub held: u64,
    /// Connections that were reset or cut.
    pub reset: u64,
}

/// Bytes of answers to replace, of one length, in a protocol whose messages begin with their length (Kafka's): a server
/// that tells its clients its address, tells them the proxy's.
#[derive(Clone, Debug)]
struct Replace {
    from: Vec<u8>,
    to: Vec<u8>,
}

/// A running proxy. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    control: Arc<Control>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Control {
    upstream: Mutex<String>,
    toxics: watch::Sender<Toxics>,
    /// Raised to reset all connections.
    resets: watch::Sender<u64>,
    counts: Counts,
    replace: Option<Replace>,
    random: Mutex<Random>,
}

impl Proxy {
    /// Before `upstream`, a `host:port`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(upstream: &str, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Self::serve(listener, upstream, seed, None)
    }

    /// Before the only broker of a Kafka, which is told to clients as being here.
    ///
    /// # Errors
    /// When there is no port, or the broker is not on loopback.
    pub async fn before_kafka(broker: &str, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let broker: std::net::SocketAddr = broker.parse()?;
        let told = |port: u16| [b"127.0.0.1".as_slice(), &u32::from(port).to_be_bytes()].concat();
        let replace = Replace { from: told(broker.port()), to: told(listener.local_addr()?.port()) };
        Self::serve(listener, &broker.to_string(), seed, Some(replace))
    }

    fn serve(listener: TcpListener, upstream: &str, seed: u64, replace: Option<Replace>) -> anyhow::Result<Self> {
        let address = listener.local_addr()?.to_string();
        let control = Arc::new(Control {
            upstream: Mutex::new(upstream.to_owned()),
            toxics: watch::Sender::new(Toxics::default()),
            resets: watch::Sender::new(0),
            counts: Counts::default(),
            replace,
            random: Mutex::new(Random::new(seed)),
        });
        #[expect(clippy::disallowed_methods, reason = "the proxy owns this task and ends it")]
        let task = tokio::spawn(accept(listener, control.clone()));
        Ok(Self { address, control, task })
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Leads connections that come from now on to another server.
    pub fn lead_to(&self, upstream: &str) {
        upstream.clone_into(&mut lock(&self.control.upstream));
    }

    /// Treats all connections like this from now on.
    pub fn set(&self, toxics: Toxics) {
        self.control.toxics.send_replace(toxics);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.set(Toxics::default());
    }

    /// Resets all connections that are there.
    pub fn reset(&self) {
        self.control.resets.send_modify(|resets| *resets += 1);
    }

    /// What happened until now.
    pub fn counted(&self) -> Counted {
        let Counts { connections, refused, delayed, held, reset } = &self.control.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            connections: read(connections),
            refused: read(refused),
            delayed: read(delayed),
            held: read(held),
            reset: read(reset),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        add(&control.counts.connections);
        if control.toxics.borrow().refuses {
            add(&control.counts.refused);
            end_at_once(&client);
            continue;
        }
        let control = control.clone();
        connections.spawn(async move {
            let upstream = lock(&control.upstream).clone();
            match TcpStream::connect(upstream).await {
                Ok(server) => drop(pass(client, server, &control).await), // either side may end it
                Err(_) => end_at_once(&client),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The other side gets a reset instead of an end.
pub(super) fn end_at_once(stream: &TcpStream) {
    drop(stream.set_zero_linger()); // without it, it ends as usual
}

async fn pass(client: TcpStream, server: TcpStream, control: &Control) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut resets = control.resets.subscribe();
    let random = || lock(&control.random).branch();
    let requests = pump(from_client, to_server, control, Way::Requests, random());
    let answers = pump(from_server, to_client, control, Way::Answers, random());
    tokio::select! {
        // One side's reset ends the other; one side's end does not.
        done = async { tokio::try_join!(requests, answers) } => done.map(|_| ()),
        _ = resets.changed() => {
            add(&control.counts.reset);
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Requests,
    Answers,
}

impl Way {
    fn is_held(self, toxics: &Toxics) -> bool {
        match self {
            Self::Requests => toxics.holds_requests,
            Self::Answers => toxics.holds_answers,
        }
    }
}

/// One direction: what is read waits for its time, then is written. The halves are reset when this is dropped early.
async fn pump(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    control: &Control,
    way: Way,
    random: Random,
) -> std::io::Result<()> {
    let mut armed = Armed { to, is_done: false };
    let (pieces, waiting) = mpsc::channel(WAITING);
    tokio::try_join!(read(from, pieces, control, way, random), write(&mut armed.to, waiting, control, way))?;
    armed.is_done = true;
    Ok(())
}

/// A half that resets its connection unless all went well.
struct Armed {
    to: OwnedWriteHalf,
    is_done: bool,
}

impl Drop for Armed {
    fn drop(&mut self) {
        if !self.is_done {
            end_at_once(self.to.as_ref());
        }
    }
}

async fn read(
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    control: &Control,
    way: Way,
    mut random: Random,
) -> std::io::Result<()> {
    let mut rest = Vec::new();
    loop {
        let mut piece = vec![0; PIECE];
        let count = from.read(&mut piece).await?;
        piece.truncate(count);
        if count == 0 {
            return Ok(());
        }
        if let (Some(replace), Way::Answers) = (&control.replace, way) {
            rest.extend_from_slice(&piece);
            piece = replace.whole_messages(&mut rest);
        }
        let toxics = *control.toxics.borrow();
        let wait = toxics.latency + random.between(Duration::ZERO, toxics.jitter);
        if !wait.is_zero() {
            add(&control.counts.delayed);
        }
        if pieces.send((Instant::now() + wait, piece)).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    to: &mut OwnedWriteHalf,
    mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    control: &Control,
    way: Way,
) -> std::io::Result<()> {
    let mut toxics = control.toxics.subscribe();
    let mut written = 0;
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        if way.is_held(&toxics.borrow()) {
            add(&control.counts.held);
            // The proxy's owner holds the sender as long as this runs.
            drop(toxics.wait_for(|toxics| !way.is_held(toxics)).await);
        }
        let now = *toxics.borrow();
        if let Some(speed) = now.bytes_per_second {
            add(&control.counts.delayed);
            sleep(Duration::from_secs(piece.len() as u64) / u32::try_from(speed.max(1)).unwrap_or(u32::MAX)).await;
        }
        let left = now.cut_after.filter(|_| way == Way::Answers).map(|end| end.saturating_sub(written));
        let length = left.map_or(piece.len(), |left| piece.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        to.write_all(&piece[..length]).await?;
        written += length as u64;
        if length < piece.len() {
            add(&control.counts.reset);
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
    }
    to.shutdown().await
}

impl Replace {
    /// Takes the whole messages from the front, with the bytes replaced.
    fn whole_messages(&self, rest: &mut Vec<u8>) -> Vec<u8> {
        let mut end = 0;
        while let Some(length) = rest.get(end..end + 4) {
            let length = length.try_into().map_or(0, u32::from_be_bytes) as usize;
            if rest.len() < end + 4 + length {
                break;
            }
            end += 4 + length;
        }
        let mut whole: Vec<u8> = rest.drain(..end).collect();
        let mut place = 0;
        while let Some(window) = whole.get(place..place + self.from.len()) {
            if window == self.from {
                whole[place..place + self.from.len()].copy_from_slice(&self.to);
            }
            place += 1;
        }
        whole
    }
}

#[cfg(test)]
mod tests;
