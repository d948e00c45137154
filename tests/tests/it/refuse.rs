//! Bad input: the documented error, and the connection or the process stays.

use serde_json::{Value, json};
use tests::{
    client::Client,
    raw::{Got, Raw},
    world::World,
};

async fn socket(world: &World, client: &Client) -> anyhow::Result<Raw> {
    let token = format!("Bearer {}", client.rest().tokens()?.access_token);
    // Another device than the client's own, whose connection stays.
    let headers = [("authorization", token.as_str()), ("x-device-id", "e77ffe48-d0a6-4c17-9556-585ea997f351")];
    let mut raw =
        Raw::connect(world.server(), "/v1/ws", &headers).await?.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    raw.next_of("connection_established").await?;
    Ok(raw)
}

fn send(chat: &str, changes: &Value) -> String {
    let mut payload =
        json!({"client_message_id": "eaefc4d2-d3bf-4d01-abae-4b5b844a7034", "chat_id": chat, "content": "hi"});
    for (name, value) in changes.as_object().into_iter().flatten() {
        payload[name] = value.clone();
    }
    json!({"type": "send_message", "request_id": "r-1", "payload": payload}).to_string()
}

#[tokio::test]
async fn a_bad_frame_gets_its_documented_error_and_the_connection_stays() -> anyhow::Result<()> {
    let world = World::start_with(&["--frame-invalid=1000"]).await?;
    let (ana, ben, eve) =
        (world.client("+12025550100").await?, world.client("+12025550101").await?, world.client("+12025550102").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let unknown = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2";
    let long = "x".repeat(4097);
    let (mut of_ana, mut of_eve) = (socket(&world, &ana).await?, socket(&world, &eve).await?);
    let answered = [
        ("an unknown chat", send(unknown, &json!({})), "NOT_A_MEMBER"),
        ("no content", send(&chat, &json!({"content": ""})), "INVALID_MESSAGE"),
        ("content above the limit", send(&chat, &json!({"content": long})), "MESSAGE_TOO_LARGE"),
        ("an id that is no UUID", send(&chat, &json!({"client_message_id": "7"})), "INVALID_MESSAGE"),
        ("an id of another kind", send("user_01KKNTQ2BCF5KZNWJ47TAN9ZT2", &json!({})), "INVALID_MESSAGE"),
        ("another content type", send(&chat, &json!({"content_type": "text/html"})), "INVALID_CONTENT_TYPE"),
        ("a NUL", send(&chat, &json!({"content": "a\u{0}b"})), "INVALID_CONTENT"),
        ("no payload", json!({"type": "send_message", "request_id": "r-1"}).to_string(), "INVALID_MESSAGE"),
    ];
    for (name, frame, code) in answered {
        of_ana.text(frame).await?;
        let error = of_ana.next_of("error").await?;
        assert_eq!((&error["payload"]["code"], &error["request_id"]), (&json!(code), &json!("r-1")), "{name}");
    }
    of_eve.text(send(&chat, &json!({}))).await?;
    assert_eq!(of_eve.next_of("error").await?["payload"]["code"], "NOT_A_MEMBER", "not in the chat");

    for (name, frame) in [
        ("no JSON", "{"),
        ("no type", r#"{"payload":{}}"#),
        (
            "a negative ack",
            r#"{"type":"ack","payload":{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","last_acked_sequence":-1}}"#,
        ),
        (
            "no request id",
            r#"{"type":"send_message","payload":{"client_message_id":"eaefc4d2-d3bf-4d01-abae-4b5b844a7034","chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","content":"x"}}"#,
        ),
    ] {
        of_ana.text(frame).await?;
        assert_eq!(of_ana.next_of("error").await?["payload"]["code"], "INVALID_MESSAGE", "{name}");
    }
    // An unknown type is passed over in silence; the connection serves on.
    of_ana.text(r#"{"type":"wave","request_id":"w","payload":{}}"#).await?;
    of_ana.text(send(&chat, &json!({}))).await?;
    assert_eq!(of_ana.next_of("send_message_ack").await?["payload"]["sequence"], 1);
    assert_eq!(ana.rest().history(&chat).await?.len(), 1, "nothing that was refused is stored");
    Ok(())
}

#[tokio::test]
async fn a_frame_that_can_not_be_borne_closes_its_connection_and_no_other() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client("+12025550100").await?;
    let mut too_large = socket(&world, &ana).await?;
    too_large.text("x".repeat(65_537)).await?;
    assert_eq!(closed(&mut too_large).await?, 1009);
    let mut binary = socket(&world, &ana).await?;
    binary.binary(vec![1, 2, 3]).await?;
    assert_eq!(closed(&mut binary).await?, 1003);
    let mut many = socket(&world, &ana).await?;
    for _ in 0..10 {
        many.text("{").await?;
    }
    assert_eq!(closed(&mut many).await?, 1002);
    assert_eq!(ana.state(), tests::client::State::Ready, "the other connection is as it was");
    Ok(())
}

#[tokio::test]
async fn a_handshake_without_a_good_token_is_refused() -> anyhow::Result<()> {
    let world = World::start().await?;
    let ana = world.client("+12025550100").await?;
    let good = format!("Bearer {}", ana.rest().tokens()?.access_token);
    let forged = format!("{}x", &good[..good.len() - 4]);
    let device = ("x-device-id", "e77ffe48-d0a6-4c17-9556-585ea997f351");
    for (name, path, headers, expected) in [
        ("no token", "/v1/ws", vec![device], 401),
        ("a forged token", "/v1/ws", vec![("authorization", forged.as_str()), device], 401),
        ("no token at all in it", "/v1/ws", vec![("authorization", "Bearer x"), device], 401),
        ("no device", "/v1/ws", vec![("authorization", good.as_str())], 400),
        ("another version", "/v7/ws", vec![("authorization", good.as_str()), device], 400),
    ] {
        match Raw::connect(world.server(), path, &headers).await? {
            Err((status, body)) => {
                assert_eq!(status, expected, "{name}: {body}");
                assert!(body["error"].is_string(), "{name}: {body}");
            }
            Ok(_) => panic!("{name}: it was let in"),
        }
    }
    Ok(())
}

async fn closed(raw: &mut Raw) -> anyhow::Result<u16> {
    loop {
        if let Got::Closed(code) = raw.next().await? {
            return Ok(code);
        }
    }
}
