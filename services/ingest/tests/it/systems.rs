//! The service on real systems: an ingest or two over gRPC, the store behind a recorder, and a reader of the log.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adapters::{
    dynamodb::{self, chats::Chats, message_log::MessageLog},
    kafka::{
        self,
        admin::{Admin, Connection, Mode, Security, TopicSpec},
        source::Source,
    },
};
use domain::{
    ids::{ChatId, EventId, UserId},
    ports::{
        Chats as _, EventSource as _, MessageLog as _,
        chats::Cause,
        event_source::{Occurrence, Record},
    },
};
use ingest::{Settings, wire_up};
use platform::{Process, Secret, grpc::InternalToken};
use proto::{
    messaging::v1::{PersistMessageRequest, PersistMessageResponse, ingest_client::IngestClient},
    topics::Topic,
};
use tokio::time::{Instant, timeout};
use tonic::{
    Request, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::{ground, on::On, world::eventually};

/// No wait is longer.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Who asks the store only to be seen in the record.
const MARKER: &str = "marker";
/// Partitions of the topic.
pub(crate) const PARTITIONS: u32 = 8;

/// A store and a log with what the service needs in them; all of it ends with [`Systems::stop`].
pub(crate) struct Systems {
    pub(crate) process: Process,
    pub(crate) store: dynamodb::Config,
    pub(crate) log: kafka::Config,
    folder: PathBuf,
    marks: AtomicUsize,
    _log: Option<embedded::Log>,
}

impl Drop for Systems {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// One ingest that runs.
pub(crate) struct Service {
    pub(crate) process: Process,
    client: IngestClient<InterceptedService<Channel, Attach>>,
}

/// Shows the token.
#[derive(Clone)]
pub(crate) struct Attach(InternalToken);

impl tonic::service::Interceptor for Attach {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        tonic::service::Interceptor::call(&mut self.0.attach(), request)
    }
}

impl Systems {
    pub(crate) async fn start(on: On) -> Self {
        let process = Process::new();
        let apart = ground::apart();
        let folder = std::env::temp_dir().join(format!("ingest-{}", process.ids().ulid()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::File::create(folder.join("token")).and_then(|mut file| file.write_all(b"s3cret\n")).expect("a file");

        let behind = match on {
            On::Embedded => embedded::Store::start(None, &process).await.expect("a store"),
            On::Real => embedded::Store { endpoint: ground::dynamodb().to_owned() },
        };
        let recorded = behind.recorded_to(&folder.join("calls"), &process).await.expect("a recorder");
        let store = dynamodb::Config {
            store_table_prefix: format!("{apart}-"),
            store_region: "us-east-1".to_owned(),
            store_endpoint: Some(recorded.endpoint),
            store_access_key: Some("test".to_owned()),
            store_secret_key: Some(Secret::new("test")),
        };
        make_tables(&store).await;

        let prefix = format!("{apart}.");
        let topic = format!("{prefix}{}", Topic::MessagesPersisted.name());
        let (embedded, log) = match on {
            On::Embedded => {
                let log = embedded::Log::start(&[(topic, PARTITIONS)]).expect("a log");
                let config = kafka::Config::new(&log.brokers, prefix);
                (Some(log), config)
            }
            On::Real => {
                let config = kafka::Config::new(&ground::kafka().plain, prefix);
                make_topic(&config, topic).await;
                (None, config)
            }
        };
        Self { process, store, log, folder, marks: AtomicUsize::new(0), _log: embedded }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::on_loopback(self.store.clone(), self.log.clone(), self.folder.join("token"))
    }

    /// One more ingest, when it is ready.
    pub(crate) async fn service(&self, settings: Settings) -> Service {
        let process = Process::new();
        let running = wire_up::start(settings, &process).await.expect("started");
        eventually("it is ready", || process.not_ready().is_empty()).await;
        let channel = Endpoint::from_shared(format!("http://{}", running.grpc)).expect("a URL");
        let channel = channel.connect().await.expect("connected");
        let token = InternalToken::new(&Secret::new("s3cret")).expect("a token");
        Service { process, client: IngestClient::with_interceptor(channel, Attach(token)) }
    }

    pub(crate) fn user(&self) -> UserId {
        UserId::new(&*self.process.ids())
    }

    /// A chat of two.
    pub(crate) async fn chat(&self, one: UserId, other: UserId) -> ChatId {
        let ids = self.process.ids();
        let chat = ChatId::new(&*ids);
        let chats = Chats::new(dynamodb::Store::new(&self.store).await, ids.clone());
        let cause = Cause { by: one, at: self.process.clock().now(), event: EventId::new(&*ids), traceparent: None };
        chats.create_direct(chat, other, &cause).await.expect("a chat");
        chat
    }

    /// A send of a new message.
    pub(crate) fn send(&self, chat: ChatId, sender: UserId, content: &str) -> PersistMessageRequest {
        PersistMessageRequest {
            chat_id: chat.to_string(),
            sender_id: sender.to_string(),
            client_message_id: Uuid::from_u128(self.process.ids().ulid().0).to_string(),
            content: content.to_owned(),
            ..PersistMessageRequest::default()
        }
    }

    /// The first so many records of the topic.
    pub(crate) async fn records(&self, count: usize) -> Vec<Record> {
        let mut left = count;
        self.records_until(async |_| {
            left -= 1;
            left == 0
        })
        .await
    }

    /// The records of the topic up to the one that is enough, by a group of its own; each is looked at as it comes.
    pub(crate) async fn records_until(&self, mut is_enough: impl AsyncFnMut(&Record) -> bool) -> Vec<Record> {
        let settings = kafka::source::Settings {
            log_fetch_wait: Duration::from_millis(5),
            log_session_timeout: Duration::from_secs(6),
            ..kafka::source::Settings::default()
        };
        let group = format!("reader-{}", self.process.ids().ulid());
        let source = Source::new(&self.log, &settings, &[Topic::MessagesPersisted], &group, &self.process);
        let source: Arc<Source> = source.expect("a source");
        let mut all = Vec::new();
        'reading: loop {
            match timeout(PATIENCE, source.next()).await.expect("in time").expect("an occurrence") {
                Occurrence::Records(records) => {
                    for record in records {
                        let is_last = is_enough(&record).await;
                        all.push(record);
                        if is_last {
                            break 'reading;
                        }
                    }
                }
                Occurrence::Assigned(_) | Occurrence::Revoked(_) => {}
            }
        }
        source.leave().await;
        all
    }

    /// What ingest has asked of the store for its callers, by operation: all but its lease.
    pub(crate) async fn calls(&self) -> BTreeMap<String, usize> {
        let mut by_operation = BTreeMap::new();
        for call in self.recorded().await {
            let operation = call["operation"].as_str().expect("a name");
            if call["service"] == "ingest" && !["PutItem", "UpdateItem"].contains(&operation) {
                *by_operation.entry(operation.to_owned()).or_default() += 1;
            }
        }
        by_operation
    }

    /// Every call that was answered by now. Lines come in the order of the answers, so that one more call, of somebody
    /// else, is behind them.
    async fn recorded(&self) -> Vec<serde_json::Value> {
        let marked = self.marks.fetch_add(1, Ordering::Relaxed) + 1;
        let noticed = MessageLog::new(dynamodb::Store::for_service(&self.store, MARKER).await);
        noticed.head(ChatId::new(&*self.process.ids())).await.expect("answered");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = read_lines(&self.folder.join("calls"));
            if lines.iter().filter(|line| line["service"] == MARKER).count() == marked {
                return lines;
            }
            assert!(Instant::now() < deadline, "the record never has the call of now");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn stop(self, services: impl IntoIterator<Item = Service>) {
        for service in services {
            drop(service.client);
            timeout(PATIENCE, service.process.shut_down()).await.expect("it stops");
        }
        timeout(PATIENCE, self.process.shut_down()).await.expect("they stop");
    }
}

impl Service {
    pub(crate) fn client(&self) -> IngestClient<InterceptedService<Channel, Attach>> {
        self.client.clone()
    }

    /// Sends once.
    pub(crate) async fn persist(&self, send: PersistMessageRequest) -> Result<PersistMessageResponse, Status> {
        self.client().persist_message(send).await.map(tonic::Response::into_inner)
    }
}

/// A store that has just begun may answer late; what is there already is left as it is.
async fn make_tables(config: &dynamodb::Config) {
    let store = dynamodb::Store::new(config).await;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = store.create_tables().await {
        assert!(Instant::now() < deadline, "no tables: {error:#}");
    }
}

async fn make_topic(config: &kafka::Config, name: String) {
    let connection =
        Connection { brokers: config.log_brokers.clone(), security: Security::default(), within: PATIENCE };
    let admin = Admin::new(&connection).expect("an admin");
    let spec =
        TopicSpec { name: name.clone(), partitions: PARTITIONS, replication_factor: Some(1), configs: BTreeMap::new() };
    let made = admin.create(vec![spec], Mode::Do).await.expect("asked");
    assert!(made.values().all(Result::is_ok), "{made:?}");
    let deadline = Instant::now() + PATIENCE;
    let names = [name];
    while !admin.describe(&names).await.expect("described").values().all(|topic| matches!(topic, Ok(Some(_)))) {
        assert!(Instant::now() < deadline, "the topic never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The lines that are whole.
fn read_lines(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).expect("a record");
    text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}
