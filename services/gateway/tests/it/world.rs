//! A gateway with everything around it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    Clock as _, Ids as _,
    ids::{ChatId, SessionId, UserId},
};
use futures_util::{SinkExt as _, StreamExt as _};
use gateway::{
    config::{Limits, Settings},
    wire_up::{self, Ports, Running},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use platform::{
    Process, Secret,
    clock::{SystemClock, SystemIds},
    grpc::InternalToken,
    tokens::{AUDIENCE, Claims, ISSUER},
};
use proto::{
    frames,
    messaging::v1::{
        ClientFrame, DeliveryAnswer, DeliveryFrame, SendMessage, ServerFrame, client_frame::Payload as Ask,
        delivery_client::DeliveryClient, server_frame::Payload,
    },
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as SocketError, Message, client::IntoClientRequest as _, http::HeaderValue},
};

use crate::{
    ingest::{FakeIngest, serve_ingest},
    memory::{MemoryRegistry, MemoryRevocations},
};

/// No wait is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A gateway, what it talks to, and keys for tokens.
pub(crate) struct World {
    pub(crate) process: Process,
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    pub(crate) ingest: Arc<FakeIngest>,
    pub(crate) ingest_process: Process,
    pub(crate) registry: Arc<MemoryRegistry>,
    pub(crate) revocations: Arc<MemoryRevocations>,
    pub(crate) token: InternalToken,
    key: EncodingKey,
    pub(crate) folder: PathBuf,
    pub(crate) at_ingest: SocketAddr,
    /// The subprotocol that its clients ask for.
    protocol: &'static str,
}

/// Runs a test with JSON frames, and again with protobuf frames (D2.2).
pub(crate) async fn in_both(test: impl AsyncFn(&'static str)) {
    for protocol in [frames::JSON, frames::PROTOBUF] {
        eprintln!("clients speak {protocol}");
        test(protocol).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// Limits that stay out of the way of what a test is about.
pub(crate) fn roomy() -> Limits {
    Limits {
        connection_new_per_user: 10_000,
        connection_per_user: 100,
        connection_per_ip: 10_000,
        connection_attempts_per_ip: 10_000,
        sync_burst: 100,
        ..Limits::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(roomy()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::with_more(limits, &[]).await
    }

    /// With a second ingest, which is not there.
    pub(crate) async fn with_two_ingests(limits: Limits) -> Self {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound");
        Self::with_more(limits, &[closed.to_string()]).await
    }

    /// With more ingests, at these addresses.
    pub(crate) async fn with_more(limits: Limits, more: &[String]) -> Self {
        let folder = std::env::temp_dir().join(format!("gateway-{}", SystemIds.ulid()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","use":"sig","kid":"k1","x":"{x}"}}]}}"#);
        std::fs::write(folder.join("jwks.json"), keys).expect("written");
        std::fs::write(folder.join("internal-token"), "between us\n").expect("written");
        let token = InternalToken::new(&Secret::new("between us")).expect("valid");

        let ingest = Arc::new(FakeIngest::default());
        let ingest_process = Process::new();
        let at_ingest = serve_ingest(&ingest_process, ingest.clone(), &token).await;
        let registry = Arc::new(MemoryRegistry::default());
        let revocations = Arc::new(MemoryRevocations::default());
        let ports = Ports { registry: registry.clone(), revocations: revocations.clone() };
        let redis = adapters::redis::Config::new("redis://unused", "");
        let settings = Settings {
            limits,
            ..Settings::on_loopback(redis, folder.clone(), [&[at_ingest.to_string()], more].concat())
        };
        let process = Process::new();
        let running = wire_up::start_on(ports, settings, &process).await.expect("started");
        let (listener, address) = process.bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
        process.serve_http("clients", listener, running.http.clone());
        eventually("ready", || process.not_ready().is_empty()).await;
        let key = EncodingKey::from_ed_der(pkcs8.as_ref());
        let protocol = frames::JSON;
        Self {
            process,
            running,
            address,
            ingest,
            ingest_process,
            registry,
            revocations,
            token,
            key,
            folder,
            at_ingest,
            protocol,
        }
    }

    /// The same with clients that speak another encoding.
    pub(crate) fn speaking(mut self, protocol: &'static str) -> Self {
        self.protocol = protocol;
        self
    }

    pub(crate) fn claims(user: UserId, lifetime: i64) -> Claims {
        let now = SystemClock.now().seconds();
        Claims {
            sub: user.to_string(),
            sid: SessionId(SystemIds.ulid()).to_string(),
            jti: SystemIds.ulid().to_string(),
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            iat: now,
            exp: now + lifetime,
            scope: "messaging".into(),
        }
    }

    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::EdDSA) };
        encode(&header, claims, &self.key).expect("signed")
    }

    /// Connects a new device of the user, and takes the first frame.
    pub(crate) async fn connect(&self, user: UserId) -> Client {
        self.connect_as(user, &device(), Some(self.protocol)).await
    }

    pub(crate) async fn connect_as(&self, user: UserId, device: &str, protocol: Option<&'static str>) -> Client {
        let token = self.sign(&Self::claims(user, 3600));
        self.connect_with(&token, device, protocol).await
    }

    pub(crate) async fn connect_with(&self, token: &str, device: &str, protocol: Option<&'static str>) -> Client {
        let headers = [("authorization", format!("Bearer {token}")), ("x-device-id", device.to_owned())];
        let mut headers = headers.to_vec();
        if let Some(protocol) = protocol {
            headers.push(("sec-websocket-protocol", protocol.to_owned()));
        }
        self.handshake("/v1/ws", &headers).await.expect("connected")
    }

    /// One attempt; a refusal is its status, its body, and `Retry-After`.
    pub(crate) async fn handshake(&self, path: &str, headers: &[(&'static str, String)]) -> Result<Client, Refusal> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let stream = TcpStream::connect(self.address).await.expect("reached");
        match timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await.expect("in time") {
            Ok((socket, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
                let is_binary = protocol == Some(frames::PROTOBUF);
                let mut client = Client { socket, is_binary, id: String::new() };
                match client.next().await.payload {
                    Some(Payload::ConnectionEstablished(first)) => client.id = first.connection_id,
                    other => panic!("not the first frame: {other:?}"),
                }
                Ok(client)
            }
            Err(SocketError::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err(Refusal {
                    status: response.status().as_u16(),
                    body: serde_json::from_slice(&body).unwrap_or_default(),
                    retry_after: response.headers().get("retry-after").map(|v| v.to_str().expect("text").to_owned()),
                })
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts a second gateway on the same systems; returns it with where its clients connect.
    pub(crate) async fn second_gateway(&self) -> (Process, SocketAddr) {
        let ports = Ports { registry: self.registry.clone(), revocations: self.revocations.clone() };
        let redis = adapters::redis::Config::new("redis://unused", "");
        let settings = Settings {
            limits: roomy(),
            ..Settings::on_loopback(redis, self.folder.clone(), vec![self.at_ingest.to_string()])
        };
        let process = Process::new();
        let running = wire_up::start_on(ports, settings, &process).await.expect("started");
        let (listener, address) = process.bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
        process.serve_http("clients", listener, running.http);
        (process, address)
    }

    /// The same with the clients' address of another gateway.
    pub(crate) fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Opens a delivery stream, as fanout does.
    pub(crate) async fn delivery(&self) -> Delivery {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", self.running.grpc))
            .expect("an address")
            .connect()
            .await
            .expect("reached");
        let mut client = DeliveryClient::with_interceptor(channel, self.token.attach());
        let (frames, receiver) = tokio::sync::mpsc::channel(16);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let answers = client.deliver(stream).await.expect("a stream").into_inner();
        Delivery { frames, answers, gateway_id: self.running.gateway.id.to_string() }
    }
}

/// A refused handshake.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) body: serde_json::Value,
    pub(crate) retry_after: Option<String>,
}

/// fanout's end of a delivery stream.
pub(crate) struct Delivery {
    frames: tokio::sync::mpsc::Sender<DeliveryFrame>,
    answers: tonic::Streaming<DeliveryAnswer>,
    pub(crate) gateway_id: String,
}

impl Delivery {
    pub(crate) async fn send(&mut self, frame: DeliveryFrame) -> DeliveryAnswer {
        let gateway_id = if frame.gateway_id.is_empty() { self.gateway_id.clone() } else { frame.gateway_id.clone() };
        self.frames.send(DeliveryFrame { gateway_id, ..frame }).await.expect("taken");
        timeout(PATIENCE, self.answers.message()).await.expect("in time").expect("an answer").expect("an answer")
    }
}

/// A message of these words, with an id of its own.
pub(crate) fn said(chat: ChatId, content: &str) -> Ask {
    let client_message_id = uuid::Uuid::from_u128(SystemIds.ulid().0).to_string();
    let (chat_id, content) = (chat.to_string(), content.to_owned());
    Ask::SendMessage(SendMessage { client_message_id, chat_id, content, content_type: String::new() })
}

/// A client.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) is_binary: bool,
    pub(crate) id: String,
}

impl Client {
    pub(crate) async fn ask(&mut self, request_id: &str, payload: Ask) {
        self.feed(request_id, payload).await;
        self.socket.flush().await.expect("sent");
    }

    /// It goes with what is sent next, in one piece.
    pub(crate) async fn feed(&mut self, request_id: &str, payload: Ask) {
        let frame = ClientFrame { request_id: request_id.into(), trace_context: None, payload: Some(payload) };
        let message = if self.is_binary {
            Message::Binary(frames::client_to_protobuf(&frame).into())
        } else {
            Message::Text(frames::client_to_json(&frame).into())
        };
        self.socket.feed(message).await.expect("sent");
    }

    pub(crate) async fn send(&mut self, request_id: &str, chat: ChatId, content: &str) {
        self.ask(request_id, said(chat, content)).await;
    }

    /// Sends all in one piece, with their places as request ids.
    pub(crate) async fn send_at_once(&mut self, chat: ChatId, contents: &[&str]) {
        for (place, content) in contents.iter().enumerate() {
            self.feed(&place.to_string(), said(chat, content)).await;
        }
        self.socket.flush().await.expect("sent");
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.socket.send(Message::Text(text.into())).await.expect("sent");
    }

    /// Sends what is no frame, in the form that was agreed.
    pub(crate) async fn nonsense(&mut self) {
        let nonsense =
            if self.is_binary { Message::Binary(vec![0xff; 7].into()) } else { Message::Text("nonsense".into()) };
        self.socket.send(nonsense).await.expect("sent");
    }

    /// Sends a frame of a type that nobody knows.
    pub(crate) async fn wave(&mut self) {
        let wave = if self.is_binary {
            Message::Binary(b"\x0a\x01r\x9a\x06\x00".to_vec().into())
        } else {
            Message::Text(r#"{"type":"wave","request_id":"r","payload":{}}"#.into())
        };
        self.socket.send(wave).await.expect("sent");
    }

    /// The next frame that is not a close.
    pub(crate) async fn next(&mut self) -> ServerFrame {
        match self.next_or_close().await {
            Ok(frame) => frame,
            Err(code) => panic!("closed with {code}"),
        }
    }

    pub(crate) async fn next_or_close(&mut self) -> Result<ServerFrame, u16> {
        match timeout(PATIENCE, self.socket.next()).await.expect("in time").expect("a frame").expect("a frame") {
            Message::Text(text) => Ok(frames::server_from_json(text.as_str()).expect("a frame")),
            Message::Binary(bytes) => Ok(frames::server_from_protobuf(&bytes).expect("a frame")),
            Message::Close(frame) => Err(frame.map_or(1005, |frame| frame.code.into())),
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// The code and details of the next frame, which must be an error with that request id.
    pub(crate) async fn error(&mut self, request_id: &str) -> proto::messaging::v1::ErrorFrame {
        let frame = self.next().await;
        assert_eq!(frame.request_id, request_id, "{frame:?}");
        match frame.payload {
            Some(Payload::Error(error)) => error,
            other => panic!("not an error: {other:?}"),
        }
    }

    /// Reads to the end: the reason of `connection_closing`, and the close code. Other frames are passed over.
    pub(crate) async fn closing(&mut self) -> (String, u16) {
        let mut reason = String::new();
        loop {
            match self.next_or_close().await {
                Ok(ServerFrame { payload: Some(Payload::ConnectionClosing(closing)), .. }) => reason = closing.reason,
                Ok(_) => {}
                Err(code) => return (reason, code),
            }
        }
    }
}

pub(crate) fn user() -> UserId {
    UserId(SystemIds.ulid())
}

pub(crate) fn chat() -> ChatId {
    ChatId(SystemIds.ulid())
}

pub(crate) fn device() -> String {
    uuid::Uuid::from_u128(SystemIds.ulid().0).to_string()
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
