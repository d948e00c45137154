//! A gateway with everything around it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    Clock as _, Error, ErrorKind, Ids as _, Millis,
    ids::{ChatId, ConnectionId, SessionId, UserId},
    ports::{ConnectionRegistry, Revocations, connection_registry::Registered},
    route::{Connection, GatewayId},
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
    wire,
};
use proto::{
    frames,
    messaging::v1::{
        AckDeliveryRequest, AckDeliveryResponse, ChatHead, ClientFrame, DeliveryAnswer, DeliveryFrame, HeadsRequest,
        HeadsResponse, PersistMessageRequest, PersistMessageResponse, PersistMessagesRequest, PersistMessagesResponse,
        PersistOutcome, Refusal, SendMessage, ServerFrame, SyncItem, SyncMessagesRequest, SyncMessagesResponse,
        client_frame::Payload as Ask,
        delivery_client::DeliveryClient,
        ingest_server::{Ingest, IngestServer},
        persist_outcome,
        server_frame::Payload,
    },
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as SocketError, Message, client::IntoClientRequest as _, http::HeaderValue},
};
use tonic::{Request, Response, Status};

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

/// A client.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) is_binary: bool,
    pub(crate) id: String,
}

impl Client {
    pub(crate) async fn ask(&mut self, request_id: &str, payload: Ask) {
        let frame = ClientFrame { request_id: request_id.into(), payload: Some(payload) };
        let message = if self.is_binary {
            Message::Binary(frames::client_to_protobuf(&frame).into())
        } else {
            Message::Text(frames::client_to_json(&frame).into())
        };
        self.socket.send(message).await.expect("sent");
    }

    pub(crate) async fn send(&mut self, request_id: &str, chat: ChatId, content: &str) {
        let client_message_id = uuid::Uuid::from_u128(SystemIds.ulid().0).to_string();
        let (chat_id, content) = (chat.to_string(), content.to_owned());
        let send = SendMessage { client_message_id, chat_id, content, content_type: String::new() };
        self.ask(request_id, Ask::SendMessage(send)).await;
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

pub(crate) async fn serve_ingest(process: &Process, ingest: Arc<FakeIngest>, token: &InternalToken) -> SocketAddr {
    let (listener, address) = process.bind("ingest", SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
    let server = IngestServer::with_interceptor(IngestDoor(ingest), token.require());
    process.serve_grpc("ingest", listener, tonic::service::Routes::new(server));
    address
}

/// Stores messages in memory; a content of `!KIND` is refused with that kind.
#[derive(Default)]
pub(crate) struct FakeIngest {
    pub(crate) stored: Mutex<BTreeMap<ChatId, Vec<PersistMessageRequest>>>,
    pub(crate) acks: Mutex<Vec<AckDeliveryRequest>>,
    /// While it is set, sends wait for permits of `gate`.
    pub(crate) is_gated: AtomicBool,
    pub(crate) gate: Semaphore0,
    pub(crate) under_way: AtomicUsize,
    pub(crate) syncs_under_way: AtomicUsize,
    pub(crate) most_syncs: AtomicUsize,
    /// Calls with more than one message.
    pub(crate) calls_of_many: AtomicUsize,
}

/// A semaphore that begins empty.
pub(crate) struct Semaphore0(pub(crate) Semaphore);

impl Default for Semaphore0 {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl FakeIngest {
    pub(crate) fn texts(&self, chat: ChatId) -> Vec<String> {
        let stored = self.stored.lock().expect("whole");
        stored.get(&chat).map(|list| list.iter().map(|send| send.content.clone()).collect()).unwrap_or_default()
    }
}

pub(crate) struct IngestDoor(pub(crate) Arc<FakeIngest>);

#[tonic::async_trait]
impl Ingest for IngestDoor {
    async fn persist_message(
        &self,
        request: Request<PersistMessageRequest>,
    ) -> Result<Response<PersistMessageResponse>, Status> {
        let send = request.into_inner();
        self.0.under_way.fetch_add(1, Ordering::SeqCst);
        if self.0.is_gated.load(Ordering::SeqCst) {
            self.0.gate.0.acquire().await.expect("open").forget();
        }
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        let kind = ErrorKind::ALL.into_iter().find(|kind| send.content == format!("!{kind:?}"));
        if let Some(kind) = kind {
            return Err(wire::to_status(&Error::new(kind, "refused")));
        }
        let mut stored = self.0.stored.lock().expect("whole");
        let list = stored.entry(send.chat_id.parse().expect("a chat")).or_default();
        let at = list.iter().position(|old| old.client_message_id == send.client_message_id);
        let is_duplicate = at.is_some();
        let at = at.unwrap_or_else(|| {
            list.push(send);
            list.len() - 1
        });
        let message_id = format!("msg_{}", SystemIds.ulid());
        Ok(Response::new(PersistMessageResponse { message_id, sequence: at as u64 + 1, created_at: 7, is_duplicate }))
    }

    async fn persist_messages(
        &self,
        request: Request<PersistMessagesRequest>,
    ) -> Result<Response<PersistMessagesResponse>, Status> {
        let mut outcomes = Vec::new();
        for message in request.into_inner().messages {
            let outcome = match self.persist_message(Request::new(message)).await {
                Ok(stored) => persist_outcome::Outcome::Stored(stored.into_inner()),
                Err(status) => persist_outcome::Outcome::Refused(Refusal {
                    code: status.code().into(),
                    message: status.message().to_owned(),
                    details: status.details().to_vec(),
                }),
            };
            outcomes.push(PersistOutcome { outcome: Some(outcome) });
        }
        self.0.calls_of_many.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(PersistMessagesResponse { outcomes }))
    }

    async fn sync_messages(
        &self,
        request: Request<SyncMessagesRequest>,
    ) -> Result<Response<SyncMessagesResponse>, Status> {
        let request = request.into_inner();
        let now = self.0.syncs_under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_syncs.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.0.syncs_under_way.fetch_sub(1, Ordering::SeqCst);
        let stored = self.0.stored.lock().expect("whole");
        let Some(list) = stored.get(&request.chat_id.parse().expect("a chat")) else {
            return Err(wire::to_status(&Error::new(ErrorKind::NotAMember, "not a member")));
        };
        let above = list.iter().zip(1_u64..).filter(|(_, sequence)| *sequence > request.after_sequence);
        let page = above.take(request.limit as usize).map(|(send, sequence)| SyncItem {
            sequence,
            sender_id: send.sender_id.clone(),
            content: send.content.clone(),
            client_message_id: Some(send.client_message_id.clone()),
            ..SyncItem::default()
        });
        let messages: Vec<_> = page.collect();
        let end = messages.last().map_or(request.after_sequence, |item| item.sequence);
        let has_more = end < list.len() as u64;
        Ok(Response::new(SyncMessagesResponse { messages, has_more }))
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsResponse>, Status> {
        let stored = self.0.stored.lock().expect("whole");
        let mut response = HeadsResponse::default();
        for chat_id in request.into_inner().chat_ids {
            match stored.get(&chat_id.parse().expect("a chat")) {
                Some(list) => response.chats.push(ChatHead { chat_id, current_sequence: list.len() as u64 }),
                None => response.not_member.push(chat_id),
            }
        }
        Ok(Response::new(response))
    }

    async fn ack_delivery(
        &self,
        request: Request<AckDeliveryRequest>,
    ) -> Result<Response<AckDeliveryResponse>, Status> {
        let ack = request.into_inner();
        let last_acked_sequence = ack.last_acked_sequence;
        self.0.acks.lock().expect("whole").push(ack);
        Ok(Response::new(AckDeliveryResponse { last_acked_sequence }))
    }
}

/// The registry in memory; entries don't lapse by themselves.
#[derive(Default)]
pub(crate) struct MemoryRegistry {
    pub(crate) connections: Mutex<HashMap<ConnectionId, Connection>>,
    announced: Mutex<HashSet<GatewayId>>,
    pub(crate) is_away: AtomicBool,
}

impl MemoryRegistry {
    pub(crate) fn wipe(&self) {
        self.connections.lock().expect("whole").clear();
        self.announced.lock().expect("whole").clear();
    }

    pub(crate) fn of(&self, user: UserId) -> usize {
        self.connections.lock().expect("whole").values().filter(|one| one.user == user).count()
    }

    fn reach(&self) -> Result<(), Error> {
        if self.is_away.load(Ordering::SeqCst) { Err(Error::unavailable("away", "told to")) } else { Ok(()) }
    }
}

#[async_trait]
impl ConnectionRegistry for MemoryRegistry {
    async fn register(&self, connection: &Connection, _: Millis, _: Duration) -> Result<Registered, Error> {
        self.reach()?;
        let mut all = self.connections.lock().expect("whole");
        all.insert(connection.id, connection.clone());
        let own = all.values().filter(|one| one.user == connection.user);
        let replaced = own.clone().filter(|one| one.device == connection.device && one.id != connection.id);
        let replaced = replaced.map(|one| (one.id, one.gateway.clone())).collect();
        Ok(Registered { live: u32::try_from(own.count()).expect("few"), replaced })
    }

    async fn deregister(&self, connection: &Connection) -> Result<u32, Error> {
        self.reach()?;
        self.connections.lock().expect("whole").remove(&connection.id);
        Ok(u32::try_from(self.of(connection.user)).expect("few"))
    }

    async fn renew(&self, connections: &[Connection], _: Millis, _: Duration) -> Result<Vec<ConnectionId>, Error> {
        self.reach()?;
        let all = self.connections.lock().expect("whole");
        Ok(connections.iter().map(|one| one.id).filter(|id| !all.contains_key(id)).collect())
    }

    async fn announce(&self, gateway: &GatewayId, _: Duration) -> Result<bool, Error> {
        self.reach()?;
        Ok(!self.announced.lock().expect("whole").insert(gateway.clone()))
    }

    async fn gateways(&self, users: &[UserId]) -> Result<Vec<Vec<GatewayId>>, Error> {
        self.reach()?;
        let all = self.connections.lock().expect("whole");
        let of = |user: &UserId| all.values().filter(|one| one.user == *user).map(|one| one.gateway.clone()).collect();
        Ok(users.iter().map(of).collect())
    }
}

/// Revocations in memory.
#[derive(Default)]
pub(crate) struct MemoryRevocations {
    pub(crate) revoked: Mutex<HashSet<String>>,
    pub(crate) is_away: AtomicBool,
}

#[async_trait]
impl Revocations for MemoryRevocations {
    async fn is_revoked(&self, token_id: &str, session: SessionId) -> Result<bool, Error> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(Error::unavailable("away", "told to"));
        }
        let revoked = self.revoked.lock().expect("whole");
        Ok(revoked.contains(token_id) || revoked.contains(&session.to_string()))
    }

    async fn revoke_token(&self, token_id: &str, _: Duration) -> Result<(), Error> {
        self.revoked.lock().expect("whole").insert(token_id.to_owned());
        Ok(())
    }

    async fn revoke_session(&self, session: SessionId, _: Duration) -> Result<(), Error> {
        self.revoked.lock().expect("whole").insert(session.to_string());
        Ok(())
    }
}
