//! The embedded systems, each by its own protocol.

use std::{net::SocketAddr, time::Duration};

use embedded::{Cache, DataFolder, Log, Store};
use platform::Process;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn a_data_folder_has_one_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let held = DataFolder::lock(&folder.path().join("new")).expect("free");
    let refused = DataFolder::lock(held.path()).expect_err("in use");
    assert!(refused.to_string().contains(&format!("in use by process {}", std::process::id())), "{refused}");
    let path = held.path().to_owned();
    drop(held);
    DataFolder::lock(&path).expect("free again");
}

#[tokio::test]
async fn a_store_keeps_its_items_and_writes_its_calls_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let calls = folder.path().join("calls.jsonl");
    let create = r#"{"TableName":"abc","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"k","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"k","AttributeType":"S"}]}"#;
    let put = r#"{"TableName":"abc","Item":{"k":{"S":"one"}}}"#;
    let get = r#"{"TableName":"abc","Key":{"k":{"S":"one"}}}"#;
    for round in ["first", "second"] {
        let process = Process::new();
        let store = Store::start(Some(folder.path()), &process).await.expect("starts");
        let store = store.recorded_to(&calls, &process).await.expect("records");
        let address = store.endpoint.trim_start_matches("http://").parse().expect("an address");
        if round == "first" {
            assert!(call(address, "CreateTable", create).await.starts_with("HTTP/1.1 200"));
            assert!(call(address, "PutItem", put).await.starts_with("HTTP/1.1 200"));
        }
        let answer = call(address, "GetItem", get).await;
        assert!(answer.contains(r#""one""#), "{round}: {answer}");
        process.shut_down().await;
    }
    let recorded = std::fs::read_to_string(&calls).expect("calls");
    let operations: Vec<serde_json::Value> =
        recorded.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<&str> = operations.iter().filter_map(|call| call["operation"].as_str()).collect();
    assert_eq!(names, ["CreateTable", "PutItem", "GetItem", "GetItem"]);
    assert!(
        operations.iter().all(|call| call["service"] == "probe" && call["table"] == "abc" && call["status"] == 200)
    );
}

#[test]
fn a_log_lets_a_group_read_at_once_and_comes_back_from_an_outage() {
    let log = Log::start(&[("letters".to_owned(), 4)]).expect("starts");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &log.brokers)
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer");
    let send =
        |value: &str| producer.send(BaseRecord::to("letters").partition(3).key("k").payload(value)).expect("taken");
    send("one");
    producer.flush(DEADLINE).expect("confirmed");
    log.take_down().expect("down");
    send("two");
    log.bring_up().expect("up");
    producer.flush(DEADLINE).expect("confirmed after the outage");

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &log.brokers)
        .set("group.id", "readers")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&["letters"]).expect("subscribed");
    let mut read = Vec::new();
    let begun = std::time::Instant::now();
    while read.len() < 2 && begun.elapsed() < DEADLINE {
        if let Some(record) = consumer.poll(Duration::from_millis(50)) {
            let record = record.expect("a record");
            read.push(String::from_utf8(record.payload().expect("a value").to_vec()).expect("text"));
        }
    }
    assert_eq!(read, ["one", "two"]);
}

#[tokio::test]
async fn a_cache_ends_when_nobody_holds_it() {
    let cache = Cache::start().await.expect("starts");
    let address = cache.address;
    TcpStream::connect(address).await.expect("there");
    drop(cache);
    let deadline = Instant::now() + DEADLINE;
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "the server lives on");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_missing_redis_server_is_one_clear_line() {
    let error = Cache::start_program("no-such-redis-server").await.expect_err("not there");
    assert!(error.to_string().starts_with("no-such-redis-server is not installed"), "{error}");
}

/// One DynamoDB call over plain HTTP; returns the whole answer.
async fn call(address: SocketAddr, operation: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nuser-agent: test app/probe\r\n\
         content-type: application/x-amz-json-1.0\r\nx-amz-target: DynamoDB_20120810.{operation}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=b\r\n\
         x-amz-date: 20260101T000000Z\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}
