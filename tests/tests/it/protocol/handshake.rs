//! WS-H: who may connect, and what comes first.

use std::time::Duration;

use anyhow::Context as _;
use proto::{
    frames,
    messaging::v1::{ClientFrame, client_frame::Payload as Ask},
};
use serde_json::{Value, json};
use tests::raw::{Got, Raw};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    place::{Place, rules},
    speaker::{BOTH, Speaker, WITHIN, new_id, text, token_of},
    tokens::{Signer, claims, issued_at},
};

rules! {
    ws_h_01_a_token_and_a_device_in_headers_make_a_connection;
    ws_h_02_a_socket_token_in_the_url_makes_a_connection_and_a_warning;
    ws_h_03_without_a_signature_that_holds_nobody_is_let_in;
    ws_h_04_an_expired_token_lets_nobody_in;
    ws_h_05_without_a_device_nobody_is_let_in;
    ws_h_06_another_version_is_refused_with_those_that_are_spoken;
    ws_h_07_a_revoked_token_lets_nobody_in_and_without_redis_nobody_knows;
    ws_h_08_the_first_frame_says_who_and_how_and_what_came_before_it_is_not_done;
    a_subprotocol_that_nobody_knows_means_json;
}

const PHONE: &str = "+12025550100";

/// A handshake that is refused: its status and its body.
async fn refused(place: &Place, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<(u16, Value)> {
    match Raw::connect(place.server(), path, headers).await? {
        Err(refused) => Ok(refused),
        Ok(_) => anyhow::bail!("{path} {headers:?}: it was let in"),
    }
}

async fn ws_h_01_a_token_and_a_device_in_headers_make_a_connection(place: Place) -> anyhow::Result<()> {
    let ana = place.client(PHONE).await?;
    for protocol in BOTH {
        let speaker = Speaker::connect(&place, &ana, protocol).await?;
        assert_eq!(speaker.established.user_id, ana.user_id(), "{protocol}");
    }
    Ok(())
}

async fn ws_h_02_a_socket_token_in_the_url_makes_a_connection_and_a_warning(place: Place) -> anyhow::Result<()> {
    let ana = place.client(PHONE).await?;
    let socket = Signer::of(&place)?.changed(&token_of(&ana)?, |claims| {
        claims["scope"] = json!("socket");
        claims["exp"] = json!(claims["iat"].as_i64().unwrap_or_default() + 60);
    })?;
    for protocol in BOTH {
        let speaker = Speaker::connect_by_url(&place, &socket, protocol).await?;
        let first = &speaker.established;
        assert_eq!((first.user_id.as_str(), &first.device_id), (ana.user_id(), &speaker.device), "{protocol}");
    }
    let log = place.log()?;
    let warnings = log.lines().filter(|line| line.contains("\"WARN\"") && line.contains("token in the URL")).count();
    assert_eq!(warnings, 2, "one for each");
    assert!(!log.contains(&socket), "the token itself stands in no log");
    // Only such a token may stand there.
    let path = format!("/v1/ws?token={}&device_id={}", token_of(&ana)?, new_id());
    assert_eq!(refused(&place, &path, &[]).await?.0, 401);
    Ok(())
}

async fn ws_h_03_without_a_signature_that_holds_nobody_is_let_in(place: Place) -> anyhow::Result<()> {
    let ana = place.client(PHONE).await?;
    let good = token_of(&ana)?;
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
        let (status, body) = refused(&place, "/v1/ws", &headers).await?;
        assert_eq!((status, &body["error"]), (401, &json!("invalid_token")), "{name}");
        assert!(body["message"].is_string(), "{name}");
    }
    Ok(())
}

async fn ws_h_04_an_expired_token_lets_nobody_in(place: Place) -> anyhow::Result<()> {
    let ana = place.client(PHONE).await?;
    let expired = Signer::of(&place)?.changed(&token_of(&ana)?, |claims| claims["exp"] = claims["iat"].clone())?;
    let bearer = format!("Bearer {expired}");
    let (status, body) = refused(&place, "/v1/ws", &[("authorization", &bearer), ("x-device-id", &new_id())]).await?;
    assert_eq!((status, &body["error"]), (401, &json!("invalid_token")));
    Ok(())
}

async fn ws_h_05_without_a_device_nobody_is_let_in(place: Place) -> anyhow::Result<()> {
    let ana = place.client(PHONE).await?;
    let bearer = format!("Bearer {}", token_of(&ana)?);
    for headers in [vec![("authorization", &*bearer)], vec![("authorization", &*bearer), ("x-device-id", "phone")]] {
        let (status, body) = refused(&place, "/v1/ws", &headers).await?;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{headers:?}");
    }
    Ok(())
}

async fn ws_h_06_another_version_is_refused_with_those_that_are_spoken(place: Place) -> anyhow::Result<()> {
    let ana = place.client(PHONE).await?;
    let (bearer, device) = (format!("Bearer {}", token_of(&ana)?), new_id());
    // Gateway itself is asked: what stands before it leads only `/v1/ws` there (D1.2).
    let gateway = format!("http://{}", place.gateway(place.turn()).await?);
    let headers = [("authorization", &*bearer), ("x-device-id", &*device)];
    let Err((status, body)) = Raw::connect(&gateway, "/v7/ws", &headers).await? else { anyhow::bail!("let in") };
    assert_eq!((status, &body["error"]), (400, &json!("unsupported_version")));
    assert_eq!(body["details"], json!({"requested_version": 7, "supported_versions": [1]}));
    Ok(())
}

async fn ws_h_07_a_revoked_token_lets_nobody_in_and_without_redis_nobody_knows(place: Place) -> anyhow::Result<()> {
    let (ana, ben) = (place.client(PHONE).await?, place.client("+12025550101").await?);
    let (of_ana, of_ben) = (format!("Bearer {}", token_of(&ana)?), format!("Bearer {}", token_of(&ben)?));
    let revoked = claims(&token_of(&ana)?)?["jti"].as_str().context("no token id")?.to_owned();
    place.remember(&format!("revoked_jti:{revoked}")).await?;
    let device = new_id();
    let (status, body) = refused(&place, "/v1/ws", &[("authorization", &of_ana), ("x-device-id", &device)]).await?;
    assert_eq!((status, &body["error"]), (401, &json!("token_revoked")));

    let away = place.without_redis().await?;
    let headers = [("authorization", of_ben.as_str()), ("x-device-id", device.as_str())];
    let (status, body) = refused(&place, "/v1/ws", &headers).await?;
    assert_eq!((status, &body["error"]), (503, &json!("service_unavailable")));
    assert!(body["retry_after_seconds"].as_u64().is_some_and(|seconds| seconds > 0), "{body}");
    drop(away);
    let deadline = Instant::now() + WITHIN;
    while Raw::connect(place.server(), "/v1/ws", &headers).await?.is_err() {
        assert!(Instant::now() < deadline, "never again");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn ws_h_08_the_first_frame_says_who_and_how_and_what_came_before_it_is_not_done(
    place: Place,
) -> anyhow::Result<()> {
    let (ana, ben) = (place.client(PHONE).await?, place.client("+12025550101").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    for protocol in BOTH {
        let speaker = Speaker::connect(&place, &ana, protocol).await?;
        let first = &speaker.established;
        assert_eq!((&first.user_id, &first.device_id), (&ana.user_id().to_owned(), &speaker.device), "{protocol}");
        assert!(first.connection_id.starts_with("conn_"), "{first:?}");
        assert_eq!((first.heartbeat_interval_ms, first.protocol_version), (30_000, 1));
        let since_login = first.server_time - issued_at(&token_of(&ana)?)? * 1000;
        assert!((0..600_000).contains(&since_login), "{first:?}");

        let frame = ClientFrame {
            request_id: "early".into(),
            trace_context: None,
            payload: Some(Ask::SendMessage(text(&chat, "too early"))),
        };
        let early = match protocol {
            frames::PROTOBUF => masked(0x82, &frames::client_to_protobuf(&frame)),
            _ => masked(0x81, frames::client_to_json(&frame).as_bytes()),
        };
        let came = timeout(WITHIN, pipelined(&place, &token_of(&ana)?, protocol, &early)).await??;
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
async fn pipelined(place: &Place, token: &str, protocol: &str, frame: &[u8]) -> anyhow::Result<Vec<u8>> {
    let address = place.gateway(place.turn()).await?;
    let mut stream = TcpStream::connect(address).await?;
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

async fn a_subprotocol_that_nobody_knows_means_json(place: Place) -> anyhow::Result<()> {
    let ana = place.client(PHONE).await?;
    let (bearer, device) = (format!("Bearer {}", token_of(&ana)?), new_id());
    let headers = [("authorization", bearer.as_str()), ("x-device-id", device.as_str())];
    let mut raw = Raw::connect(place.server(), "/v1/ws", &headers).await?.map_err(|no| anyhow::anyhow!("{no:?}"))?;
    let Got::Frame(frame) = raw.next().await? else { anyhow::bail!("closed") };
    assert_eq!(frame["type"], "connection_established");
    Ok(())
}
