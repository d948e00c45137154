//! How connections end, and that their clients are told.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::SinkExt as _;
use gateway::config::Limits;
use proto::{
    frames,
    messaging::v1::{Heartbeat, client_frame::Payload as Ask, server_frame::Payload},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::world::{World, chat, device, eventually, roomy, user};

fn closed(reason: &str, code: u16) -> (String, u16) {
    (reason.to_owned(), code)
}

#[tokio::test]
async fn a_close_is_answered() {
    let world = World::new().await;
    let mut client = world.connect(user()).await;
    client.socket.close(None).await.expect("sent");
    assert_eq!(client.closing().await, closed("", 1005));
}

#[tokio::test]
async fn the_same_device_again_ends_the_older_connection() {
    let world = World::new().await;
    let (user, device) = (user(), device());
    let mut older = world.connect_as(user, &device, None).await;
    let mut newer = world.connect_as(user, &device, None).await;
    assert_eq!(older.closing().await, closed("duplicate_connection", 4010));
    newer.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
    assert!(matches!(newer.next().await.payload, Some(Payload::HeartbeatAck(_))));
    eventually("one left", || world.registry.of(user) == 1).await;
}

#[tokio::test]
async fn the_same_device_on_another_gateway_ends_the_older_connection() {
    let world = World::new().await;
    let (user, device) = (user(), device());
    let mut older = world.connect_as(user, &device, None).await;
    let mut sibling = world.connect(user).await;
    let (process, address) = world.second_gateway().await;
    let first = world.address;
    let world = world.at(address);
    let mut newer = world.connect_as(user, &device, None).await;
    assert_eq!(older.closing().await, closed("duplicate_connection", 4010));
    for client in [&mut newer, &mut sibling] {
        client.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
        assert!(matches!(client.next().await.payload, Some(Payload::HeartbeatAck(_))), "this one stays");
    }
    // And back again.
    let world = world.at(first);
    let _newest = world.connect_as(user, &device, None).await;
    assert_eq!(newer.closing().await, closed("duplicate_connection", 4010));
    process.shut_down().await;
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let world = World::with(Limits { heartbeat_interval: Duration::from_millis(50), ..roomy() }).await;
    assert_eq!(world.connect(user()).await.closing().await, closed("idle_timeout", 4008));
}

#[tokio::test]
async fn an_expired_token_ends_a_connection() {
    let world = World::new().await;
    let token = world.sign(&World::claims(user(), 2));
    let mut client = world.connect_with(&token, &device(), None).await;
    assert_eq!(client.error("").await.code, "UNAUTHORIZED", "the error comes before the end");
    assert_eq!(client.closing().await, closed("token_expired", 4001));
}

#[tokio::test]
async fn age_ends_a_connection() {
    let world = World::with(Limits { connection_age: Duration::from_millis(50), ..roomy() }).await;
    assert_eq!(world.connect(user()).await.closing().await, closed("server_shutdown", 1001));
}

#[tokio::test]
async fn a_revoked_session_ends_and_an_unknown_one_lives_for_the_grace_period() {
    let limits =
        Limits { revocation_check: Duration::from_millis(20), revocation_grace: Duration::from_millis(300), ..roomy() };
    let world = World::with(limits).await;
    let claims = World::claims(user(), 3600);
    let mut client = world.connect_with(&world.sign(&claims), &device(), None).await;
    world.revocations.revoked.lock().expect("whole").insert(claims.sid);
    assert_eq!(client.closing().await, closed("session_revoked", 4001));

    let mut client = world.connect(user()).await;
    world.revocations.is_away.store(true, Ordering::SeqCst);
    assert_eq!(client.closing().await, closed("service_unavailable", 1013));
}

#[tokio::test]
async fn frames_that_break_the_protocol_have_their_close_codes() {
    let world = World::new().await;
    let not_utf8 = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    let cases = [
        (frames::JSON, Message::Binary(vec![1].into()), 1003),
        (frames::PROTOBUF, Message::Text("{}".into()), 1003),
        (frames::JSON, Message::Text("x".repeat(65_537).into()), 1009),
        (frames::JSON, Message::Frame(not_utf8), 1007),
    ];
    for (protocol, message, code) in cases {
        let mut client = world.connect_as(user(), &device(), Some(protocol)).await;
        client.socket.send(message).await.expect("sent");
        assert_eq!(client.closing().await, closed("protocol_error", code));
    }
}

#[tokio::test]
async fn ten_invalid_frames_end_a_connection_after_ten_errors() {
    let world = World::new().await;
    let mut client = world.connect(user()).await;
    for _ in 0..10 {
        client.text("nonsense").await;
    }
    for _ in 0..10 {
        assert_eq!(client.error("").await.code, "INVALID_MESSAGE");
    }
    assert_eq!(client.closing().await, closed("protocol_error", 1002));
}

#[tokio::test]
async fn a_stopping_gateway_answers_what_it_took_and_says_goodbye() {
    let world = World::new().await;
    let user = user();
    let mut busy = world.connect(user).await;
    let mut idle = world.connect_as(user, &device(), Some(frames::PROTOBUF)).await;
    let _stream = world.delivery().await;
    world.ingest.is_gated.store(true, Ordering::SeqCst);
    busy.send("r", chat(), "hi").await;
    eventually("under way", || world.ingest.under_way.load(Ordering::SeqCst) == 1).await;
    let process = world.process.clone();
    let stopping = world.ingest_process.spawn_child(async move { process.shut_down().await });
    let closing = idle.next().await;
    let Some(Payload::ConnectionClosing(closing)) = closing.payload else { panic!("{closing:?}") };
    assert_eq!((&*closing.reason, closing.reconnect_allowed), ("server_shutdown", true));
    assert!(closing.reconnect_delay_ms <= 5000);
    assert_eq!(idle.next_or_close().await.err(), Some(1001));
    drop(idle);
    world.ingest.gate.0.add_permits(1);
    let answer = busy.next().await;
    assert!(matches!(answer.payload, Some(Payload::SendMessageAck(_))), "{answer:?}");
    assert_eq!(busy.closing().await, closed("server_shutdown", 1001));
    drop(busy);
    tokio::time::timeout(crate::world::PATIENCE, stopping).await.expect("in time").expect("stopped");
    assert_eq!(world.registry.of(user), 0, "all are deregistered");
}
