//! WS-E: what is refused, how, and that the connection stays.

use std::{collections::BTreeSet, time::Duration};

use proto::{
    frames,
    messaging::v1::{
        Ack, ChatCursor, Heartbeat, SendMessage, SyncHeads, SyncRequest, client_frame::Payload as Ask,
        server_frame::Payload,
    },
};
use serde_json::json;
use tests::client::Client;
use tokio::time::{Instant, sleep};

use super::{
    place::{Place, rules},
    speaker::{BOTH, Speaker, WITHIN, new_id, text, token_of},
    tokens::Signer,
};

rules! {
    ws_e_01_a_frame_that_is_none_is_refused_and_the_connection_stays with ["--frame-invalid=1000", "--sync-burst=1000"];
    ws_e_02_content_ends_at_4096_bytes;
    ws_e_03_an_unknown_type_is_logged_and_not_answered;
    ws_e_04_who_sends_too_fast_is_refused_and_takes_no_place with super::SLOW;
    ws_e_05_only_documented_codes_come with super::SLOW, ["--frame-invalid=1000", "--inbound-requests=4"];
}

/// As a platform has it: 10 a second, 20 at once.
const SLOW: [&str; 2] = ["--send-rate=10", "--send-burst=20"];
const UNKNOWN: &str = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2";

async fn two(place: &Place) -> anyhow::Result<(Client, Client, String)> {
    let (ana, ben) = (place.client("+12025550100").await?, place.client("+12025550101").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    Ok((ana, ben, chat))
}

/// Requests with one fault each: what is wrong, the request, and the code that it gets.
fn faults(chat: &str) -> Vec<(&'static str, Ask, &'static str)> {
    let send = |change: fn(&mut SendMessage)| {
        let mut send = text(chat, "hi");
        change(&mut send);
        Ask::SendMessage(send)
    };
    let cursor = |chat_id: &str| ChatCursor { chat_id: chat_id.to_owned(), last_sequence: 0 };
    let sync =
        |limit, after| Ask::SyncRequest(SyncRequest { chat_id: chat.to_owned(), last_acked_sequence: after, limit });
    vec![
        ("no content", send(|it| it.content.clear()), "INVALID_MESSAGE"),
        ("an id that is no UUID", send(|it| it.client_message_id = "7".into()), "INVALID_MESSAGE"),
        ("no id", send(|it| it.client_message_id.clear()), "INVALID_MESSAGE"),
        ("no chat", send(|it| it.chat_id.clear()), "INVALID_MESSAGE"),
        ("an id of another kind", send(|it| it.chat_id = it.chat_id.replace("chat_", "user_")), "INVALID_MESSAGE"),
        ("an unknown chat", send(|it| it.chat_id = UNKNOWN.into()), "NOT_A_MEMBER"),
        ("another content type", send(|it| it.content_type = "text/html".into()), "INVALID_CONTENT_TYPE"),
        ("a NUL", send(|it| it.content = "a\0b".into()), "INVALID_CONTENT"),
        ("content above the limit", send(|it| it.content = "x".repeat(4097)), "MESSAGE_TOO_LARGE"),
        ("a page of nothing", sync(Some(0), 0), "INVALID_MESSAGE"),
        ("a sequence above 2^53", sync(None, 1 << 53), "INVALID_MESSAGE"),
        ("heads of too many", Ask::SyncHeads(SyncHeads { chats: vec![cursor(UNKNOWN); 51] }), "INVALID_MESSAGE"),
        ("heads of no chat", Ask::SyncHeads(SyncHeads { chats: vec![cursor("x")] }), "INVALID_MESSAGE"),
        ("too many open chats", Ask::Heartbeat(Heartbeat { open_chats: vec![cursor(UNKNOWN); 21] }), "INVALID_MESSAGE"),
    ]
}

async fn ws_e_01_a_frame_that_is_none_is_refused_and_the_connection_stays(place: Place) -> anyhow::Result<()> {
    let (ana, _ben, chat) = two(&place).await?;
    for protocol in BOTH {
        let mut speaker = Speaker::connect(&place, &ana, protocol).await?;
        for (name, ask, code) in faults(&chat) {
            speaker.ask("r-1", ask).await?;
            let error = speaker.error("r-1").await?;
            assert_eq!(error.code, code, "{protocol}: {name}");
            assert!(!error.message.is_empty(), "{name}");
        }
        // What has no request id, or none that can be read, is told to nobody in particular.
        speaker.raw_bytes("{", &[0xff; 5]).await?;
        assert_eq!(speaker.error("").await?.code, "INVALID_MESSAGE", "{protocol}: unparsable");
        speaker.raw_bytes(r#"{"payload":{}}"#, b"").await?;
        assert_eq!(speaker.error("").await?.code, "INVALID_MESSAGE", "{protocol}: no type");
        for request in ["", "no spaces please", &"x".repeat(37)] {
            speaker.ask(request, Ask::SendMessage(text(&chat, "hi"))).await?;
            assert_eq!(speaker.error("").await?.code, "INVALID_MESSAGE", "{protocol}: request id {request:?}");
        }
        for ack in [(0, None), (1 << 53, None), (1, Some(2))] {
            let ack = Ack { chat_id: chat.clone(), last_acked_sequence: ack.0, last_read_sequence: ack.1 };
            speaker.ask("x", Ask::Ack(ack.clone())).await?;
            assert_eq!(speaker.error("").await?.code, "INVALID_MESSAGE", "{protocol}: {ack:?}");
        }
        let negative = format!(r#"{{"type":"ack","payload":{{"chat_id":"{chat}","last_acked_sequence":-1}}}}"#);
        // As protobuf, −1 is the largest of all numbers.
        let huge = Ack { chat_id: chat.clone(), last_acked_sequence: u64::MAX, last_read_sequence: None };
        let frame = proto::messaging::v1::ClientFrame {
            request_id: String::new(),
            trace_context: None,
            payload: Some(Ask::Ack(huge)),
        };
        speaker.raw_bytes(&negative, &frames::client_to_protobuf(&frame)).await?;
        assert_eq!(speaker.error("").await?.code, "INVALID_MESSAGE", "{protocol}: a negative ack");
        speaker.nothing_before_this_heartbeat().await?;
    }
    assert!(ana.rest().history(&chat).await?.is_empty(), "nothing that was refused is stored");
    Ok(())
}

async fn ws_e_02_content_ends_at_4096_bytes(place: Place) -> anyhow::Result<()> {
    let (ana, _ben, chat) = two(&place).await?;
    let family = "👨‍👩‍👧‍👦";
    for protocol in BOTH {
        let mut speaker = Speaker::connect(&place, &ana, protocol).await?;
        for content in ["x".repeat(4097), "é".repeat(2049), family.repeat(4096 / family.len() + 1)] {
            speaker.ask("long", Ask::SendMessage(text(&chat, &content))).await?;
            assert_eq!(speaker.error("long").await?.code, "MESSAGE_TOO_LARGE", "{protocol}");
        }
        let fits = ["x".repeat(4096), "é".repeat(2048), family.repeat(4096 / family.len()), family.to_owned()];
        for content in fits {
            let place = speaker.say(&chat, &content).await?.sequence;
            let stored = ana.rest().history(&chat).await?;
            let item = stored.iter().find(|item| item.sequence == place);
            assert_eq!(item.map(|item| item.content.as_str()), Some(content.as_str()), "{protocol}");
        }
    }
    Ok(())
}

async fn ws_e_03_an_unknown_type_is_logged_and_not_answered(place: Place) -> anyhow::Result<()> {
    let ana = place.client("+12025550100").await?;
    for protocol in BOTH {
        let mut speaker = Speaker::connect(&place, &ana, protocol).await?;
        // As protobuf a payload 99, as a later version may have it.
        speaker.raw_bytes(r#"{"type":"wave","request_id":"r","payload":{}}"#, b"\x0a\x01r\x9a\x06\x00").await?;
        speaker.nothing_before_this_heartbeat().await?;
    }
    let log = place.log()?;
    assert_eq!(log.lines().filter(|line| line.contains("unknown frame type")).count(), 2, "one for each");
    Ok(())
}

async fn ws_e_04_who_sends_too_fast_is_refused_and_takes_no_place(place: Place) -> anyhow::Result<()> {
    let (ana, ben) = (place.client("+12025550100").await?, place.client("+12025550101").await?);
    for protocol in BOTH {
        // A chat of its own: the limit also holds for a user in a chat, over all connections.
        let chat = ana.rest().group(protocol, &[ben.user_id()]).await?.chat_id;
        let mut speaker = Speaker::connect(&place, &ana, protocol).await?;
        let begun = Instant::now();
        let requests: Vec<String> = (0..60).map(|number| format!("r-{number}")).collect();
        for request in &requests {
            speaker.ask(request, Ask::SendMessage(text(&chat, "hi"))).await?;
        }
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        while acknowledged.len() + refused < requests.len() {
            let frame = speaker.frame().await?;
            match frame.payload {
                Some(Payload::SendMessageAck(ack)) => {
                    acknowledged.push(frame.request_id);
                    assert_eq!(ack.sequence, acknowledged.len() as u64, "{protocol}: a refused one takes no place");
                }
                Some(Payload::Error(error)) => {
                    let retry_after = error.details.and_then(|details| details.retry_after_seconds);
                    assert_eq!((&*error.code, retry_after), ("RATE_LIMITED", Some(1)), "{protocol}");
                    refused += 1;
                }
                other => anyhow::bail!("{other:?}"),
            }
        }
        let refilled = usize::try_from(begun.elapsed().as_millis() / 100)? + 1;
        assert_eq!(acknowledged.get(..20), requests.get(..20), "{protocol}: twenty at once are not too many");
        assert!(acknowledged.len() <= 20 + refilled, "{protocol}: {} with {refilled} more", acknowledged.len());
        assert!(refused > 0, "{protocol}: sixty at once are too many");
        // Who waits is let in again.
        let deadline = Instant::now() + WITHIN;
        let last = loop {
            let request = new_id();
            speaker.ask(&request, Ask::SendMessage(text(&chat, "hi"))).await?;
            if let Payload::SendMessageAck(ack) = speaker.answer(&request).await? {
                break ack.sequence;
            }
            anyhow::ensure!(Instant::now() < deadline, "{protocol}: never again");
            sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(last, acknowledged.len() as u64 + 1, "{protocol}");
        assert_eq!(ana.rest().history(&chat).await?.len() as u64, last, "{protocol}");
    }
    Ok(())
}

/// Codes that both encodings are given here. Others have a test of their own: `SLOW_CONSUMER` (WS-B-01),
/// `SERVICE_UNAVAILABLE` (CT-GI-03), and in gateway's tests, where ingest is a played one, `INTERNAL_ERROR` and `FORBIDDEN`
/// (`refusals_carry_code_details_and_request_id`) and `VERSION_DEPRECATED`
/// (`a_version_that_ends_is_announced_to_who_connects`). `NOT_FOUND` is said of no request: an unknown chat is one that
/// one is not in (D2.9).
const PROVOKED: [&str; 8] = [
    "INVALID_MESSAGE",
    "NOT_A_MEMBER",
    "MESSAGE_TOO_LARGE",
    "INVALID_CONTENT_TYPE",
    "INVALID_CONTENT",
    "RATE_LIMITED",
    "SERVER_BUSY",
    "UNAUTHORIZED",
];

/// The codes that clients are told of.
fn documented() -> Vec<&'static str> {
    let page = include_str!("../../../../docs/PROTOCOL.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Error codes")).unwrap_or_default();
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

async fn ws_e_05_only_documented_codes_come(place: Place) -> anyhow::Result<()> {
    let (ana, _ben, chat) = two(&place).await?;
    for protocol in BOTH {
        let mut expected = BTreeSet::from(PROVOKED);
        if protocol == frames::PROTOBUF {
            // Text that is not UTF-8 is no frame at all in JSON: that ends the connection.
            expected.insert("INVALID_ENCODING");
        }
        let mut seen = BTreeSet::from([expire(&place, &ana, protocol).await?]);
        let deadline = Instant::now() + WITHIN;
        // More may be answered than is asked meanwhile: then it was not too much at once.
        while !expected.iter().all(|code| seen.contains(*code)) {
            anyhow::ensure!(Instant::now() < deadline, "{protocol}: of {expected:?} only {seen:?} came");
            seen.extend(provoke(&place, &ana, &chat, protocol).await?);
        }
        let undocumented: Vec<_> = seen.iter().filter(|code| !documented().contains(&code.as_str())).collect();
        assert!(undocumented.is_empty(), "{protocol}: {undocumented:?}");
    }
    Ok(())
}

/// Does what is wrong and what is too much on a connection, and returns the codes that come.
async fn provoke(place: &Place, ana: &Client, chat: &str, protocol: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut speaker = Speaker::connect(place, ana, protocol).await?;
    let asks = faults(chat).into_iter().map(|(_, ask, _)| ask);
    let floods = (0..60).map(|_| Ask::SendMessage(text(chat, "hi")));
    let pages = (0..60).map(|_| Ask::SyncRequest(SyncRequest { chat_id: chat.to_owned(), ..SyncRequest::default() }));
    let mut open = BTreeSet::from(["r".to_owned()]);
    for ask in asks.chain(floods).chain(pages) {
        let request = new_id();
        speaker.ask(&request, ask).await?;
        open.insert(request);
    }
    let no_content = r#"{"type":"send_message","request_id":"r","payload":{}}"#;
    speaker.raw_bytes(no_content, b"\x0a\x01r\x52\x04\x1a\x02\xff\xfe").await?;
    let mut seen = BTreeSet::new();
    while !open.is_empty() {
        let frame = speaker.frame().await?;
        if let Some(Payload::Error(error)) = frame.payload {
            seen.insert(error.code);
        }
        open.remove(&frame.request_id);
    }
    Ok(seen)
}

/// Lets the token of a connection expire, and returns the code that comes.
async fn expire(place: &Place, ana: &Client, protocol: &str) -> anyhow::Result<String> {
    let signer = Signer::of(place)?;
    // On a slow machine a token may have expired before it was shown.
    for seconds in [2, 8, 25] {
        let now = Speaker::connect(place, ana, protocol).await?.established.server_time / 1000;
        let token = signer.changed(&token_of(ana)?, |claims| claims["exp"] = json!(now + seconds))?;
        if let Ok(mut speaker) = Speaker::connect_by(place, &token, protocol).await {
            return Ok(speaker.error("").await?.code);
        }
    }
    anyhow::bail!("{protocol}: no connection was made before its token expired")
}
