//! The connection's task: it connects, catches up, sends, receives, and comes back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::StreamExt as _;
use proto::{
    frames,
    messaging::v1::{ConnectionEstablished, server_frame::Payload as Answer},
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest as _, http::StatusCode},
};

use super::{
    Command, Event, Kept, NotSent, Refused, Sent, Shared, State,
    keep::Unsent,
    new_uuid, now_millis,
    outbox::{Outbox, Waiter},
    random,
    session::Session,
};
use crate::history::line::Kind;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a server may take to establish a connection.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(10);
/// A message that is older does not go again by itself (D2.4).
const SENT_WITHIN: Duration = Duration::from_hours(6 * 24);

/// Runs until the client is stopped or its login is gone.
pub(super) async fn run(shared: Arc<Shared>, user_id: String, mut commands: mpsc::Receiver<Command>) {
    let mut sends = match Sends::load(&shared) {
        Ok(sends) => sends,
        Err(why) => return stop(&shared, why),
    };
    let mut attempt = 0;
    loop {
        shared.move_to(State::Connecting);
        let end = match connect(&shared).await {
            Ok((socket, established)) => {
                attempt = 0;
                shared.wire.connections.fetch_add(1, Ordering::Relaxed);
                shared.witness.connected();
                let mut session = Session::new(&shared, &user_id, socket, &established, &mut sends);
                let end = session.run(&mut commands).await;
                session.close().await;
                shared.witness.closed(end.name());
                end
            }
            Err(unconnected) => unconnected,
        };
        for id in sends.outbox.connection_lost() {
            shared.witness.refused(&id, Kind::Info, "connection lost");
        }
        shared.move_to(State::Disconnected);
        attempt += 1;
        let growing = backoff(attempt, shared.options.backoff_base, shared.options.backoff_cap);
        let wait = match end {
            End::Stopped(why) => return stop(&shared, why),
            End::Lost => growing,
            // A server that names no time gets none of its own doubled: no loop is without a wait.
            End::Later(wait) => jittered(wait).max(shared.options.backoff_base),
            End::Unauthorized => match refresh(&shared).await {
                Ok(()) if attempt == 1 => Duration::ZERO,
                Err(End::Stopped(why)) => return stop(&shared, why),
                Err(End::Later(wait)) => jittered(wait),
                Ok(()) | Err(End::Lost | End::Unauthorized) => growing,
            },
        };
        if !sends.wait(&shared, &mut commands, wait).await {
            return stop(&shared, ASKED);
        }
    }
}

fn stop(shared: &Shared, why: &'static str) {
    shared.stopped.get_or_init(|| why);
    shared.move_to(State::Stopped);
}

/// New tokens, or what else comes of the attempt.
async fn refresh(shared: &Shared) -> Result<(), End> {
    match shared.rest.refresh().await {
        Ok(tokens) => shared.keep.set_tokens(&tokens).map_err(|_| End::Stopped(LOCAL_STORE)),
        Err(error) => Err(match error.downcast_ref::<Refused>() {
            Some(refused) if refused.status == 429 => {
                End::Later(Duration::from_secs(refused.details["retry_after_seconds"].as_u64().unwrap_or(1)))
            }
            Some(refused) if refused.status < 500 => End::Stopped(LOGIN_ENDED),
            Some(_) | None => End::Lost,
        }),
    }
}

/// Why a client stops, in words for its user.
pub(super) const ASKED: &str = "the client was stopped";
const LOCAL_STORE: &str = "what is kept on this device can't be read or written";
const LOGIN_ENDED: &str = "the login has ended";
const REFUSED: &str = "the server refuses this client";
pub(super) const REPLACED: &str = "this device is connected elsewhere";

/// Why there is no connection (any more).
#[derive(Debug)]
pub(super) enum End {
    /// Not again: why.
    Stopped(&'static str),
    /// Again after the usual wait.
    Lost,
    /// Again after a pause that the server named.
    Later(Duration),
    /// Again with new tokens.
    Unauthorized,
}

impl End {
    fn name(&self) -> &'static str {
        match self {
            Self::Stopped(why) => why,
            Self::Lost => "lost",
            Self::Later(_) => "asked to come back later",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// Messages handed over and not acknowledged, and who waits for them. Outlives connections.
#[derive(Default)]
pub(super) struct Sends {
    pub(super) outbox: Outbox,
}

impl Sends {
    /// What an earlier run left.
    fn load(shared: &Shared) -> Result<Self, &'static str> {
        let mut outbox = Outbox::default();
        for unsent in shared.keep.unsent().map_err(|_| LOCAL_STORE)? {
            outbox.push(unsent, None);
        }
        Ok(Self { outbox })
    }

    /// Writes a message down before anything else happens to it (MS-04).
    pub(super) fn take(&mut self, shared: &Shared, chat: String, text: String, done: Waiter) {
        let client_message_id = new_uuid().to_string();
        let unsent = Unsent { client_message_id, chat, content: text, written_at: now_millis() };
        match check(&unsent.content).and_then(|()| shared.keep.add_unsent(&unsent).map_err(|error| local(&error))) {
            Ok(()) => self.outbox.push(unsent, Some(done)),
            Err(error) => drop(done.send(Err(error))), // whoever asked may have gone
        }
    }

    pub(super) fn finish(&mut self, client_message_id: &str, result: Result<Sent, NotSent>) {
        if let Some(waiter) = self.outbox.take(client_message_id) {
            drop(waiter.send(result)); // whoever asked may have gone
        }
    }

    /// Waits, and takes messages meanwhile. `false` when the client is to stop.
    async fn wait(&mut self, shared: &Shared, commands: &mut mpsc::Receiver<Command>, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => return false,
                    Some(Command::Send { chat, text, done }) => self.take(shared, chat, text, done),
                    Some(Command::Open(chat)) => drop(shared.keep.follow(&chat)),
                    Some(Command::Drop) => {}
                },
            }
        }
    }
}

/// Whether a message is too old to go again by itself.
pub(super) fn is_stale(unsent: &Unsent, now_millis: i64) -> bool {
    u128::try_from(now_millis - unsent.written_at).is_ok_and(|age| age > SENT_WITHIN.as_millis())
}

/// MS-06: what can't be sent is refused here.
fn check(content: &str) -> Result<(), NotSent> {
    let refuse = |code: &str, message: &str| Err(NotSent { code: code.to_owned(), message: message.to_owned() });
    match content.len() {
        0 => refuse("INVALID_MESSAGE", "a message has at least one character"),
        1..=4096 => Ok(()),
        _ => refuse("MESSAGE_TOO_LARGE", "a message has at most 4096 bytes"),
    }
}

fn local(error: &anyhow::Error) -> NotSent {
    NotSent { code: "LOCAL_STORE".to_owned(), message: error.to_string() }
}

impl Shared {
    pub(super) fn move_to(&self, state: State) {
        if self.state.send_replace(state) != state {
            drop(self.events.send(Event::State(state))); // nobody may listen
            if state == State::Ready {
                self.witness.ready();
            }
        }
    }

    pub(super) fn show(&self, reached: Vec<Kept>) -> usize {
        let count = reached.len();
        for message in reached {
            self.witness.showed(&message);
            drop(self.events.send(Event::Message(message))); // nobody may listen
        }
        count
    }
}

async fn connect(shared: &Shared) -> Result<(Socket, ConnectionEstablished), End> {
    let url = format!("{}/v1/ws", shared.rest.server().replacen("http", "ws", 1));
    let mut request = url.into_client_request().map_err(|_| End::Stopped(REFUSED))?;
    let tokens = shared.rest.tokens().map_err(|_| End::Stopped(REFUSED))?;
    let header = |value: String| value.parse().map_err(|_| End::Stopped(REFUSED));
    request.headers_mut().insert("authorization", header(format!("Bearer {}", tokens.access_token))?);
    request.headers_mut().insert("x-device-id", header(shared.rest.device().to_string())?);
    request.headers_mut().insert("sec-websocket-protocol", header(frames::JSON.to_owned())?);
    shared.move_to(State::Authenticating);
    let socket = match timeout(ESTABLISHED_WITHIN, connect_async(request)).await {
        Ok(Ok((socket, _))) => socket,
        Ok(Err(tungstenite::Error::Http(response))) => return Err(refused(&response)),
        Ok(Err(_)) | Err(_) => return Err(End::Lost),
    };
    match timeout(ESTABLISHED_WITHIN, established(socket)).await {
        Ok(Ok(pair)) => Ok(pair),
        Ok(Err(_)) | Err(_) => Err(End::Lost),
    }
}

fn refused(response: &tungstenite::http::Response<Option<Vec<u8>>>) -> End {
    let retry = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    match response.status() {
        StatusCode::UNAUTHORIZED => End::Unauthorized,
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => End::Stopped(REFUSED),
        _ => retry.map_or(End::Lost, |seconds| End::Later(Duration::from_secs(seconds))),
    }
}

/// CL-03: nothing is sent before this arrives.
async fn established(mut socket: Socket) -> anyhow::Result<(Socket, ConnectionEstablished)> {
    while let Some(message) = socket.next().await {
        if let Message::Text(text) = message? {
            let frame = frames::server_from_json(&text).map_err(|unread| anyhow::anyhow!("{unread:?}"))?;
            if let Some(Answer::ConnectionEstablished(established)) = frame.payload {
                return Ok((socket, established));
            }
        }
    }
    anyhow::bail!("closed before it was established")
}

/// CL-06: doubled with each attempt, capped, ±25 %.
fn backoff(attempt: u32, base: Duration, cap: Duration) -> Duration {
    jittered(base.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1).min(20))).min(cap))
}

pub(super) fn jittered(wait: Duration) -> Duration {
    let share = f64::from(u16::from_le_bytes(random())) / f64::from(u16::MAX);
    wait.mul_f64(0.75 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_cap_within_their_jitter() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(30));
        for (attempt, seconds) in [(1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (40, 30.0)] {
            let wait = backoff(attempt, base, cap).as_secs_f64();
            assert!((seconds * 0.749..=seconds * 1.251).contains(&wait), "{attempt}: {wait}");
        }
    }

    #[test]
    fn a_message_of_a_week_ago_does_not_go_again_by_itself() {
        let unsent = |written_at| Unsent {
            client_message_id: String::new(),
            chat: String::new(),
            content: String::new(),
            written_at,
        };
        let day = 24 * 60 * 60 * 1000;
        assert!(is_stale(&unsent(0), 7 * day));
        assert!(!is_stale(&unsent(day), 7 * day));
        assert!(!is_stale(&unsent(day), 0), "the clock was set back");
    }

    #[test]
    fn what_can_not_be_sent_is_refused_at_once() {
        assert_eq!(check("").expect_err("empty").code, "INVALID_MESSAGE");
        assert_eq!(check(&"x".repeat(4097)).expect_err("too long").code, "MESSAGE_TOO_LARGE");
        assert_eq!(check(&"x".repeat(4096)), Ok(()));
    }
}
