//! The service as it is wired, on the embedded log and cache.

use std::{path::PathBuf, time::Duration};

use adapters::{dynamodb, kafka, redis};
use domain::{
    Ids as _, Millis,
    ids::{ConnectionId, DeviceId, UserId},
    ports::{
        ConnectionRegistry as _, EventPublisher as _, MembershipCache as _, Publication, membership_cache::Generation,
    },
    route::Connection,
};
use fanout::{config::Settings, wire_up};
use platform::{Process, Secret, clock::SystemIds, grpc::InternalToken};
use prost::Message as _;
use proto::topics::Topic;
use uuid::Uuid;

use crate::{
    gateway::Gateway,
    world::{ANNA, BEN, CHAT, eventually, message, sequences},
};

/// A folder with the token, gone with the test.
struct AuthDir(PathBuf);

impl AuthDir {
    fn new(token: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanout-{}", SystemIds.ulid()));
        std::fs::create_dir(&path).expect("a folder");
        std::fs::write(path.join("internal-token"), token).expect("a file");
        Self(path)
    }
}

impl Drop for AuthDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removed");
    }
}

fn connection(user: UserId, gateway: &Gateway) -> Connection {
    Connection {
        id: ConnectionId(SystemIds.ulid()),
        user,
        device: DeviceId(Uuid::nil()),
        gateway: gateway.id.clone(),
        connected_at: Millis(0),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_from_the_log_to_the_gateway_that_the_registry_names() {
    let topics = Topic::ALL.map(|topic| (format!("test.{}", topic.name()), 4));
    let log = embedded::Log::start(&topics).expect("loopback");
    let server = embedded::Cache::start().await.expect("a redis-server");
    let auth_dir = AuthDir::new("s3cret");
    let (process, outside) = (Process::new(), Process::new());
    let token = InternalToken::new(&Secret::new("s3cret")).expect("valid");
    let gateway = Gateway::start(&outside, &token).await;

    let redis_config = redis::Config::new(&server.url, "test.");
    let cache = redis::Cache::new(&redis_config).expect("connected");
    let registry = redis::connection_registry::Registry::new(cache.clone());
    for user in [ANNA, BEN] {
        let now = outside.clock().now();
        registry.register(&connection(user, &gateway), now, Duration::from_mins(1)).await.expect("registered");
    }
    registry.announce(&gateway.id, Duration::from_mins(1)).await.expect("announced");
    let members = redis::membership_cache::RedisMembershipCache::new(cache);
    members.fill(CHAT, Generation(0), &[ANNA, BEN], Duration::from_mins(5)).await.expect("remembered");

    // Nothing is asked of the store: the members are remembered, and the log has no holes.
    let store = dynamodb::Config {
        store_table_prefix: "test-".to_owned(),
        store_region: "us-east-1".to_owned(),
        store_endpoint: Some("http://127.0.0.1:1".to_owned()),
        store_access_key: Some("test".to_owned()),
        store_secret_key: Some(Secret::new("test")),
    };
    let log_config = kafka::Config::new(&log.brokers, "test.");
    let settings = Settings::on_loopback(store, log_config.clone(), redis_config, &auth_dir.0);
    wire_up::start(settings, &process).await.expect("started");
    eventually("ready but for the store", || process.not_ready() == ["store"]).await;

    let publisher = kafka::publisher::Publisher::new(&log_config, &outside).expect("a publisher");
    for sequence in 1..=20 {
        let record = Publication {
            topic: Topic::MessagesPersisted.name(),
            key: CHAT.to_string(),
            value: message(sequence).encode_to_vec(),
            headers: Vec::new(),
        };
        drop(publisher.publish(record).expect("taken"));
    }
    eventually("delivered", || sequences(&gateway).len() >= 20).await;
    assert_eq!(sequences(&gateway), (1..=20).collect::<Vec<_>>());
    for mut frame in gateway.frames() {
        frame.user_ids.sort();
        assert_eq!(frame.user_ids, [ANNA.to_string(), BEN.to_string()]);
    }
    tokio::time::timeout(Duration::from_secs(20), process.shut_down()).await.expect("it stops");
    tokio::time::timeout(Duration::from_secs(20), outside.shut_down()).await.expect("they stop");
}
