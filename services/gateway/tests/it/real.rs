//! The wiring of the binary itself, on a real cache.

use std::{net::SocketAddr, time::Duration};

use domain::ports::ConnectionRegistry as _;
use gateway::{
    config::{Limits, Settings},
    wire_up,
};
use platform::Process;
use proto::messaging::v1::{Heartbeat, client_frame::Payload as Ask, server_frame::Payload};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{World, device, eventually, roomy, user};

#[tokio::test]
async fn on_a_real_cache_connections_are_found_and_survive_its_loss_of_memory() {
    // Its keys, its token and its ingest serve a second gateway, which is wired as the binary is.
    let world = World::new().await;
    let cache = embedded::Cache::start().await.expect("a cache");
    let redis = adapters::redis::Config::new(cache.url.clone(), "ns.one.");
    let settings = Settings {
        limits: Limits { registry_announce: Duration::from_millis(20), ..roomy() },
        ..Settings::on_loopback(redis.clone(), world.folder.clone(), vec![world.at_ingest.to_string()])
    };
    let process = Process::new();
    let running = wire_up::start(settings, &process).await.expect("started");
    let (listener, address) = process.bind("--listen", SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
    process.serve_http("clients", listener, running.http.clone());
    let user = user();
    let world = world.at(address);
    let mut client = world.connect_as(user, &device(), None).await;

    let seen = adapters::redis::Cache::new(&redis).expect("connected");
    let registry = adapters::redis::connection_registry::Registry::new(seen);
    let id = running.gateway.id.clone();
    assert_eq!(registry.gateways(&[user]).await.expect("an answer"), [[id.clone()]]);

    let mut stream = tokio::net::TcpStream::connect(cache.address).await.expect("reached");
    stream.write_all(b"FLUSHALL\r\n").await.expect("sent");
    // Until the cache has answered, it may still remember.
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"+OK\r\n");
    let deadline = tokio::time::Instant::now() + crate::world::PATIENCE;
    while registry.gateways(&[user]).await.expect("an answer")[0] != std::slice::from_ref(&id) {
        assert!(tokio::time::Instant::now() < deadline, "never registered again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
    let Some(Payload::HeartbeatAck(ack)) = client.next().await.payload else { panic!("no heartbeat_ack") };
    assert!(ack.resync);

    process.shut_down().await;
    assert!(registry.gateways(&[user]).await.expect("an answer")[0].is_empty(), "deregistered");
    eventually("closed", || running.gateway.connections.all().is_empty()).await;
}
