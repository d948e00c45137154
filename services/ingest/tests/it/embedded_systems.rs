//! The service on the embedded store and log, called over gRPC.

use std::{io::Write as _, path::PathBuf};

use domain::{
    ErrorKind,
    ids::{ChatId, EventId, UserId},
    ports::{Chats as _, chats::Cause},
};
use ingest::{Settings, wire_up};
use platform::{Process, Secret, grpc::InternalToken};
use proto::messaging::v1::{PersistMessageRequest, SyncMessagesRequest, ingest_client::IngestClient};
use tonic::transport::Channel;

use crate::world::eventually;

/// A file that goes with the value.
struct TokenFile(PathBuf);

impl TokenFile {
    fn new(process: &Process) -> Self {
        let path = std::env::temp_dir().join(format!("ingest-token-{}", process.ids().ulid()));
        std::fs::File::create(&path).and_then(|mut file| file.write_all(b"s3cret\n")).expect("a token file");
        Self(path)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap_or_default();
    }
}

/// A store with tables, and the settings of a service on it and on a log.
async fn settings(log: &embedded::Log, token_file: &TokenFile, process: &Process) -> Settings {
    let store = embedded::Store::start(None, process).await.expect("a store");
    let store = adapters::dynamodb::Config {
        store_table_prefix: "test-".to_owned(),
        store_region: "us-east-1".to_owned(),
        store_endpoint: Some(store.endpoint),
        store_access_key: Some("test".to_owned()),
        store_secret_key: Some(Secret::new("test")),
    };
    adapters::dynamodb::Store::new(&store).await.create_tables().await.expect("tables");
    let log = adapters::kafka::Config::new(log.brokers.clone(), "test.");
    Settings::on_loopback(store, log, token_file.0.clone())
}

fn log() -> embedded::Log {
    embedded::Log::start(&[("test.messages.persisted".to_owned(), 4)]).expect("a log")
}

async fn channel(running: wire_up::Running) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", running.grpc)).expect("a URL");
    endpoint.connect().await.expect("connected")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_stored_published_once_and_read_back() {
    let (systems, process) = (Process::new(), Process::new());
    let (token_file, log) = (TokenFile::new(&process), log());
    let settings = settings(&log, &token_file, &systems).await;
    let ids = process.ids();
    let (chat, alice, bob) = (ChatId::new(&*ids), UserId::new(&*ids), UserId::new(&*ids));
    let chats =
        adapters::dynamodb::chats::Chats::new(adapters::dynamodb::Store::new(&settings.store).await, process.ids());
    let cause = Cause { by: alice, at: process.clock().now(), event: EventId::new(&*ids), traceparent: None };
    chats.create_direct(chat, bob, &cause).await.expect("a chat");

    let running = wire_up::start(settings, &process).await.expect("started");
    eventually("it is ready", || process.not_ready().is_empty()).await;
    let token = InternalToken::new(&Secret::new("s3cret")).expect("a token");
    let mut client = IngestClient::with_interceptor(channel(running).await, token.attach());
    let mut request = PersistMessageRequest {
        chat_id: chat.to_string(),
        sender_id: alice.to_string(),
        client_message_id: "eaefc4d2-d3bf-4d01-abae-4b5b844a7034".to_owned(),
        content: "hello ☕".to_owned(),
        ..PersistMessageRequest::default()
    };
    for (sequence, is_duplicate) in [(1, false), (1, true)] {
        let answer = client.persist_message(request.clone()).await.expect("stored").into_inner();
        assert_eq!((answer.sequence, answer.is_duplicate), (sequence, is_duplicate));
    }
    request.sender_id = bob.to_string();
    assert_eq!(client.persist_message(request).await.expect("stored").into_inner().sequence, 2);
    eventually("both are confirmed by the log", || {
        process.metrics_text().lines().any(|line| line == "durability_published_total 2")
    })
    .await;
    let (chat_id, user_id) = (chat.to_string(), alice.to_string());
    let page = SyncMessagesRequest { chat_id, user_id, after_sequence: 0, limit: 100 };
    let page = client.sync_messages(page).await.expect("a page").into_inner();
    let texts: Vec<_> = page.messages.iter().map(|item| (item.sequence, item.content.as_str())).collect();
    assert_eq!(texts, [(1, "hello ☕"), (2, "hello ☕")]);
    drop(client);
    process.shut_down().await;
    systems.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_answers_callers_that_show_the_token() {
    let process = Process::new();
    let (token_file, log) = (TokenFile::new(&process), log());
    let settings = settings(&log, &token_file, &process).await;
    let running = wire_up::start(settings, &process).await.expect("started");
    eventually("it is ready", || process.not_ready().is_empty()).await;

    let channel = channel(running).await;
    let request = PersistMessageRequest {
        chat_id: "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2".to_owned(),
        sender_id: "user_01KKNTQ22TV37E3S3E28JT97KB".to_owned(),
        client_message_id: "eaefc4d2-d3bf-4d01-abae-4b5b844a7034".to_owned(),
        content: "hello".to_owned(),
        ..PersistMessageRequest::default()
    };
    for (token, expected) in [("s3cret", ErrorKind::NotAMember), ("wrong", ErrorKind::Unauthorized)] {
        let token = InternalToken::new(&Secret::new(token)).expect("a token");
        let mut client = IngestClient::with_interceptor(channel.clone(), token.attach());
        let status = client.persist_message(request.clone()).await.expect_err("refused");
        assert_eq!(platform::wire::from_status(&status).kind(), expected);
    }
    process.shut_down().await;
}
