//! Contract of `EventPublisher`: order, agreed partitions, confirmations that survive an absent broker.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::ports::event_publisher::{Confirmation, EventPublisher, Publication, PublishFailure};
use embedded::Log;
use platform::Process;
use proto::topics::Topic;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use super::{On, ground};
use crate::kafka::{
    Config,
    admin::{Admin, Connection, Mode, Security, TopicSpec},
    publisher::Publisher,
};

const WITHIN: Duration = Duration::from_secs(30);

/// A record as a reader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// A log with these topics, which ends or stays as its system does.
pub(crate) async fn start(on: On, topics: &[(Topic, u32)]) -> (Option<Log>, Config) {
    match on {
        On::Embedded => {
            let (log, config) = embedded(topics);
            (Some(log), config)
        }
        On::Real => (None, kafka(topics).await),
    }
}

async fn kafka(topics: &[(Topic, u32)]) -> Config {
    let config = Config::new(ground::kafka().plain.clone(), format!("{}.", ground::apart()));
    let connection = Connection { brokers: config.log_brokers.clone(), security: Security::default(), within: WITHIN };
    let admin = Admin::new(&connection).expect("an admin");
    let spec = |(topic, count): &(Topic, u32)| TopicSpec {
        name: config.topic(*topic),
        partitions: *count,
        replication_factor: Some(1),
        configs: BTreeMap::new(),
    };
    let made = admin.create(topics.iter().map(spec).collect(), Mode::Do).await.expect("asked");
    assert!(made.values().all(Result::is_ok), "{made:?}");
    let names: Vec<String> = made.into_keys().collect();
    let deadline = Instant::now() + WITHIN;
    while !admin.describe(&names).await.expect("described").values().all(|topic| matches!(topic, Ok(Some(_)))) {
        assert!(Instant::now() < deadline, "{names:?} do not appear");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    config
}

pub(crate) fn embedded(topics: &[(Topic, u32)]) -> (Log, Config) {
    let named: Vec<_> = topics.iter().map(|(topic, count)| (format!("test.{}", topic.name()), *count)).collect();
    let log = Log::start(&named).expect("loopback");
    let config = Config::new(log.brokers.clone(), "test.");
    (log, config)
}

pub(crate) fn record(key: &str, value: impl Into<Vec<u8>>) -> Publication {
    Publication {
        topic: Topic::MessagesPersisted.name(),
        key: key.to_owned(),
        value: value.into(),
        headers: vec![("event-type", "MessagePersisted".to_owned())],
    }
}

/// Reads that many records from all partitions of the topic.
fn read(config: &Config, topic: Topic, partitions: i32, count: usize) -> Vec<Found> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.log_brokers)
        .set("group.id", "reader")
        .set("fetch.wait.max.ms", "5")
        .create()
        .expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(&config.topic(topic), partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("assigned");
    let deadline = Instant::now() + WITHIN;
    let mut found = Vec::new();
    while found.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records", found.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let headers = message
                .headers()
                .map(|headers| headers.iter().map(|h| (h.key.to_owned(), text(h.value))).collect::<Vec<_>>());
            found.push(Found {
                partition: message.partition(),
                key: text(message.key()),
                value: text(message.payload()),
                headers: headers.unwrap_or_default(),
            });
        }
    }
    found
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).expect("UTF-8")
}

async fn confirmed(confirmations: Vec<Confirmation>) -> Vec<Result<(), PublishFailure>> {
    let mut answers = Vec::new();
    for confirmation in confirmations {
        answers.push(tokio::time::timeout(WITHIN, confirmation).await.expect("an answer in time"));
    }
    answers
}

async fn records_of_a_key_are_written_in_order_with_their_headers(on: On) {
    let (_log, config) = start(on, &[(Topic::MessagesPersisted, 4)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let taken: Vec<_> = (0..300)
        .map(|number| publisher.publish(record(&format!("chat_{}", number % 3), number.to_string())).expect("taken"))
        .collect();
    assert!(confirmed(taken).await.iter().all(Result::is_ok));
    let found = read(&config, Topic::MessagesPersisted, 4, 300);
    for chat in 0..3 {
        let key = format!("chat_{chat}");
        let values: Vec<u32> =
            found.iter().filter(|r| r.key == key).map(|r| r.value.parse().expect("a number")).collect();
        assert_eq!(values, (0..300).filter(|number| number % 3 == chat).collect::<Vec<_>>());
    }
    assert_eq!(found[0].headers, [("event-type".to_owned(), "MessagePersisted".to_owned())]);
    process.shut_down().await;
}

async fn a_record_lies_in_the_agreed_partition_of_its_chat(on: On) {
    let vectors = [("chat_abc123", 22), ("chat_xyz789", 42), ("chat_测试", 31), ("chat_🎉🎊", 45), ("abcde", 29)];
    let (_log, config) = start(on, &[(Topic::MessagesPersisted, 64)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let taken = vectors.iter().map(|(chat, _)| publisher.publish(record(chat, *chat)).expect("taken")).collect();
    assert!(confirmed(taken).await.iter().all(Result::is_ok));
    for found in read(&config, Topic::MessagesPersisted, 64, vectors.len()) {
        assert!(vectors.contains(&(&found.key, found.partition)), "{found:?}");
    }
    process.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_taken_while_the_broker_is_away_are_confirmed_when_it_is_back() {
    let (log, config) = embedded(&[(Topic::MessagesPersisted, 1)]);
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let first = publisher.publish(record("chat_a", "0")).expect("taken");
    assert_eq!(confirmed(vec![first]).await, [Ok(())]);
    log.take_down().expect("down");
    let taken: Vec<_> =
        (1..20).map(|number| publisher.publish(record("chat_a", number.to_string())).expect("taken")).collect();
    let mut last = publisher.publish(record("chat_a", "20")).expect("taken");
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut last).await.is_err(), "nobody can have confirmed it");
    log.bring_up().expect("up");
    assert!(confirmed(taken).await.iter().all(Result::is_ok));
    assert_eq!(confirmed(vec![last]).await, [Ok(())]);
    let values: Vec<_> = read(&config, Topic::MessagesPersisted, 1, 21).into_iter().map(|found| found.value).collect();
    assert_eq!(values, (0..21).map(|number| number.to_string()).collect::<Vec<_>>());
    process.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_starts_without_a_broker_and_a_full_queue_takes_nothing_more() {
    let (log, mut config) = embedded(&[(Topic::MessagesPersisted, 1)]);
    log.take_down().expect("down");
    config.log_queue_records = 3;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let taken: Vec<_> =
        (0..3).map(|number| publisher.publish(record("chat_a", number.to_string())).expect("taken")).collect();
    assert_eq!(publisher.publish(record("chat_a", "3")).err(), Some(PublishFailure::QueueFull));
    log.bring_up().expect("up");
    assert!(confirmed(taken).await.iter().all(Result::is_ok));
    // The library makes room a moment after it has confirmed.
    assert_eq!(confirmed(vec![retaken(&publisher, "3", PublishFailure::QueueFull).await]).await, [Ok(())]);
    process.shut_down().await;
}

async fn a_refused_record_does_not_end_the_producer(on: On) {
    let (_log, config) = start(on, &[(Topic::MessagesPersisted, 1)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let huge = vec![b'x'; 2_000_000];
    assert_eq!(publisher.publish(record("chat_a", huge)).err(), Some(PublishFailure::Refused));
    assert_eq!(confirmed(vec![publisher.publish(record("chat_a", "1")).expect("taken")]).await, [Ok(())]);
    process.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_failed_for_good_is_replaced_once_its_records_are_known_to_have_failed() {
    let cluster = MockCluster::new(1).expect("a cluster");
    cluster.create_topic("test.messages.persisted", 1, 1).expect("a topic");
    let process = Process::new();
    let config = Config::new(cluster.bootstrap_servers(), "test.");
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    assert_eq!(confirmed(vec![publisher.publish(record("chat_a", "0")).expect("taken")]).await, [Ok(())]);

    let fenced = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[fenced]);
    let failed = publisher.publish(record("chat_a", "1")).expect("taken");
    let unseen = publisher.publish(record("chat_a", "2")).expect("taken");
    assert_eq!(confirmed(vec![failed]).await, [Err(PublishFailure::Fatal)]);
    assert_eq!(publisher.publish(record("chat_a", "3")).err(), Some(PublishFailure::Fatal), "one failure is unseen");
    assert_eq!(confirmed(vec![unseen]).await, [Err(PublishFailure::Fatal)]);
    assert_eq!(confirmed(vec![retaken(&publisher, "1", PublishFailure::Fatal).await]).await, [Ok(())]);
    let values: Vec<_> = read(&config, Topic::MessagesPersisted, 1, 2).into_iter().map(|found| found.value).collect();
    assert_eq!(values, ["0", "1"]);
    process.shut_down().await;
}

/// Publishes as soon as records are taken again, which are refused for one reason until then.
async fn retaken(publisher: &Arc<Publisher>, value: &str, until_then: PublishFailure) -> Confirmation {
    let deadline = Instant::now() + WITHIN;
    loop {
        match publisher.publish(record("chat_a", value)) {
            Ok(confirmation) => return confirmation,
            Err(failure) => assert_eq!(failure, until_then),
        }
        assert!(Instant::now() < deadline, "no record is taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn a_stopping_process_writes_what_the_producer_holds(on: On) {
    let (_log, mut config) = start(on, &[(Topic::MessagesPersisted, 1)]).await;
    config.log_linger = Duration::from_millis(500);
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let taken = (0..10).map(|number| publisher.publish(record("chat_a", number.to_string())).expect("taken")).collect();
    process.shut_down().await;
    assert!(confirmed(taken).await.iter().all(Result::is_ok));
    assert_eq!(publisher.publish(record("chat_a", "late")).err(), Some(PublishFailure::Fatal));
}

on_all_systems! {
    records_of_a_key_are_written_in_order_with_their_headers,
    a_record_lies_in_the_agreed_partition_of_its_chat,
    a_refused_record_does_not_end_the_producer,
    a_stopping_process_writes_what_the_producer_holds,
}
