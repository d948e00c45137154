//! An ingest that starts before what it needs.

use std::net::SocketAddr;

use ingest::{Settings, wire_up};
use platform::{Process, Secret, grpc::InternalToken};
use proto::messaging::v1::ingest_client::IngestClient;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tonic::transport::Endpoint;

use crate::{on::On, systems::Systems, world::eventually};

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    listener.local_addr().expect("bound")
}

/// From now on the address is that of the target.
async fn appear(at: SocketAddr, target: &str, process: &Process) {
    let listener = TcpListener::bind(at).await.expect("still free");
    let (target, owner, stop) = (target.to_owned(), process.clone(), process.stop_token());
    drop(process.spawn_child(async move {
        loop {
            let (mut from, _) = tokio::select! {
                accepted = listener.accept() => accepted.expect("accepted"),
                () = stop.cancelled() => return,
            };
            let (target, stop) = (target.clone(), stop.clone());
            drop(owner.spawn_child(async move {
                let mut to = TcpStream::connect(target).await.expect("connected");
                tokio::select! {
                    // How either side ends it is theirs.
                    ended = copy_bidirectional(&mut from, &mut to) => drop(ended),
                    () = stop.cancelled() => {}
                }
            }));
        }
    }));
}

async fn start_order_never_matters_the_store_is_waited_for_and_the_log_is_not(on: On) {
    let systems = Systems::start(on).await;
    let (store, log) = (nobody().await, nobody().await);
    let mut settings: Settings = systems.settings();
    settings.store.store_endpoint = Some(format!("http://{store}"));
    settings.log.log_brokers = log.to_string();

    let process = Process::new();
    let running = wire_up::start(settings, &process).await.expect("a system that is away ends nothing");
    eventually("it says what it waits for", || {
        process.why_not_ready().iter().any(|why| why.starts_with("ingest lease ("))
    })
    .await;
    let endpoint = systems.store.store_endpoint.clone().expect("set");
    appear(store, endpoint.trim_start_matches("http://"), &systems.process).await;
    eventually("it is ready", || process.not_ready().is_empty()).await;

    let alice = systems.user();
    let chat = systems.chat(alice, systems.user()).await;
    let channel = Endpoint::from_shared(format!("http://{}", running.grpc)).expect("a URL");
    let token = InternalToken::new(&Secret::new("s3cret")).expect("a token");
    let channel = channel.connect().await.expect("connected");
    let mut client = IngestClient::with_interceptor(channel, token.attach());
    let answer = client.persist_message(systems.send(chat, alice, "hello")).await.expect("acknowledged without a log");
    assert_eq!(answer.into_inner().sequence, 1);

    appear(log, &systems.log.log_brokers, &systems.process).await;
    assert_eq!(systems.records(1).await[0].key, chat.to_string().as_bytes());
    drop(client);
    process.shut_down().await;
    systems.stop([]).await;
}

on_all_systems! {
    start_order_never_matters_the_store_is_waited_for_and_the_log_is_not,
}
