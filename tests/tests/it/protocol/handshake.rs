//! WS-H: who may connect, and what comes first.

use std::time::Duration;

use anyhow::Context as _;
use proto::{
    frames,
    messaging::v1::{ClientFrame, client_frame::Payload as Ask},
};
use serde_json::{Value, json};
use tests::{
    client::Client,
    raw::{Got, Raw},
    world::World,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    speaker::{BOTH, Speaker, WITHIN, new_id, text},
    tokens::{Signer, claims, issued_at},
};

const PHONE: &str = "+12025550100";

fn token(client: &Client) -> anyhow::Result<String> {
    Ok(client.rest().tokens()?.access_token)
}

/// A handshake that is refused: its status and its body.
async fn refused(world: &World, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<(u16, Value)> {
    match Raw::connect(world.server(), path, headers).await? {
        Err(refused) => Ok(refused),
        Ok(_) => anyhow::bail!("{path} {headers:?}: it was let in"),
    }
}

#[tokio::test]
async fn ws_h_01_a_token_and_a_device_in_headers_make_a_connection() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client(PHONE).await?;
    for protocol in BOTH {
        let speaker = Speaker::connect(&world, &ana, protocol).await?;
        assert_eq!(speaker.established.user_id, ana.user_id(), "{protocol}");
    }
    Ok(())
}

#[tokio::test]
async fn ws_h_02_a_socket_token_in_the_url_makes_a_connection_and_a_warning() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client(PHONE).await?;
    let socket = Signer::of(&world)?.changed(&token(&ana)?, |claims| {
        claims["scope"] = json!("socket");
        claims["exp"] = json!(claims["iat"].as_i64().unwrap_or_default() + 60);
    })?;
    for protocol in BOTH {
        let path = format!("/v1/ws?token={socket}&device_id={}", new_id());
        let connected = Raw::connect(world.server(), &path, &[("sec-websocket-protocol", protocol)]).await?;
        assert!(connected.is_ok(), "{protocol}: {connected:?}");
    }
    let log = std::fs::read_to_string(world.log_path())?;
    let warnings = log.lines().filter(|line| line.contains("\"WARN\"") && line.contains("token in the URL")).count();
    assert_eq!(warnings, 2, "one for each");
    assert!(!log.contains(&socket), "the token itself stands in no log");
    // Only such a token may stand there.
    let path = format!("/v1/ws?token={}&device_id={}", token(&ana)?, new_id());
    assert_eq!(refused(&world, &path, &[]).await?.0, 401);
    Ok(())
}

#[tokio::test]
async fn ws_h_03_without_a_signature_that_holds_nobody_is_let_in() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client(PHONE).await?;
    let good = token(&ana)?;
    let (signed, signature) = good.rsplit_once('.').context("a token")?;
    let other = signature.replacen(&signature[..4], if signature.starts_with("AAAA") { "BBBB" } else { "AAAA" }, 1);
    let device = new_id();
    let cases = [
        ("no token", None),
        ("another signature", Some(format!("{signed}.{other}"))),
        ("no signature", Some(format!("{signed}."))),
        ("no token in it", Some("nonsense".to_owned())),
    ];
    for (name, shown) in cases {
        let bearer = shown.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("x-device-id", device.as_str())];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let (status, body) = refused(&world, "/v1/ws", &headers).await?;
        assert_eq!((status, &body["error"]), (401, &json!("invalid_token")), "{name}");
        assert!(body["message"].is_string(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn ws_h_04_an_expired_token_lets_nobody_in() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client(PHONE).await?;
    let expired = Signer::of(&world)?.changed(&token(&ana)?, |claims| claims["exp"] = claims["iat"].clone())?;
    let bearer = format!("Bearer {expired}");
    let (status, body) = refused(&world, "/v1/ws", &[("authorization", &bearer), ("x-device-id", &new_id())]).await?;
    assert_eq!((status, &body["error"]), (401, &json!("invalid_token")));
    Ok(())
}

#[tokio::test]
async fn ws_h_05_without_a_device_nobody_is_let_in() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client(PHONE).await?;
    let bearer = format!("Bearer {}", token(&ana)?);
    for headers in [vec![("authorization", &*bearer)], vec![("authorization", &*bearer), ("x-device-id", "phone")]] {
        let (status, body) = refused(&world, "/v1/ws", &headers).await?;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{headers:?}");
    }
    Ok(())
}

#[tokio::test]
async fn ws_h_06_another_version_is_refused_with_those_that_are_spoken() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client(PHONE).await?;
    let (bearer, device) = (format!("Bearer {}", token(&ana)?), new_id());
    let (status, body) = refused(&world, "/v7/ws", &[("authorization", &bearer), ("x-device-id", &device)]).await?;
    assert_eq!((status, &body["error"]), (400, &json!("unsupported_version")));
    assert_eq!(body["details"], json!({"requested_version": 7, "supported_versions": [1]}));
    Ok(())
}

#[tokio::test]
async fn ws_h_07_a_revoked_token_lets_nobody_in_and_without_redis_nobody_knows() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (ana, ben) = (world.client(PHONE).await?, world.client("+12025550101").await?);
    let (of_ana, of_ben) = (format!("Bearer {}", token(&ana)?), format!("Bearer {}", token(&ben)?));
    let cache = world.address("redis_url")?;
    let cache = cache.trim_start_matches("redis://").trim_end_matches('/');
    let revoked = claims(&token(&ana)?)?["jti"].as_str().context("no token id")?.to_owned();
    redis(cache, &format!("SET local.messaging.revoked_jti:{revoked} 1 EX 3600")).await?;
    let device = new_id();
    let (status, body) = refused(&world, "/v1/ws", &[("authorization", &of_ana), ("x-device-id", &device)]).await?;
    assert_eq!((status, &body["error"]), (401, &json!("token_revoked")));

    // Redis answers nobody for a while, which it ends by itself.
    redis(cache, "CLIENT PAUSE 6000 ALL").await?;
    let headers = [("authorization", of_ben.as_str()), ("x-device-id", device.as_str())];
    let (status, body) = refused(&world, "/v1/ws", &headers).await?;
    assert_eq!((status, &body["error"]), (503, &json!("service_unavailable")));
    assert!(body["retry_after_seconds"].as_u64().is_some_and(|seconds| seconds > 0), "{body}");
    let deadline = Instant::now() + WITHIN;
    while Raw::connect(world.server(), "/v1/ws", &headers).await?.is_err() {
        assert!(Instant::now() < deadline, "never again");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Has Redis do something, and waits until it has said so.
async fn redis(address: &str, command: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(&answer == b"+OK\r\n", "{command}: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

#[tokio::test]
async fn ws_h_08_the_first_frame_says_who_and_how_and_what_came_before_it_is_not_done() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (ana, ben) = (world.client(PHONE).await?, world.client("+12025550101").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    for protocol in BOTH {
        let speaker = Speaker::connect(&world, &ana, protocol).await?;
        let first = &speaker.established;
        assert_eq!((&first.user_id, &first.device_id), (&ana.user_id().to_owned(), &speaker.device), "{protocol}");
        assert!(first.connection_id.starts_with("conn_"), "{first:?}");
        assert_eq!((first.heartbeat_interval_ms, first.protocol_version), (30_000, 1));
        let since_login = first.server_time - issued_at(&token(&ana)?)? * 1000;
        assert!((0..600_000).contains(&since_login), "{first:?}");

        let frame =
            ClientFrame { request_id: "early".into(), payload: Some(Ask::SendMessage(text(&chat, "too early"))) };
        let early = match protocol {
            frames::PROTOBUF => masked(0x82, &frames::client_to_protobuf(&frame)),
            _ => masked(0x81, frames::client_to_json(&frame).as_bytes()),
        };
        let came = timeout(WITHIN, pipelined(&world, &token(&ana)?, protocol, &early)).await??;
        let text = String::from_utf8_lossy(&came);
        let established = text.find("conn_").context("no first frame")?;
        let error = text.find("INVALID_MESSAGE").context("no error")?;
        assert!(established < error, "{protocol}: {text}");
    }
    assert!(ana.rest().history(&chat).await?.is_empty(), "nothing of it is stored");
    Ok(())
}

/// A short frame with a mask of zeros.
fn masked(head: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    let length = match u8::try_from(length) {
        Ok(short @ ..126) => vec![0x80 | short],
        _ => [&[0x80 | 0x7e][..], &length.to_be_bytes()].concat(),
    };
    [&[head][..], &length, &[0; 4], payload].concat()
}

/// Sends the handshake and a frame at once, and returns what comes up to the end of an error.
async fn pipelined(world: &World, token: &str, protocol: &str, frame: &[u8]) -> anyhow::Result<Vec<u8>> {
    let address = world.address("public")?;
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await?;
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\nAuthorization: Bearer {token}\r\nX-Device-ID: {}\r\n\r\n",
        new_id(),
    );
    stream.write_all(&[request.as_bytes(), frame].concat()).await?;
    let mut came = Vec::new();
    while !String::from_utf8_lossy(&came).contains("INVALID_MESSAGE") {
        anyhow::ensure!(stream.read_buf(&mut came).await? > 0, "{}", String::from_utf8_lossy(&came));
    }
    Ok(came)
}

#[tokio::test]
async fn a_subprotocol_that_nobody_knows_means_json() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client(PHONE).await?;
    let (bearer, device) = (format!("Bearer {}", token(&ana)?), new_id());
    let headers = [("authorization", bearer.as_str()), ("x-device-id", device.as_str())];
    let mut raw = Raw::connect(world.server(), "/v1/ws", &headers).await?.map_err(|no| anyhow::anyhow!("{no:?}"))?;
    let Got::Frame(frame) = raw.next().await? else { anyhow::bail!("closed") };
    assert_eq!(frame["type"], "connection_established");
    Ok(())
}
