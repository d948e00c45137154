//! Many people with sockets that only count what comes: no client's work is measured with the server's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    client::{new_uuid, rest::Rest},
    world::cluster::Cluster,
};

const WITHIN: Duration = Duration::from_mins(2);
/// Pauses between looks at a count.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Somebody who is logged in.
pub struct Person {
    /// For REST.
    pub rest: Rest,
    /// The id that others know.
    pub user: String,
}

/// Logs in so many people, at that gateway's door.
///
/// # Errors
/// When a login fails.
pub async fn people(cluster: &Cluster, count: usize) -> anyhow::Result<Vec<Person>> {
    let mut people = Vec::with_capacity(count);
    for number in 0..count {
        let rest = cluster.login(0, &format!("+1202555{number:04}")).await?;
        let user = rest.me().await?.user_id;
        people.push(Person { rest, user });
    }
    Ok(people)
}

/// What a socket of the crowd has been told.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages that others sent.
    pub messages: AtomicU64,
    /// Acknowledgements of own ones.
    pub acks: AtomicU64,
    /// Refusals.
    pub errors: AtomicU64,
}

impl Counts {
    /// Waits until so many messages came to all together.
    ///
    /// # Errors
    /// When they do not come in two minutes, or a send was refused.
    pub async fn messages(&self, count: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + WITHIN;
        while self.messages.load(Ordering::Relaxed) < count {
            let (seen, errors) = (self.messages.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed));
            let goes_on = errors == 0 && Instant::now() < deadline;
            anyhow::ensure!(goes_on, "{seen} of {count} messages came, and {errors} refusals");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until so many sends were answered, and what was acknowledged came to one other each; not longer than that.
    pub async fn settled(&self, sends: u64, within: Duration) {
        let deadline = Instant::now() + within;
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let is_settled =
            || count(&self.acks) + count(&self.errors) >= sends && count(&self.messages) >= count(&self.acks);
        while !is_settled() && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Which frames of a socket are handed on, each as it came.
#[derive(Debug)]
pub enum Heard {
    /// None: they are only counted.
    Nothing,
    /// Acknowledgements.
    Acks(mpsc::Sender<(Instant, String)>),
    /// Acknowledgements and messages of others.
    Both(mpsc::Sender<(Instant, String)>),
}

impl Heard {
    fn of(&self, kind: &str) -> Option<&mpsc::Sender<(Instant, String)>> {
        match (self, kind) {
            (Self::Acks(to), "send_message_ack") | (Self::Both(to), "send_message_ack" | "message") => Some(to),
            (Self::Nothing | Self::Acks(_) | Self::Both(_), _) => None,
        }
    }
}

/// An open socket. It reads by itself.
pub struct Line {
    outgoing: mpsc::Sender<String>,
}

impl Line {
    /// Sends a text frame.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn send(&self, text: String) -> anyhow::Result<()> {
        self.outgoing.send(text).await.context("the socket is gone")
    }
}

/// Sockets of the crowd, all at one gateway; they close with it.
#[derive(Default)]
pub struct Crowd {
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Connects somebody, and waits until the server says that it listens.
    ///
    /// # Errors
    /// When the handshake is refused.
    pub async fn connect(
        &mut self,
        address: &str,
        person: &Person,
        counts: Arc<Counts>,
        heard: Heard,
    ) -> anyhow::Result<Line> {
        let mut request = format!("ws://{address}/v1/ws").into_client_request()?;
        let token = person.rest.tokens()?.access_token;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        request.headers_mut().insert("x-device-id", person.rest.device().to_string().parse()?);
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut socket, _) = client_async(request, MaybeTlsStream::Plain(stream)).await?;
        let first = socket.next().await.context("closed")??;
        anyhow::ensure!(first.to_text()?.contains("connection_established"), "{first}");
        let (outgoing, waiting) = mpsc::channel(64);
        self.tasks.spawn(run(socket, waiting, counts, heard));
        Ok(Line { outgoing })
    }
}

async fn run(
    mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    mut waiting: mpsc::Receiver<String>,
    counts: Arc<Counts>,
    heard: Heard,
) {
    let mut is_open = true;
    loop {
        tokio::select! {
            next = socket.next() => match next {
                Some(Ok(Message::Text(text))) => {
                    let at = Instant::now();
                    let kind = kind(&text);
                    match kind {
                        "message" => counts.messages.fetch_add(1, Ordering::Relaxed),
                        "send_message_ack" => counts.acks.fetch_add(1, Ordering::Relaxed),
                        "error" | "connection_closing" => counts.errors.fetch_add(1, Ordering::Relaxed),
                        _ => 0,
                    };
                    if let Some(to) = heard.of(kind)
                        && to.send((at, text.as_str().to_owned())).await.is_err()
                    {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            // Without its owner the socket goes on counting.
            text = waiting.recv(), if is_open => match text {
                Some(text) => {
                    if socket.send(Message::text(text)).await.is_err() {
                        return;
                    }
                }
                None => is_open = false,
            },
        }
    }
}

/// The type of a frame, which is near its begin: parsing all of it would cost more than the server does.
fn kind(text: &str) -> &str {
    let after = text.split_once("\"type\"").map_or("", |(_, after)| after);
    after.trim_start_matches([':', ' ', '"']).split('"').next().unwrap_or_default()
}

/// A message as a client sends it.
pub fn message(chat: &str, request: &str, content: &str) -> String {
    let id = new_uuid();
    serde_json::json!({
        "type": "send_message",
        "request_id": request,
        "payload": { "client_message_id": id.to_string(), "chat_id": chat, "content": content },
    })
    .to_string()
}
