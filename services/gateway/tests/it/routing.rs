//! The way to ingest when an ingest hangs, dies or comes back.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gateway::config::Limits;
use platform::Process;
use proto::messaging::v1::{ingest_server::IngestServer, server_frame::Payload};
use tokio::{net::TcpListener, time::Instant};

use crate::{
    ingest::IngestDoor,
    world::{Client, PATIENCE, World, chat, eventually, roomy, user},
};

/// Whether the send was acknowledged; else nobody knows, and the hint says when to come again.
async fn acknowledged(client: &mut Client, request_id: &str) -> Result<(), Option<u32>> {
    let frame = client.next().await;
    assert_eq!(frame.request_id, request_id, "{frame:?}");
    match frame.payload {
        Some(Payload::SendMessageAck(_)) => Ok(()),
        Some(Payload::Error(error)) => {
            assert_eq!(error.code, "SERVICE_UNAVAILABLE");
            Err(error.details.and_then(|details| details.retry_after_seconds))
        }
        other => panic!("neither: {other:?}"),
    }
}

#[tokio::test]
async fn an_ingest_that_hangs_costs_one_send_some_seconds_and_the_others_nothing() {
    // The kernel takes connections for it, and nobody answers.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = hanging.local_addr().expect("bound").to_string();
    let world = World::with_more(Limits { send_burst: 100, ..roomy() }, &[address]).await;
    let mut client = world.connect(user()).await;
    // About half of the chats belong to it.
    for number in 0..20 {
        let chat = chat();
        client.send(&number.to_string(), chat, "hi").await;
        acknowledged(&mut client, &number.to_string()).await.expect("the other one has it in time");
        assert_eq!(world.ingest.texts(chat), ["hi"]);
    }
    assert!(world.process.metrics_text().contains("gateway_ingest_breakers_open 1"));
    hanging.set_nonblocking(true).expect("set");
    let asked = std::iter::from_fn(|| hanging.accept().ok()).count();
    assert!((1..=3).contains(&asked), "asked once, and once in a while from then on: {asked}");
}

#[tokio::test]
async fn an_ingest_that_comes_back_is_asked_a_second_later_although_it_is_the_only_one() {
    let world = World::new().await;
    let (mut client, chat) = (world.connect(user()).await, chat());
    client.send("before", chat, "hi").await;
    acknowledged(&mut client, "before").await.expect("it is there");
    world.ingest_process.shut_down().await;
    let mut hints = Vec::new();
    for number in 0..8 {
        client.send(&number.to_string(), chat, "hi").await;
        hints.push(acknowledged(&mut client, &number.to_string()).await.expect_err("nobody is there"));
    }
    assert!(hints.contains(&Some(1)) && hints.iter().flatten().all(|hint| *hint == 1), "{hints:?}");
    eventually("it is not asked", || world.process.metrics_text().contains("gateway_ingest_breakers_open 1")).await;

    let again = Process::new();
    serve_at(&again, world.at_ingest, &world).await;
    let deadline = Instant::now() + PATIENCE;
    for tries in 0.. {
        let request_id = format!("again-{tries}");
        client.send(&request_id, chat, "hi").await;
        if acknowledged(&mut client, &request_id).await.is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "never");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("it is asked as before", || world.process.metrics_text().contains("gateway_ingest_breakers_open 0"))
        .await;
    again.shut_down().await;
}

async fn serve_at(process: &Process, address: SocketAddr, world: &World) {
    let listener = TcpListener::bind(address).await.expect("its port is free again");
    let server = IngestServer::with_interceptor(IngestDoor(Arc::clone(&world.ingest)), world.token.require());
    process.serve_grpc("ingest", listener, tonic::service::Routes::new(server));
}
