//! Bytes that no client sends: each gets its documented end, and nobody else notices.

use std::time::Duration;

use domain::ids::UserId;
use futures_util::SinkExt as _;
use gateway::config::Limits;
use proto::{
    frames,
    messaging::v1::{Heartbeat, SendMessage, client_frame::Payload as Ask, server_frame::Payload},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::world::{Client, PATIENCE, World, chat, device, in_both, roomy, user};

/// FIN and the opcode, or the opcode alone.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const FIRST_TEXT: u8 = 0x01;
const MORE: u8 = 0x00;
const MASKED: u8 = 0x80;

/// A frame with a mask of zeros, so that what is written is what is meant.
fn masked(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match u16::try_from(payload.len()) {
        Ok(length @ ..126) => frame.push(MASKED | u8::try_from(length).expect("small")),
        Ok(length) => frame.extend([&[MASKED | 0x7e][..], &length.to_be_bytes()].concat()),
        Err(_) => frame.extend([&[MASKED | 0x7f][..], &(payload.len() as u64).to_be_bytes()].concat()),
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A handshake with these bytes right behind it, in one write.
async fn raw(world: &World, user: UserId, protocol: &str, behind: &[u8]) -> TcpStream {
    let token = world.sign(&World::claims(user, 3600));
    let mut stream = TcpStream::connect(world.address).await.expect("reached");
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\nAuthorization: Bearer {token}\r\nX-Device-ID: {}\r\n\r\n",
        world.address,
        device(),
    );
    stream.write_all(&[request.as_bytes(), behind].concat()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.expect("in time").expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// What comes back on such a socket, read by a client that has manners.
async fn reading(stream: TcpStream, protocol: &str) -> Client {
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    Client { socket, is_binary: protocol == frames::PROTOBUF, id: String::new() }
}

#[tokio::test]
async fn what_breaks_rfc_6455_has_its_close_code() {
    let world = World::new().await;
    let mut other = world.connect(user()).await;
    let too_long_in_pieces = {
        let piece = vec![b'x'; 40_000];
        [masked(FIRST_TEXT, &piece), masked(MORE, &piece)].concat()
    };
    let endless = std::iter::once(masked(FIRST_TEXT, b"x")).chain((0..70_000).map(|_| masked(MORE, b"x"))).flatten();
    let cases = [
        ("without a mask", vec![TEXT, 2, b'{', b'}'], 1002),
        ("reserved bits", masked(TEXT | 0x40, b"{}"), 1002),
        ("a reserved opcode", masked(0x83, b"{}"), 1002),
        ("a reserved control opcode", masked(0x8b, b""), 1002),
        ("a ping in pieces", masked(PING & 0x0f, b"x"), 1002),
        ("a ping above 125 bytes", masked(PING, &[b'x'; 126]), 1002),
        ("a continuation of nothing", masked(MORE | 0x80, b"x"), 1002),
        ("a message within a message", [masked(FIRST_TEXT, b"{"), masked(TEXT, b"{}")].concat(), 1002),
        ("one byte of a close", masked(0x88, &[3]), 1002),
        ("a length of 2^62", [&[TEXT, MASKED | 0x7f][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat(), 1009),
        ("a length above the limit", [&[TEXT, MASKED | 0x7f][..], &65_537_u64.to_be_bytes(), &[0; 4]].concat(), 1009),
        ("too long in pieces", too_long_in_pieces, 1009),
        ("in pieces without end", endless.collect(), 1009),
        ("not UTF-8", masked(TEXT, &[0xff, 0xfe]), 1007),
        ("half a character at the end", masked(TEXT, &[b'{', 0xe2, 0x98]), 1007),
        ("a surrogate", masked(TEXT, &[0xed, 0xa0, 0x80]), 1007),
        ("binary where text was agreed", masked(BINARY, b"{}"), 1003),
    ];
    for (name, bytes, code) in cases {
        let mut stream = raw(&world, user(), frames::JSON, b"").await;
        // It may be ended before all of it is sent.
        let sent = stream.write_all(&bytes).await;
        let (reason, closed) = reading(stream, frames::JSON).await.closing().await;
        assert_eq!((&*reason, closed), ("protocol_error", code), "{name}, sent: {sent:?}");
    }
    // A close is answered, even this one.
    let mut stream = raw(&world, user(), frames::JSON, b"").await;
    stream.write_all(&masked(0x88, &999_u16.to_be_bytes())).await.expect("sent");
    assert_eq!(reading(stream, frames::JSON).await.closing().await, (String::new(), 1002));
    other.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
    assert!(matches!(other.next().await.payload, Some(Payload::HeartbeatAck(_))), "others don't notice");
}

#[tokio::test]
async fn one_byte_at_a_time_is_a_message_too() {
    let world = World::new().await;
    let mut client = reading(raw(&world, user(), frames::JSON, b"").await, frames::JSON).await;
    client.next().await;
    let text = br#"{"type":"heartbeat","request_id":"slow","payload":{}}"#;
    let mut bytes: Vec<u8> = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        let head = if at == 0 { FIRST_TEXT } else { MORE };
        let is_last = at + 1 == text.len();
        bytes.extend(masked(if is_last { head | 0x80 } else { head }, &[*byte]));
        bytes.extend(masked(PING, b"")); // control frames may come between
    }
    let stream = client.socket.get_mut();
    for byte in bytes {
        stream.write_all(&[byte]).await.expect("sent");
    }
    loop {
        match timeout(PATIENCE, futures_util::StreamExt::next(&mut client.socket)).await.expect("in time") {
            Some(Ok(Message::Pong(_))) => {}
            Some(Ok(Message::Text(text))) => {
                assert_eq!(frames::server_from_json(text.as_str()).expect("a frame").request_id, "slow");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_is_done_that_was_sent_before_the_connection_was_established() {
    in_both(async |protocol| {
        let world = World::new().await;
        let (user, chat) = (user(), chat());
        let send = SendMessage {
            client_message_id: "eaefc4d2-d3bf-4d01-abae-4b5b844a7034".into(),
            chat_id: chat.to_string(),
            content: "early".into(),
            content_type: String::new(),
        };
        let frame = proto::messaging::v1::ClientFrame {
            request_id: "e".into(),
            trace_context: None,
            payload: Some(Ask::SendMessage(send)),
        };
        let early = match protocol {
            frames::PROTOBUF => masked(BINARY, &frames::client_to_protobuf(&frame)),
            _ => masked(TEXT, frames::client_to_json(&frame).as_bytes()),
        };
        let mut client = reading(raw(&world, user, protocol, &early).await, protocol).await;
        let first = client.next().await;
        assert!(matches!(first.payload, Some(Payload::ConnectionEstablished(_))), "{first:?}");
        assert_eq!(client.error("e").await.code, "INVALID_MESSAGE");
        client.send("now", chat, "in time").await;
        assert_eq!(client.next().await.request_id, "now");
        assert_eq!(world.ingest.texts(chat), ["in time"]);
    })
    .await;
}

#[tokio::test]
async fn frames_that_only_seem_to_be_some_are_refused_and_the_connection_stays() {
    let world = World::with(gateway::config::Limits { frame_invalid: 1000, ..crate::world::roomy() }).await;
    let mut client = world.connect(user()).await;
    let deep = "[".repeat(60_000);
    let cases = [
        "[]".to_owned(),
        "null".to_owned(),
        "NaN".to_owned(),
        r#"["heartbeat",null,null,{}]"#.to_owned(),
        r#"{"type":"heartbeat","payload":{}"#.to_owned(),
        r#"{"type":"heartbeat","payload":{},}"#.to_owned(),
        r#"{"type":"heartbeat","payload":{}} x"#.to_owned(),
        r#"{"type":"heartbeat","type":"heartbeat","payload":{}}"#.to_owned(),
        r#"{"type":"heartbeat","payload":{"open_chats":[],"open_chats":[]}}"#.to_owned(),
        r#"{"type":"heartbeat","payload":{"open_chats":[{"chat_id":"c","last_sequence":NaN}]}}"#.to_owned(),
        r#"{"type":"heartbeat","payload":{"open_chats":[{"chat_id":"c","last_sequence":1e308}]}}"#.to_owned(),
        r#"{"type":"heartbeat","payload":{"open_chats":[{"chat_id":"c","last_sequence":18446744073709551616}]}}"#
            .to_owned(),
        r#"{"type":"\ud800","payload":{}}"#.to_owned(),
        r#"{"type":"heartbeat","request_id":7,"payload":{}}"#.to_owned(),
        r#"{"type":"heartbeat","payload":null}"#.to_owned(),
        r#"{"type":"heartbeat","payload":[]}"#.to_owned(),
        format!(r#"{{"type":"heartbeat","payload":{{"x":{deep}}}}}"#),
        deep,
        format!("{{\"type\":\"heartbeat\",{}\"payload\":[]}}", " ".repeat(60_000)),
    ];
    for text in cases {
        client.text(&text).await;
        let shown: String = text.chars().take(80).collect();
        let error = client.error("").await;
        assert_eq!(error.code, "INVALID_MESSAGE", "{shown}");
        assert!(error.message.chars().count() <= 200, "{shown}");
    }
    client.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
    assert!(matches!(client.next().await.payload, Some(Payload::HeartbeatAck(_))));

    let mut client = world.connect_as(user(), &device(), Some(frames::PROTOBUF)).await;
    let deep = [0x7b].repeat(60_000);
    let long = [vec![0xff; 9], vec![0x01]].concat();
    let cases: [(&[u8], &str); 6] = [
        (b"", ""),
        (b"\x0a\x01r", "r"),
        (b"\x0a\x01r\x52\x05\x0a\x05abc", "r"),
        (b"\x0a\x01r\x52\x02\x0a\x05", "r"),
        (&deep, ""),
        (&long, ""),
    ];
    for (bytes, request_id) in cases {
        futures_util::SinkExt::send(&mut client.socket, Message::Binary(bytes.to_vec().into())).await.expect("sent");
        assert_eq!(client.error(request_id).await.code, "INVALID_MESSAGE", "{:?}", &bytes[..bytes.len().min(20)]);
    }
    let not_utf8 = b"\x0a\x01r\x52\x04\x1a\x02\xff\xfe";
    futures_util::SinkExt::send(&mut client.socket, Message::Binary(not_utf8.to_vec().into())).await.expect("sent");
    assert_eq!(client.error("r").await.code, "INVALID_ENCODING");
}

#[tokio::test]
async fn who_sends_without_a_pause_is_still_looked_at() {
    let limits = Limits { heartbeat_interval: Duration::from_millis(200), ..roomy() };
    let world = World::with(limits).await;
    let mut client = world.connect(user()).await;
    // They are no heartbeats and have no answer, but there is always something to read.
    let flood = async { while client.socket.feed(Message::Pong(vec![0; 100].into())).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("the connection ends");
}
