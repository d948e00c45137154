//! Who may connect, and what the others are told.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use gateway::config::Limits;
use platform::Process;
use proto::frames;

use crate::world::{World, device, eventually, roomy, user};

fn headers(token: &str, device: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {token}")), ("x-device-id", device.to_owned())]
}

#[tokio::test]
async fn a_connection_is_registered_before_its_first_frame() {
    let world = World::new().await;
    let user = user();
    let client = world.connect(user).await;
    assert_eq!(world.registry.of(user), 1);
    assert!(client.id.starts_with("conn_"));
    drop(client);
    eventually("deregistered", || world.registry.of(user) == 0).await;
}

#[tokio::test]
async fn every_bad_handshake_has_its_answer() {
    let world = World::new().await;
    let (user, device) = (user(), device());
    let good = World::claims(user, 3600);
    let token = world.sign(&good);
    let socket = world.sign(&proto_claims(&good, |claims| claims.scope = "socket".into()));
    let expired = world.sign(&World::claims(user, -10));
    let other_audience = world.sign(&proto_claims(&good, |claims| claims.aud = "other".into()));
    let later = world.sign(&proto_claims(&good, |claims| claims.iat += 600));
    let revoked = World::claims(user, 3600);
    world.revocations.revoked.lock().expect("whole").insert(revoked.sid.clone());
    let revoked = world.sign(&revoked);
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let id = ("x-device-id", device.clone());
    let cases = [
        ("/v1/ws", vec![id.clone()], 401, "invalid_token"),
        ("/v1/ws", vec![bearer(&token)], 400, "invalid_request"),
        ("/v1/ws", vec![bearer(&token), ("x-device-id", "phone".into())], 400, "invalid_request"),
        ("/v1/ws", vec![("authorization", "Basic x".into()), id.clone()], 400, "invalid_request"),
        ("/v2/ws", headers(&token, &device), 400, "unsupported_version"),
        ("/v1/ws", headers("nonsense", &device), 401, "invalid_token"),
        ("/v1/ws", headers(&expired, &device), 401, "invalid_token"),
        ("/v1/ws", headers(&other_audience, &device), 401, "invalid_token"),
        ("/v1/ws", headers(&later, &device), 401, "invalid_token"),
        ("/v1/ws", headers(&socket, &device), 401, "invalid_token"),
        ("/v1/ws", headers(&revoked, &device), 401, "token_revoked"),
        (&*format!("/v1/ws?token={token}&device_id={device}"), vec![], 401, "invalid_token"),
        (
            "/v1/ws",
            [headers(&token, &device), vec![("origin", "https://evil.example".into())]].concat(),
            403,
            "forbidden_origin",
        ),
    ];
    for (path, headers, status, error) in cases {
        let refusal =
            world.handshake(path, &headers).await.err().unwrap_or_else(|| panic!("{path} {headers:?} passed"));
        assert_eq!((refusal.status, refusal.body["error"].as_str()), (status, Some(error)), "{path} {headers:?}");
        assert!(refusal.body["message"].is_string());
    }
    let refusal = world.handshake("/v2/ws", &[]).await.err().expect("refused");
    assert_eq!(refusal.body["details"]["supported_versions"], serde_json::json!([1]));
    assert_eq!(refusal.body["details"]["requested_version"], 2);
    assert_eq!(world.registry.of(user), 0, "nothing was registered");
}

fn proto_claims(
    claims: &platform::tokens::Claims,
    change: impl FnOnce(&mut platform::tokens::Claims),
) -> platform::tokens::Claims {
    let mut claims = claims.clone();
    change(&mut claims);
    claims
}

#[tokio::test]
async fn a_browser_connects_with_a_socket_token_in_the_url_from_its_own_origin() {
    let world = World::new().await;
    let claims = proto_claims(&World::claims(user(), 60), |claims| claims.scope = "socket".into());
    let path = format!("/v1/ws?token={}&device_id={}", world.sign(&claims), device());
    let origin = [("origin", format!("http://{}", world.address))];
    assert!(world.handshake(&path, &origin).await.is_ok());
    assert!(world.process.metrics_text().contains("gateway_query_tokens_total 1"));
}

#[tokio::test]
async fn the_first_known_subprotocol_is_taken_and_none_means_json() {
    let world = World::new().await;
    let protobuf = world.connect_as(user(), &device(), Some(frames::PROTOBUF)).await;
    assert!(protobuf.is_binary);
    assert!(!world.connect_as(user(), &device(), Some(frames::JSON)).await.is_binary);
    assert!(!world.connect_as(user(), &device(), None).await.is_binary);
    let both = world.connect_as(user(), &device(), Some("messaging.v1.proto, messaging.v1.json")).await;
    assert!(both.is_binary);
}

#[tokio::test]
async fn nobody_connects_while_registry_or_revocations_are_away() {
    let world = World::new().await;
    let (user, device) = (user(), device());
    let headers = headers(&world.sign(&World::claims(user, 3600)), &device);
    for away in [&world.registry.is_away, &world.revocations.is_away] {
        away.store(true, Ordering::SeqCst);
        let refusal = world.handshake("/v1/ws", &headers).await.err().expect("refused");
        assert_eq!((refusal.status, refusal.body["error"].as_str()), (503, Some("service_unavailable")));
        assert!(refusal.retry_after.is_some());
        away.store(false, Ordering::SeqCst);
    }
    assert!(world.handshake("/v1/ws", &headers).await.is_ok());
    eventually("one connection", || world.running.gateway.connections.of(user).len() == 1).await;
}

#[tokio::test]
async fn a_full_gateway_takes_nobody_until_somebody_goes() {
    let world = World::with(Limits { connection_maximum: 1, ..roomy() }).await;
    let first = world.connect(user()).await;
    let headers = headers(&world.sign(&World::claims(user(), 3600)), &device());
    let refusal = world.handshake("/v1/ws", &headers).await.err().expect("refused");
    assert_eq!((refusal.status, refusal.body["error"].as_str()), (503, Some("service_unavailable")));
    assert_eq!(refusal.body["message"].as_str(), Some("this gateway has all the connections it takes"));
    assert_eq!(refusal.retry_after, Some(refusal.body["retry_after_seconds"].to_string()));
    drop(first);
    eventually("none left", || world.running.gateway.connections.all().is_empty()).await;
    assert!(world.handshake("/v1/ws", &headers).await.is_ok());
}

#[tokio::test]
async fn a_stopping_gateway_takes_nobody() {
    let world = World::new().await;
    let user = user();
    let headers = headers(&world.sign(&World::claims(user, 3600)), &device());
    // A request that had come before the listener was closed: here by a door that stays open.
    let door = Process::new();
    let (listener, address) = door.bind("door", SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
    door.serve_http("clients", listener, world.running.http.clone());
    let world = world.at(address);
    world.process.shut_down().await;
    let refusal = world.handshake("/v1/ws", &headers).await.err().expect("refused");
    assert_eq!((refusal.status, refusal.body["error"].as_str()), (503, Some("service_unavailable")));
    assert_eq!(refusal.body["message"].as_str(), Some("this gateway is being replaced"));
    assert_eq!(refusal.retry_after, Some(refusal.body["retry_after_seconds"].to_string()));
    assert_eq!(world.registry.of(user), 0, "nothing was registered");
    door.shut_down().await;
}

#[tokio::test]
async fn connections_of_a_user_are_limited_in_number_and_in_rate() {
    let limits = Limits { connection_per_user: 2, ..roomy() };
    let world = World::with(limits).await;
    let user_ = user();
    let _two = (world.connect(user_).await, world.connect(user_).await);
    let token = world.sign(&World::claims(user_, 3600));
    let refusal = world.handshake("/v1/ws", &headers(&token, &device())).await.err().expect("refused");
    assert_eq!((refusal.status, refusal.body["error"].as_str()), (429, Some("rate_limited")));
    assert_eq!(refusal.retry_after, Some(refusal.body["retry_after_seconds"].to_string()));
    eventually("the refused one deregistered", || world.registry.of(user_) == 2).await;

    let limits = Limits { connection_new_per_user: 1, connection_new_within: Duration::from_mins(1), ..roomy() };
    let world = World::with(limits).await;
    let user = user();
    let _one = world.connect(user).await;
    let token = world.sign(&World::claims(user, 3600));
    let refusal = world.handshake("/v1/ws", &headers(&token, &device())).await.err().expect("refused");
    assert_eq!(refusal.status, 429);
    assert!(refusal.retry_after.expect("given").parse::<u32>().expect("seconds") > 50);
}
