//! The service on the embedded store and log, called over gRPC.

use std::{io::Write as _, path::PathBuf};

use domain::ErrorKind;
use ingest::{Settings, wire_up};
use platform::{Process, Secret, grpc::InternalToken};
use proto::messaging::v1::{PersistMessageRequest, ingest_client::IngestClient};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_answers_callers_that_show_the_token() {
    let process = Process::new();
    let token_file = TokenFile::new(&process);
    let store = embedded::Store::start(None, &process).await.expect("a store");
    let log = embedded::Log::start(&[("test.messages.persisted".to_owned(), 4)]).expect("a log");
    let store = adapters::dynamodb::Config {
        store_table_prefix: "test-".to_owned(),
        store_region: "us-east-1".to_owned(),
        store_endpoint: Some(store.endpoint),
        store_access_key: Some("test".to_owned()),
        store_secret_key: Some(Secret::new("test")),
    };
    adapters::dynamodb::Store::new(&store).await.create_tables().await.expect("tables");
    let settings =
        Settings::on_loopback(store, adapters::kafka::Config::new(log.brokers.clone(), "test."), token_file.0.clone());
    let running = wire_up::start(settings, &process).await.expect("started");
    eventually("it is ready", || process.not_ready().is_empty()).await;

    let channel = Channel::from_shared(format!("http://{}", running.grpc)).expect("a URL").connect().await;
    let channel = channel.expect("connected");
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
