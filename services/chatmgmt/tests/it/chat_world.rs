//! A chatmgmt's chats over gRPC, on an embedded store, with people and a log in memory.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use adapters::dynamodb::{Config, Store};
use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chatmgmt::{caller::Callers, config::Limits, wire_up};
use domain::{
    Clock as _, Error, Ids as _, Millis,
    ids::{SessionId, UserId},
    ports::{EventPublisher, Publication, PublishFailure, Revocations, Users, event_publisher::Confirmation},
    user::{DisplayName, Phone, PhoneHash, User},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use platform::{
    Process, Secret,
    clock::{SystemClock, SystemIds},
    tokens::{AUDIENCE, Claims, ISSUER, Verifier},
};
use prost::Message as _;
use proto::{events::v1::Envelope, messaging::v1::chats_client::ChatsClient};
use tokio::sync::watch;
use tonic::{
    Request,
    service::Routes,
    transport::{Channel, Endpoint},
};

/// Until when what is waited for must be there.
pub(crate) const WITHIN: Duration = Duration::from_secs(20);

/// Waits until it holds.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// People by id.
#[derive(Default)]
pub(crate) struct People(Mutex<HashMap<UserId, User>>);

#[async_trait]
impl Users for People {
    async fn user(&self, id: UserId) -> Result<Option<User>, Error> {
        Ok(self.0.lock().expect("unpoisoned").get(&id).cloned())
    }

    async fn users(&self, ids: &[UserId]) -> Result<Vec<User>, Error> {
        let people = self.0.lock().expect("unpoisoned");
        Ok(ids.iter().filter_map(|id| people.get(id).cloned()).collect())
    }

    async fn by_phone(&self, _phones: &[PhoneHash]) -> Result<HashMap<PhoneHash, UserId>, Error> {
        Ok(HashMap::new())
    }

    async fn rename(&self, id: UserId, name: &DisplayName, at: Millis) -> Result<Option<User>, Error> {
        let mut people = self.0.lock().expect("unpoisoned");
        let Some(user) = people.get_mut(&id) else { return Ok(None) };
        (user.display_name, user.updated_at) = (Some(name.clone()), at);
        Ok(Some(user.clone()))
    }
}

struct NothingRevoked;

#[async_trait]
impl Revocations for NothingRevoked {
    async fn is_revoked(&self, _token_id: &str, _session: SessionId) -> Result<bool, Error> {
        Ok(false)
    }

    async fn revoke_token(&self, _token_id: &str, _ttl: Duration) -> Result<(), Error> {
        Ok(())
    }

    async fn revoke_session(&self, _session: SessionId, _ttl: Duration) -> Result<(), Error> {
        Ok(())
    }
}

/// A log that keeps what was confirmed, and can be held back.
pub(crate) struct Log {
    records: Mutex<Vec<(Publication, Instant)>>,
    is_up: watch::Sender<bool>,
}

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { records: Mutex::default(), is_up: watch::Sender::new(true) })
    }

    pub(crate) fn hold(&self) {
        self.is_up.send_replace(false);
    }

    pub(crate) fn let_go(&self) {
        self.is_up.send_replace(true);
    }

    /// Everything confirmed, decoded, with its topic.
    pub(crate) fn events(&self) -> Vec<(&'static str, Envelope)> {
        let records = self.records.lock().expect("unpoisoned");
        let decode = |record: &Publication| Envelope::decode(record.value.as_slice()).expect("an envelope");
        records.iter().map(|(record, _)| (record.topic, decode(record))).collect()
    }

    pub(crate) fn records(&self) -> Vec<Publication> {
        self.records.lock().expect("unpoisoned").iter().map(|(record, _)| record.clone()).collect()
    }
}

/// The log as a publisher sees it.
pub(crate) struct Producer(pub(crate) Arc<Log>);

impl EventPublisher for Producer {
    fn publish(&self, record: Publication) -> Result<Confirmation, PublishFailure> {
        let log = self.0.clone();
        Ok(Box::pin(async move {
            let mut is_up = log.is_up.subscribe();
            is_up.wait_for(|is_up| *is_up).await.map_err(|_| PublishFailure::Fatal)?;
            log.records.lock().expect("unpoisoned").push((record, Instant::now()));
            Ok(())
        }))
    }

    fn is_connected(&self) -> bool {
        *self.0.is_up.borrow()
    }
}

/// A store that several processes share.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) people: Arc<People>,
    pub(crate) log: Arc<Log>,
    key: EncodingKey,
    verifier: Arc<Verifier>,
    // Holds the store.
    _process: Process,
}

/// One chatmgmt on it.
pub(crate) struct Server {
    pub(crate) process: Process,
    client: ChatsClient<Channel>,
}

/// A person who calls.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    token: String,
}

impl Person {
    /// A request of that person.
    pub(crate) fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.parse().expect("ASCII"));
        request
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let process = Process::new();
        let embedded = embedded::Store::start(None, &process).await.expect("loopback");
        let config = Config {
            store_table_prefix: "test-".to_owned(),
            store_region: "us-east-1".to_owned(),
            store_endpoint: Some(embedded.endpoint),
            store_access_key: Some("test".to_owned()),
            store_secret_key: Some(Secret::new("test")),
        };
        let store = Store::new(&config).await;
        store.create_tables().await.expect("tables");
        let (key, verifier) = keys();
        Self { store, people: Arc::default(), log: Log::new(), key, verifier, _process: process }
    }

    /// One more process on the same store.
    pub(crate) async fn server(&self, limits: &Limits) -> Server {
        let process = Process::new();
        let callers = Callers::new(self.verifier.clone(), Arc::new(NothingRevoked), process.clock());
        let log = Arc::new(Producer(self.log.clone()));
        let service = wire_up::chats(limits, &self.store, log, callers, self.people.clone(), &process);
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, address) = process.bind("--grpc-listen", free).await.expect("a free port");
        process.serve_grpc("grpc", listener, Routes::new(service));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Server { process, client: ChatsClient::new(endpoint.connect_lazy()) }
    }

    pub(crate) fn person(&self, name: &str) -> Person {
        let id = UserId::new(&SystemIds);
        let now = SystemClock.now();
        let user = User {
            id,
            phone: Phone::new("+12025550100").expect("valid"),
            display_name: Some(DisplayName::new(name).expect("valid")),
            created_at: now,
            updated_at: now,
        };
        self.people.0.lock().expect("unpoisoned").insert(id, user);
        let claims = Claims {
            sub: id.to_string(),
            sid: SessionId::new(&SystemIds).to_string(),
            jti: SystemIds.ulid().to_string(),
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            iat: now.seconds(),
            exp: now.seconds() + 3600,
            scope: "messaging".to_owned(),
        };
        let header = Header { kid: Some("test".to_owned()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &claims, &self.key).expect("signed");
        Person { id, token: format!("Bearer {token}") }
    }

    pub(crate) fn persons(&self, count: usize) -> Vec<Person> {
        (0..count).map(|n| self.person(&format!("person {n}"))).collect()
    }
}

impl Server {
    pub(crate) fn client(&self) -> ChatsClient<Channel> {
        self.client.clone()
    }
}

/// A key, and a verifier that reads its public half from a file.
fn keys() -> (EncodingKey, Arc<Verifier>) {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let jwks = serde_json::json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "test", "alg": "EdDSA", "use": "sig", "x": x}]});
    let file = std::env::temp_dir().join(format!("jwks-{}.json", SystemIds.ulid()));
    std::fs::write(&file, jwks.to_string()).expect("a file");
    let verifier = Verifier::from_jwks_file(&file).expect("keys");
    std::fs::remove_file(&file).expect("removed");
    let private = pair.to_pkcs8v1().expect("an encoded key");
    (EncodingKey::from_ed_der(private.as_ref()), Arc::new(verifier))
}
