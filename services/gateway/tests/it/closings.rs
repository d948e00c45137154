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

use crate::world::{Client, World, chat, device, eventually, in_both, roomy, user};

fn closed(reason: &str, code: u16) -> (String, u16) {
    (reason.to_owned(), code)
}

#[tokio::test]
async fn a_close_is_answered() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let mut client = world.connect(user()).await;
        client.socket.close(None).await.expect("sent");
        assert_eq!(client.closing().await, closed("", 1005));
    })
    .await;
}

#[tokio::test]
async fn the_same_device_again_ends_the_older_connection() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (user, device) = (user(), device());
        let mut older = world.connect_as(user, &device, Some(protocol)).await;
        let mut newer = world.connect_as(user, &device, Some(protocol)).await;
        assert_eq!(older.closing().await, closed("duplicate_connection", 4010));
        newer.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
        assert!(matches!(newer.next().await.payload, Some(Payload::HeartbeatAck(_))));
        eventually("one left", || world.registry.of(user) == 1).await;
    })
    .await;
}

#[tokio::test]
async fn the_same_device_on_another_gateway_ends_the_older_connection() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (user, device) = (user(), device());
        let mut older = world.connect_as(user, &device, Some(protocol)).await;
        let mut sibling = world.connect(user).await;
        let (process, address) = world.second_gateway().await;
        let first = world.address;
        let world = world.at(address);
        let mut newer = world.connect_as(user, &device, Some(protocol)).await;
        assert_eq!(older.closing().await, closed("duplicate_connection", 4010));
        for client in [&mut newer, &mut sibling] {
            client.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
            assert!(matches!(client.next().await.payload, Some(Payload::HeartbeatAck(_))), "this one stays");
        }
        // And back again.
        let world = world.at(first);
        let _newest = world.connect_as(user, &device, Some(protocol)).await;
        assert_eq!(newer.closing().await, closed("duplicate_connection", 4010));
        process.shut_down().await;
    })
    .await;
}

#[tokio::test]
async fn silence_ends_a_connection() {
    in_both(async |protocol| {
        let world =
            World::with(Limits { heartbeat_interval: Duration::from_millis(50), ..roomy() }).await.speaking(protocol);
        assert_eq!(world.connect(user()).await.closing().await, closed("idle_timeout", 4008));
    })
    .await;
}

#[tokio::test]
async fn an_expired_token_ends_a_connection() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let token = world.sign(&World::claims(user(), 2));
        let mut client = world.connect_with(&token, &device(), Some(protocol)).await;
        assert_eq!(client.error("").await.code, "UNAUTHORIZED", "the error comes before the end");
        assert_eq!(client.closing().await, closed("token_expired", 4001));
    })
    .await;
}

#[tokio::test]
async fn age_ends_a_connection() {
    in_both(async |protocol| {
        let world =
            World::with(Limits { connection_age: Duration::from_millis(50), ..roomy() }).await.speaking(protocol);
        assert_eq!(world.connect(user()).await.closing().await, closed("server_shutdown", 1001));
    })
    .await;
}

#[tokio::test]
async fn a_revoked_session_ends_and_an_unknown_one_lives_for_the_grace_period() {
    in_both(async |protocol| {
        let limits = Limits {
            revocation_check: Duration::from_millis(20),
            revocation_grace: Duration::from_millis(300),
            ..roomy()
        };
        let world = World::with(limits).await.speaking(protocol);
        let claims = World::claims(user(), 3600);
        let mut client = world.connect_with(&world.sign(&claims), &device(), Some(protocol)).await;
        world.revocations.revoked.lock().expect("whole").insert(claims.sid);
        assert_eq!(client.closing().await, closed("session_revoked", 4001));

        let mut client = world.connect(user()).await;
        world.revocations.is_away.store(true, Ordering::SeqCst);
        assert_eq!(client.closing().await, closed("service_unavailable", 1013));
    })
    .await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_have_their_close_codes() {
    let world = World::new().await;
    let not_utf8 = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    let cases = [
        (frames::JSON, Message::Binary(vec![1].into()), 1003),
        (frames::PROTOBUF, Message::Text("{}".into()), 1003),
        (frames::JSON, Message::Text("x".repeat(65_537).into()), 1009),
        (frames::PROTOBUF, Message::Binary(vec![b'x'; 65_537].into()), 1009),
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
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let mut client = world.connect(user()).await;
        for _ in 0..10 {
            client.nonsense().await;
        }
        for _ in 0..10 {
            assert_eq!(client.error("").await.code, "INVALID_MESSAGE");
        }
        assert_eq!(client.closing().await, closed("protocol_error", 1002));
    })
    .await;
}

/// Reads to the end: the codes of the errors before it, and how the connection ended.
async fn errors_and_end(client: &mut Client) -> (Vec<String>, (String, u16)) {
    let mut codes = Vec::new();
    let mut reason = String::new();
    loop {
        match client.next_or_close().await.map(|frame| frame.payload) {
            Ok(Some(Payload::Error(error))) => codes.push(error.code),
            Ok(Some(Payload::ConnectionClosing(closing))) => reason = closing.reason,
            Ok(_) => {}
            Err(code) => return (codes, (reason, code)),
        }
    }
}

#[tokio::test]
async fn who_stays_above_a_limit_is_told_each_time_and_then_closed() {
    in_both(async |protocol| {
        let world = World::with(Limits { frame_refused: 3, send_per_hour: 1, ..roomy() }).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        client.send_at_once(chat(), &["stored", "not", "not", "not"]).await;
        let (codes, end) = errors_and_end(&mut client).await;
        assert_eq!(codes, ["RATE_LIMITED"; 3]);
        assert_eq!(end, closed("rate_limited", 4029));
    })
    .await;
}

#[tokio::test]
async fn who_always_has_too_much_under_way_is_told_each_time_and_then_closed() {
    in_both(async |protocol| {
        let world = World::with(Limits { frame_refused: 3, inbound_requests: 1, ..roomy() }).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        world.ingest.is_gated.store(true, Ordering::SeqCst);
        client.send_at_once(chat(), &["under way", "not", "not", "not"]).await;
        let (codes, end) = errors_and_end(&mut client).await;
        assert_eq!(codes, ["SERVER_BUSY"; 3]);
        assert_eq!(end, closed("server_busy", 1013));
        world.ingest.gate.0.add_permits(1);
    })
    .await;
}

#[tokio::test]
async fn a_stopping_gateway_answers_what_it_took_and_says_goodbye() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let user = user();
        let other = if protocol == frames::JSON { frames::PROTOBUF } else { frames::JSON };
        let mut busy = world.connect(user).await;
        let mut idle = world.connect_as(user, &device(), Some(other)).await;
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
    })
    .await;
}
