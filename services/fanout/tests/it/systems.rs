//! The service as it is wired, on real systems: a log, a store, a cache, and gateways that note what they are sent.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use adapters::{
    dynamodb::{self, chats::Chats},
    kafka::{
        self,
        admin::{Admin, Connection as ToBrokers, Mode, Security, TopicSpec},
        publisher::Publisher,
        source::Source,
    },
    redis::{self, connection_registry::Registry},
};
use domain::{
    ids::{ChatId, ConnectionId, DeviceId, EventId, UserId},
    ports::{
        Chats as _, ConnectionRegistry as _, EventPublisher as _, EventSource as _, Publication,
        chats::Cause,
        event_source::{Occurrence, Record},
    },
    route::Connection,
};
use fanout::{config::Settings, wire_up};
use platform::{Process, Secret, grpc::InternalToken};
use proto::topics::Topic;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::{gateway::Gateway, ground, on::On, world::eventually};

/// No wait is longer.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Partitions of each topic.
const PARTITIONS: u32 = 4;

/// Everything around a fanout.
pub(crate) struct Systems {
    pub(crate) process: Process,
    pub(crate) token: InternalToken,
    pub(crate) store: dynamodb::Config,
    pub(crate) registry: Registry,
    log: kafka::Config,
    redis: redis::Config,
    publisher: Arc<Publisher>,
    folder: PathBuf,
    _cache: embedded::Cache,
    embedded_log: Option<embedded::Log>,
}

impl Drop for Systems {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

impl Systems {
    pub(crate) async fn start(on: On) -> Self {
        let process = Process::new();
        let apart = ground::apart();
        let folder = std::env::temp_dir().join(format!("fanout-{}", process.ids().ulid()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("internal-token"), "s3cret").expect("a file");

        let endpoint = match on {
            On::Embedded => embedded::Store::start(None, &process).await.expect("a store").endpoint,
            On::Real => ground::dynamodb().to_owned(),
        };
        let store = dynamodb::Config {
            store_table_prefix: format!("{apart}-"),
            store_region: "us-east-1".to_owned(),
            store_endpoint: Some(endpoint),
            store_access_key: Some("test".to_owned()),
            store_secret_key: Some(Secret::new("test")),
        };
        make_tables(&store).await;

        let cache = embedded::Cache::start().await.expect("a redis-server");
        let redis = redis::Config::new(&cache.url, format!("{apart}."));
        let registry = Registry::new(redis::Cache::new(&redis).expect("a client"));

        let prefix = format!("{apart}.");
        let topics = Topic::ALL.map(|topic| (format!("{prefix}{}", topic.name()), PARTITIONS));
        let (embedded, log) = match on {
            On::Embedded => {
                let log = embedded::Log::start(&topics).expect("a log");
                let config = kafka::Config::new(&log.brokers, prefix);
                (Some(log), config)
            }
            On::Real => {
                let config = kafka::Config::new(&ground::kafka().plain, prefix);
                make_topics(&config, topics).await;
                (None, config)
            }
        };
        let publisher = Publisher::new(&log, &process).expect("a publisher");
        let token = InternalToken::new(&Secret::new("s3cret")).expect("valid");
        Self { process, token, store, registry, log, redis, publisher, folder, _cache: cache, embedded_log: embedded }
    }

    /// One more fanout, when it is ready.
    pub(crate) async fn fanout(&self) -> Process {
        let process = Process::new();
        let mut settings =
            Settings::on_loopback(self.store.clone(), self.log.clone(), self.redis.clone(), self.folder.clone());
        if self.embedded_log.is_some() {
            // Each change of the embedded log's groups waits for a second less than this, whoever has come by then.
            settings.source.log_session_timeout = Duration::from_secs(3);
        }
        wire_up::start(settings, &process).await.expect("started");
        eventually("it is ready", || process.not_ready().is_empty()).await;
        process
    }

    pub(crate) async fn gateway(&self) -> Gateway {
        Gateway::start(&self.process, &self.token).await
    }

    pub(crate) fn user(&self) -> UserId {
        UserId::new(&*self.process.ids())
    }

    /// A device of the user that is connected there.
    pub(crate) async fn connect(&self, user: UserId, gateway: &Gateway) -> ConnectionId {
        let (id, now) = (ConnectionId(self.process.ids().ulid()), self.process.clock().now());
        let device = DeviceId(Uuid::from_u128(self.process.ids().ulid().0));
        let connection = Connection { id, user, device, gateway: gateway.id.clone(), connected_at: now };
        self.registry.register(&connection, now, Duration::from_mins(5)).await.expect("registered");
        id
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

    /// Puts a value on the topic of messages, and waits until the log has it.
    pub(crate) async fn publish(&self, chat: ChatId, value: Vec<u8>, headers: Vec<(&'static str, String)>) {
        let record = Publication { topic: Topic::MessagesPersisted.name(), key: chat.to_string(), value, headers };
        let taken = self.publisher.publish(record).expect("taken");
        timeout(PATIENCE, taken).await.expect("in time").expect("confirmed");
    }

    /// The next records of a topic for that group.
    pub(crate) async fn records(&self, topic: Topic, group: &str, count: usize) -> Vec<Record> {
        let settings = kafka::source::Settings {
            log_fetch_wait: Duration::from_millis(5),
            log_session_timeout: Duration::from_secs(6),
            ..kafka::source::Settings::default()
        };
        let source = Source::new(&self.log, &settings, &[topic], group, &self.process).expect("a source");
        let mut all = Vec::new();
        while all.len() < count {
            match timeout(PATIENCE, source.next()).await.expect("in time").expect("an occurrence") {
                Occurrence::Records(records) => all.extend(records),
                Occurrence::Assigned(_) | Occurrence::Revoked(_) => {}
            }
        }
        source.leave().await;
        all
    }

    pub(crate) async fn stop(self, fanouts: impl IntoIterator<Item = Process>) {
        for process in fanouts {
            timeout(PATIENCE, process.shut_down()).await.expect("it stops");
        }
        timeout(PATIENCE, self.process.shut_down()).await.expect("they stop");
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

async fn make_topics(config: &kafka::Config, topics: impl IntoIterator<Item = (String, u32)>) {
    let brokers = config.log_brokers.clone();
    let admin = Admin::new(&ToBrokers { brokers, security: Security::default(), within: PATIENCE }).expect("an admin");
    let spec =
        |(name, partitions)| TopicSpec { name, partitions, replication_factor: Some(1), configs: BTreeMap::new() };
    let made = admin.create(topics.into_iter().map(spec).collect(), Mode::Do).await.expect("asked");
    assert!(made.values().all(Result::is_ok), "{made:?}");
    let names: Vec<String> = made.into_keys().collect();
    let deadline = Instant::now() + PATIENCE;
    while !admin.describe(&names).await.expect("described").values().all(|topic| matches!(topic, Ok(Some(_)))) {
        assert!(Instant::now() < deadline, "the topics never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
