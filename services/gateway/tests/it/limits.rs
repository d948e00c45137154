//! How much one client, one user and one address may do, and what is said beyond.

use std::time::Duration;

use domain::{Clock as _, Millis};
use gateway::config::{Limits, Sunset};
use platform::clock::SystemClock;
use proto::messaging::v1::{Heartbeat, SyncHeads, SyncRequest, client_frame::Payload as Ask, server_frame::Payload};

use crate::world::{Client, World, chat, device, eventually, in_both, roomy, user};

fn headers(world: &World) -> Vec<(&'static str, String)> {
    let token = world.sign(&World::claims(user(), 3600));
    vec![("authorization", format!("Bearer {token}")), ("x-device-id", device())]
}

/// Asks until it is refused, and returns how many were not.
async fn until_refused(client: &mut Client, mut ask: impl FnMut(u32) -> Ask) -> u32 {
    for number in 0..1000 {
        client.ask(&number.to_string(), ask(number)).await;
        let frame = client.next().await;
        assert_eq!(frame.request_id, number.to_string(), "{frame:?}");
        if let Some(Payload::Error(error)) = frame.payload
            && error.code == "RATE_LIMITED"
        {
            let retry_after = error.details.and_then(|details| details.retry_after_seconds);
            assert!(retry_after.is_some_and(|seconds| seconds >= 1), "{retry_after:?}");
            return number;
        }
    }
    panic!("never refused");
}

#[tokio::test]
async fn pages_heads_and_heartbeats_have_a_pace() {
    in_both(async |protocol| {
        let slow = Duration::from_mins(5);
        let limits = Limits { sync_rate: 1, sync_burst: 3, heartbeat_interval: slow, ..roomy() };
        let world = World::with(limits).await.speaking(protocol);
        let chat_id = chat().to_string();
        let page = |_| Ask::SyncRequest(SyncRequest { chat_id: chat_id.clone(), last_acked_sequence: 0, limit: None });
        assert!(until_refused(&mut world.connect(user()).await, page).await >= 3);
        let heads = |_| Ask::SyncHeads(SyncHeads::default());
        assert!(until_refused(&mut world.connect(user()).await, heads).await >= 3);
        let beat = |_| Ask::Heartbeat(Heartbeat::default());
        assert_eq!(until_refused(&mut world.connect(user()).await, beat).await, 10);
    })
    .await;
}

#[tokio::test]
async fn a_user_may_send_only_so_much_over_all_chats_and_connections() {
    in_both(async |protocol| {
        let world = World::with(Limits { send_rate: 1, send_burst: 1000, send_per_user: 2, ..roomy() })
            .await
            .speaking(protocol);
        let user = user();
        let mut clients = [world.connect(user).await, world.connect(user).await];
        let mut stored = 0;
        let refusal = loop {
            let client = &mut clients[stored % 2];
            client.send("r", chat(), "hi").await;
            match client.next().await.payload {
                Some(Payload::Error(error)) => break error,
                _ => stored += 1,
            }
            assert!(stored < 500, "never refused");
        };
        assert_eq!((&*refusal.code, &*refusal.message), ("RATE_LIMITED", "too many messages of this user"));
        assert!(stored >= 4, "four at once");
        assert_eq!(world.ingest.stored.lock().expect("whole").len(), stored, "what was refused is not stored");
    })
    .await;
}

#[tokio::test]
async fn a_user_may_send_only_so_much_in_an_hour() {
    in_both(async |protocol| {
        let world = World::with(Limits { send_rate: 1000, send_burst: 1000, send_per_hour: 3, ..roomy() })
            .await
            .speaking(protocol);
        let (sender, other) = (user(), user());
        let mut clients = [world.connect(sender).await, world.connect(sender).await];
        for number in 0..3 {
            let client = &mut clients[number % 2];
            client.send("r", chat(), "hi").await;
            assert!(matches!(client.next().await.payload, Some(Payload::SendMessageAck(_))));
        }
        clients[1].send("r", chat(), "hi").await;
        let refusal = clients[1].error("r").await;
        assert_eq!((&*refusal.code, &*refusal.message), ("RATE_LIMITED", "too many messages of this user in an hour"));
        let wait = refusal.details.expect("details").retry_after_seconds.expect("a hint");
        assert!((4700..=4800).contains(&wait), "until a third of the next hour is over: {wait} s");
        let mut other = world.connect(other).await;
        other.send("r", chat(), "hi").await;
        assert!(matches!(other.next().await.payload, Some(Payload::SendMessageAck(_))), "others are not held up");
    })
    .await;
}

#[tokio::test]
async fn an_address_has_a_number_of_connections_and_of_attempts() {
    let world = World::with(Limits { connection_per_ip: 2, ..roomy() }).await;
    let first = world.connect(user()).await;
    let _second = world.connect(user()).await;
    let refusal = world.handshake("/v1/ws", &headers(&world)).await.err().expect("refused");
    assert_eq!((refusal.status, refusal.body["error"].as_str()), (429, Some("rate_limited")));
    assert_eq!(refusal.retry_after, Some(refusal.body["retry_after_seconds"].to_string()));
    drop(first);
    eventually("one left", || world.running.gateway.connections.all().len() == 1).await;
    let third = world.handshake("/v1/ws", &headers(&world)).await;
    assert!(third.is_ok(), "a place that is free again");

    let world = World::with(Limits { connection_attempts_per_ip: 3, ..roomy() }).await;
    for _ in 0..3 {
        let refusal = world.handshake("/v1/ws", &[]).await.err().expect("refused");
        assert_eq!(refusal.status, 400, "an attempt, however it ends");
    }
    let refusal = world.handshake("/v1/ws", &headers(&world)).await.err().expect("refused");
    assert_eq!((refusal.status, refusal.body["error"].as_str()), (429, Some("rate_limited")));
}

#[tokio::test]
async fn checks_come_in_their_order() {
    // Everything is wrong at once: each case puts right what was named before it.
    let limits = Limits { connection_attempts_per_ip: 1, connection_maximum: 0, ..roomy() };
    let world = World::with(limits).await;
    let revoked = World::claims(user(), 3600);
    world.revocations.revoked.lock().expect("whole").insert(revoked.sid.clone());
    let bearer = |token: String| ("authorization", format!("Bearer {token}"));
    let id = ("x-device-id", device());
    let evil = ("origin", "https://evil.example".to_owned());
    let (revoked, good) = (world.sign(&revoked), world.sign(&World::claims(user(), 3600)));
    let cases = [
        ("/v9/ws", vec![("x-device-id", "phone".to_owned()), evil.clone()], 400, "unsupported_version"),
        ("/v1/ws", vec![("x-device-id", "phone".to_owned()), evil.clone()], 400, "invalid_request"),
        ("/v1/ws", vec![id.clone(), evil.clone()], 403, "forbidden_origin"),
        ("/v1/ws", vec![id.clone()], 401, "invalid_token"),
        ("/v1/ws", vec![id.clone(), bearer("nonsense".to_owned())], 401, "invalid_token"),
        ("/v1/ws", vec![id.clone(), bearer(revoked)], 401, "token_revoked"),
        ("/v1/ws", vec![id.clone(), bearer(good)], 429, "rate_limited"),
    ];
    for (path, headers, status, error) in cases {
        let refusal = world.handshake(path, &headers).await.err().expect("refused");
        assert_eq!((refusal.status, refusal.body["error"].as_str()), (status, Some(error)), "{path} {headers:?}");
    }
}

#[tokio::test]
async fn a_version_that_ends_is_announced_to_who_connects() {
    in_both(async |protocol| {
        let in_days = |days: u64| {
            let at = SystemClock.now() + Duration::from_hours(24 * days);
            Limits { protocol_sunset: Some(Sunset(Millis(at.0))), ..roomy() }
        };
        let world = World::with(in_days(29)).await.speaking(protocol);
        let notice = world.connect(user()).await.error("").await;
        let sunset = notice.details.and_then(|details| details.sunset).expect("a time");
        assert_eq!(notice.code, "VERSION_DEPRECATED");
        assert!(proto::time::from_iso(&sunset).is_some(), "{sunset}");

        let world = World::with(in_days(31)).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        client.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
        assert!(matches!(client.next().await.payload, Some(Payload::HeartbeatAck(_))), "not yet");
    })
    .await;
}
