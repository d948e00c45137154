//! The reference client: the states and duties of the client contract (websocket-protocol §11, §13.1).

mod connection;
mod keep;
mod outbox;
mod pace;
pub mod rest;
mod session;
mod verdict;
mod witness;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

pub use keep::{Keep, Kept};
pub use rest::{ChatSummary, HistoryItem, Member, Refused, Rest, Tokens, User};
use witness::Witness;

use crate::history::recorder::Recorder;

/// Events that wait for a slow listener; the client's own state never depends on them.
const EVENTS: usize = 65_536;
/// Commands that wait for the connection.
const COMMANDS: usize = 1024;

/// Where a connection is (websocket-protocol §11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No socket; outbound messages wait.
    Disconnected,
    /// The socket is being made.
    Connecting,
    /// The token was shown; waiting for `connection_established`.
    Authenticating,
    /// Established; nothing but syncs may be sent.
    Connected,
    /// Catching up with what was missed.
    Syncing,
    /// Sending and receiving.
    Ready,
    /// The server wants it to end: only acks may be sent.
    Closing,
    /// It has ended for good: the login is gone, or the client was stopped.
    Stopped,
}

/// What the application sees: each message once, in the order of its chat.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message whose place in the chat is reached.
    Message(Kept),
    /// The connection changed.
    State(State),
    /// A chat is new, or its description or members changed.
    Chat(String),
    /// One is no longer in the chat.
    Removed(String),
}

/// Why a message was not sent; it will not be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct NotSent {
    /// The error code of the protocol.
    pub code: String,
    /// What the server said.
    pub message: String,
}

/// A message that the server acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Ours.
    pub client_message_id: String,
    /// The server's.
    pub message_id: String,
    /// Its place in the chat.
    pub sequence: u64,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// For example `http://127.0.0.1:8080`.
    pub server: String,
    /// Where messages, tokens and unsent messages are kept; in memory without one.
    pub data: Option<PathBuf>,
    /// The first wait before a new connection; doubled up to `backoff_cap`, ±25 %.
    pub backoff_base: Duration,
    /// No wait is longer, before jitter.
    pub backoff_cap: Duration,
    /// How long an answer may take before the request is repeated.
    pub answer_within: Duration,
    /// Messages of one chat in flight at once. Only with 1 can a refused one never be overtaken.
    pub window: usize,
    /// Where its history goes, and under which name.
    pub recorder: Option<(Recorder, String)>,
}

impl Options {
    /// As the contract has it: waits of 1 s doubling to 30 s.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            data: None,
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(30),
            answer_within: Duration::from_secs(10),
            window: 1,
            recorder: None,
        }
    }

    /// For tests, which wait for it.
    pub fn quick(server: impl Into<String>) -> Self {
        Self { backoff_base: Duration::from_millis(50), backoff_cap: Duration::from_millis(500), ..Self::new(server) }
    }
}

/// What came over the wire, as opposed to what the application saw.
#[derive(Debug, Default)]
pub struct Wire {
    /// Messages that arrived by push.
    pub pushes: AtomicU64,
    /// Messages that arrived in sync pages.
    pub synced: AtomicU64,
    /// Messages that were here already.
    pub duplicates: AtomicU64,
    /// Connections that were established.
    pub connections: AtomicU64,
    /// Frames of a type that is not known here.
    pub unknown: AtomicU64,
}

/// What the connection's task and its owner share.
struct Shared {
    rest: Rest,
    keep: Keep,
    options: Options,
    wire: Wire,
    witness: Witness,
    events: broadcast::Sender<Event>,
    state: watch::Sender<State>,
    /// Why the client has stopped.
    stopped: OnceLock<&'static str>,
}

enum Command {
    Send { chat: String, text: String, done: oneshot::Sender<Result<Sent, NotSent>> },
    Open(String),
    Drop,
    Stop,
}

/// A logged-in client with a connection that comes back by itself.
pub struct Client {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
    user_id: String,
}

impl Client {
    /// Logs in, with a code that is asked for once it was sent.
    ///
    /// # Errors
    /// When the server refuses, or is not reached.
    pub async fn login<F, Fut>(options: Options, phone: &str, code: F) -> anyhow::Result<Self>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = anyhow::Result<String>>,
    {
        let keep = Keep::open(options.data.as_deref())?;
        let rest = Rest::new(&options.server, keep.device()?)?;
        rest.request_otp(phone).await?;
        let tokens = rest.verify_otp(phone, &code().await?).await?;
        keep.set_tokens(&tokens)?;
        rest.use_tokens(tokens);
        Self::start(options, keep, rest).await
    }

    /// Goes on with what the data folder remembers; `None` when there is no login in it.
    ///
    /// # Errors
    /// When the login no longer holds, or the server is not reached.
    pub async fn resume(options: Options) -> anyhow::Result<Option<Self>> {
        let keep = Keep::open(options.data.as_deref())?;
        let Some(tokens) = keep.tokens()? else { return Ok(None) };
        let rest = Rest::new(&options.server, keep.device()?)?;
        rest.use_tokens(tokens);
        Self::start(options, keep, rest).await.map(Some)
    }

    async fn start(options: Options, keep: Keep, rest: Rest) -> anyhow::Result<Self> {
        let me = match rest.me().await {
            Err(error) if Refused::is(&error, "UNAUTHORIZED") => {
                keep.set_tokens(&rest.refresh().await?)?;
                rest.me().await?
            }
            me => me?,
        };
        let witness = Witness::new(options.recorder.clone(), &me.user_id);
        let shared = Arc::new(Shared {
            witness,
            rest,
            keep,
            options,
            wire: Wire::default(),
            events: broadcast::Sender::new(EVENTS),
            state: watch::Sender::new(State::Disconnected),
            stopped: OnceLock::new(),
        });
        let (commands, waiting) = mpsc::channel(COMMANDS);
        let connection = connection::run(shared.clone(), me.user_id.clone(), waiting);
        #[expect(clippy::disallowed_methods, reason = "the client owns this task and ends it")]
        let task = tokio::spawn(connection);
        Ok(Self { shared, commands, task, user_id: me.user_id })
    }

    /// Who one is.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// The REST side, logged in.
    pub fn rest(&self) -> &Rest {
        &self.shared.rest
    }

    /// What came over the wire.
    pub fn wire(&self) -> &Wire {
        &self.shared.wire
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Where the connection is.
    pub fn state(&self) -> State {
        *self.shared.state.borrow()
    }

    /// Why it has stopped, in words for its user; `None` while it runs.
    pub fn stopped(&self) -> Option<&'static str> {
        self.shared.stopped.get().copied()
    }

    /// The messages of a chat as the application has them: in order, each once.
    ///
    /// # Errors
    /// When the local store fails.
    pub fn view(&self, chat: &str) -> anyhow::Result<Vec<Kept>> {
        self.shared.keep.view(chat)
    }

    /// Chats that are known locally.
    ///
    /// # Errors
    /// When the local store fails.
    pub fn known_chats(&self) -> anyhow::Result<Vec<String>> {
        self.shared.keep.chats()
    }

    /// How many messages have no answer yet.
    ///
    /// # Errors
    /// When the local store fails.
    pub fn unsent(&self) -> anyhow::Result<usize> {
        Ok(self.shared.keep.unsent()?.len())
    }

    /// Sends a message and waits for its ack, over as many connections as it takes.
    ///
    /// # Errors
    /// When the server refuses it for good, or the client stops.
    pub async fn send(&self, chat: &str, text: &str) -> Result<Sent, NotSent> {
        let waiting = self.begin_send(chat, text).await?;
        waiting.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Hands a message over, to be sent after those handed over before. The answer comes later.
    ///
    /// # Errors
    /// When the client has stopped.
    pub async fn begin_send(
        &self,
        chat: &str,
        text: &str,
    ) -> Result<oneshot::Receiver<Result<Sent, NotSent>>, NotSent> {
        let (done, waiting) = oneshot::channel();
        let command = Command::Send { chat: chat.to_owned(), text: text.to_owned(), done };
        self.commands.send(command).await.map_err(|_| stopped())?;
        Ok(waiting)
    }

    /// Follows a chat: syncs it now and after each reconnect.
    ///
    /// # Errors
    /// When the client has stopped.
    pub async fn open(&self, chat: &str) -> anyhow::Result<()> {
        self.commands.send(Command::Open(chat.to_owned())).await.context("the client has stopped")
    }

    /// Drops the socket without a word, as a lost network does.
    ///
    /// # Errors
    /// When the client has stopped.
    pub async fn drop_connection(&self) -> anyhow::Result<()> {
        self.commands.send(Command::Drop).await.context("the client has stopped")
    }

    /// Waits until the connection is ready.
    ///
    /// # Errors
    /// When the deadline passes, or the client stops for good.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<()> {
        let mut state = self.shared.state.subscribe();
        let reached = state.wait_for(|state| matches!(state, State::Ready | State::Stopped));
        let state = *tokio::time::timeout(within, reached).await.context("not ready in time")??;
        anyhow::ensure!(state == State::Ready, "the client has stopped");
        Ok(())
    }

    /// Waits until it is ready on another connection than the first `before`.
    ///
    /// # Errors
    /// When the deadline passes, or the client stops for good.
    pub async fn came_back(&self, before: u64, within: Duration) -> anyhow::Result<()> {
        let mut state = self.shared.state.subscribe();
        let back = state.wait_for(|state| {
            let is_another = self.wire().connections() > before;
            *state == State::Stopped || (*state == State::Ready && is_another)
        });
        let state = *tokio::time::timeout(within, back).await.context("it did not come back in time")??;
        anyhow::ensure!(state == State::Ready, "the client has stopped");
        Ok(())
    }

    /// Waits until the view of a chat has that many messages, and returns it.
    ///
    /// # Errors
    /// When the deadline passes: with what is there.
    pub async fn wait_for(&self, chat: &str, count: usize, within: Duration) -> anyhow::Result<Vec<Kept>> {
        let deadline = Instant::now() + within;
        let mut events = self.events();
        loop {
            let view = self.view(chat)?;
            if view.len() >= count {
                return Ok(view);
            }
            // Lagging behind is no matter: the view is asked again.
            match timeout_at(deadline, events.recv()).await {
                Ok(Ok(_) | Err(broadcast::error::RecvError::Lagged(_))) => {}
                Ok(Err(broadcast::error::RecvError::Closed)) => anyhow::bail!("the client has stopped"),
                Err(_) => anyhow::bail!("{} of {count} messages of {chat} after {within:?}", view.len()),
            }
        }
    }

    /// Flushes acks, closes the socket, and stops.
    pub async fn stop(self) {
        // Refused when it has stopped already.
        drop(self.commands.send(Command::Stop).await);
        drop(self.task.await);
    }
}

impl Wire {
    /// Messages that were here already when they came.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Connections that were established.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

fn stopped() -> NotSent {
    NotSent { code: "STOPPED".to_owned(), message: "the client has stopped".to_owned() }
}

/// UTC epoch milliseconds.
#[expect(clippy::disallowed_methods, reason = "a client is a process of its own, with the machine's clock")]
pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A new id of a message or a device: a random UUID (v4).
pub(crate) fn new_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

/// Random bytes; what they name is unique, what they jitter is not repeated.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness ids repeat: the server would take one message for another.
    assert!(aws_lc_rs::rand::fill(&mut bytes).is_ok(), "the system has no randomness");
    bytes
}
