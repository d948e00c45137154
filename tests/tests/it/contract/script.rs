//! A server that a test plays: REST answers that are enough for a login, and connections that the test drives.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use proto::{
    frames,
    messaging::v1::{ClientFrame, ConnectionEstablished, Message as Push, ServerFrame, server_frame::Payload},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

const WITHIN: Duration = Duration::from_secs(10);
/// Who logs in.
pub(super) const USER: &str = "user_01KKNTQ22TV37E3S3E28JT97KB";
const AT: i64 = 1_773_480_421_309;

/// A handshake that is refused, with this status and this `Retry-After`.
pub(super) struct Refusal(pub(super) u16, pub(super) Option<u32>);

struct Shared {
    chats: Vec<String>,
    refusals: Mutex<VecDeque<Refusal>>,
    refreshes: AtomicU32,
    peers: mpsc::Sender<Peer>,
}

/// The server. It ends with the test.
pub(super) struct Script {
    server: String,
    shared: Arc<Shared>,
    peers: mpsc::Receiver<Peer>,
    _task: JoinSet<()>,
}

/// The server's end of one connection.
pub(super) struct Peer {
    socket: WebSocketStream<TcpStream>,
    headers: HashMap<String, String>,
}

impl Script {
    /// Serves a user who is in these chats.
    pub(super) async fn start(chats: &[&str]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = format!("http://{}", listener.local_addr()?);
        let (sender, peers) = mpsc::channel(16);
        let shared = Arc::new(Shared {
            chats: chats.iter().map(|chat| (*chat).to_owned()).collect(),
            refusals: Mutex::default(),
            refreshes: AtomicU32::new(0),
            peers: sender,
        });
        let mut task = JoinSet::new();
        task.spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { server, shared, peers, _task: task })
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The next handshakes are refused like this; those after them are accepted.
    pub(super) fn refuse(&self, refusals: impl IntoIterator<Item = Refusal>) {
        self.shared.refusals.lock().unwrap_or_else(PoisonError::into_inner).extend(refusals);
    }

    /// How often tokens were refreshed.
    pub(super) fn refreshes(&self) -> u32 {
        self.shared.refreshes.load(Ordering::SeqCst)
    }

    /// The next connection.
    pub(super) async fn connection(&mut self) -> anyhow::Result<Peer> {
        timeout(WITHIN, self.peers.recv()).await.context("nobody connects")?.context("the server has ended")
    }
}

impl Peer {
    /// A header of the handshake.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) async fn establish(&mut self, heartbeat_interval_ms: u32) -> anyhow::Result<()> {
        let established = ConnectionEstablished {
            connection_id: "conn_1".into(),
            user_id: USER.into(),
            device_id: self.header("x-device-id").to_owned(),
            server_time: AT,
            heartbeat_interval_ms,
            protocol_version: frames::PROTOCOL_VERSION,
        };
        self.send("", Payload::ConnectionEstablished(established)).await
    }

    /// A message of somebody else.
    pub(super) async fn push(&mut self, chat_id: &str, sequence: u64) -> anyhow::Result<()> {
        let push = Push {
            message_id: format!("msg_{sequence}"),
            chat_id: chat_id.to_owned(),
            sequence,
            sender_id: "user_other".into(),
            content: format!("text {sequence}"),
            content_type: "text/plain".into(),
            created_at: AT,
            client_message_id: None,
        };
        self.send("", Payload::Message(push)).await
    }

    pub(super) async fn send(&mut self, request_id: &str, payload: Payload) -> anyhow::Result<()> {
        let frame = ServerFrame { request_id: request_id.to_owned(), timestamp: AT, payload: Some(payload) };
        self.send_text(&frames::server_to_json(&frame)).await
    }

    pub(super) async fn send_text(&mut self, text: &str) -> anyhow::Result<()> {
        self.socket.send(Message::text(text)).await.context("the client is gone")
    }

    /// The next frame of the client.
    pub(super) async fn next(&mut self) -> anyhow::Result<ClientFrame> {
        loop {
            match timeout(WITHIN, self.socket.next()).await.context("the client says nothing")? {
                Some(Ok(Message::Text(text))) => {
                    return frames::client_from_json(&text).map_err(|unread| anyhow::anyhow!("{text}: {unread:?}"));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => anyhow::bail!("{other:?} instead of a frame"),
            }
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move { drop(answer(stream, &shared).await) });
    }
}

async fn answer(stream: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let mut head = [0; 512];
    let line = loop {
        let count = stream.peek(&mut head).await?;
        anyhow::ensure!(count > 0, "closed");
        if let Some(end) = head[..count].iter().position(|byte| *byte == b'\r') {
            break String::from_utf8_lossy(&head[..end]).into_owned();
        }
    };
    if line.contains(" /v1/ws ") {
        return upgrade(stream, shared).await;
    }
    rest(stream, shared, &line).await
}

async fn upgrade(mut stream: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let refusal = shared.refusals.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    if let Some(Refusal(status, retry_after)) = refusal {
        read(&mut stream).await?;
        let retry = retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
        let body = json!({"error": "refused", "message": "no"}).to_string();
        return respond(&mut stream, status, &retry, &body).await;
    }
    let mut headers = HashMap::new();
    #[expect(clippy::result_large_err, reason = "the library's callback has this type")]
    let note = |request: &Request, mut response: Response| {
        for (name, value) in request.headers() {
            headers.insert(name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned());
        }
        if let Some(offered) = request.headers().get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", offered.clone());
        }
        Ok(response)
    };
    let socket = accept_hdr_async(stream, note).await?;
    shared.peers.send(Peer { socket, headers }).await.context("the test has ended")
}

async fn rest(mut stream: TcpStream, shared: &Shared, line: &str) -> anyhow::Result<()> {
    let tokens = |number: u32| {
        json!({"access_token": format!("access {number}"), "refresh_token": format!("refresh {number}"),
            "token_type": "Bearer", "expires_in": 3600})
    };
    let path = line.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let me = json!({"user_id": USER, "phone_number": "+12025550100", "display_name": null});
    let data = match path {
        "/api/v1/auth/request-otp" => json!({"data": {}}),
        "/api/v1/auth/verify-otp" => json!({"data": {"user": me, "tokens": tokens(0)}}),
        "/api/v1/auth/refresh" => {
            let number = shared.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
            json!({"data": {"tokens": tokens(number)}})
        }
        "/api/v1/users/me" => json!({"data": me}),
        "/api/v1/chats" => {
            let chats: Vec<_> = shared.chats.iter().map(|chat| json!({"chat_id": chat, "type": "direct"})).collect();
            json!({"data": chats, "pagination": {"has_more": false, "next_cursor": null}})
        }
        other => anyhow::bail!("nothing is at {other}"),
    };
    read(&mut stream).await?;
    respond(&mut stream, 200, "", &data.to_string()).await
}

/// Reads up to the empty line, and the body that its length announces.
async fn read(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok(());
            }
        }
        anyhow::ensure!(stream.read_buf(&mut request).await? > 0, "closed");
    }
}

async fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> anyhow::Result<()> {
    let length = body.len();
    let always = "Content-Type: application/json\r\nConnection: close";
    let head = format!("HTTP/1.1 {status} Said\r\n{always}\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
