//! The duties of the client contract, one by one, against a server that a test plays.

mod script;

use std::{sync::atomic::Ordering, time::Duration};

use proto::messaging::v1::{
    ChatHead, ConnectionClosing, ErrorDetails, ErrorFrame, HeartbeatAck, SendMessageAck, SyncHeadsResponse, SyncItem,
    SyncResponse, client_frame::Payload as Request, server_frame::Payload,
};
use script::{Peer, Refusal, Script, USER};
use tests::client::{Client, Options, State};
use tokio::time::{Instant, timeout};

const WITHIN: Duration = Duration::from_secs(10);
const CHAT: &str = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2";
/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(150);

async fn login(script: &Script) -> anyhow::Result<Client> {
    Client::login(Options::quick(script.server()), "+12025550100", || async { Ok("123456".to_owned()) }).await
}

/// A client that has caught up, and the server's end of its connection.
async fn ready(script: &mut Script) -> anyhow::Result<(Client, Peer)> {
    let client = login(script).await?;
    let peer = caught_up(script, 0).await?;
    client.ready(WITHIN).await?;
    Ok((client, peer))
}

/// The next connection, established, its heads answered with `head` for every chat.
async fn caught_up(script: &mut Script, head: u64) -> anyhow::Result<Peer> {
    let mut peer = script.connection().await?;
    peer.establish(30_000).await?;
    answer_heads(&mut peer, head).await?;
    Ok(peer)
}

async fn answer_heads(peer: &mut Peer, current_sequence: u64) -> anyhow::Result<()> {
    let frame = peer.next().await?;
    let Some(Request::SyncHeads(heads)) = frame.payload else { anyhow::bail!("{frame:?} instead of sync_heads") };
    let chats = heads.chats.into_iter().map(|chat| ChatHead { chat_id: chat.chat_id, current_sequence }).collect();
    let answer = Payload::SyncHeadsResponse(SyncHeadsResponse { chats, not_member: Vec::new() });
    peer.send(&frame.request_id, answer).await
}

fn error(code: &str) -> Payload {
    let details = Some(ErrorDetails::default());
    Payload::Error(ErrorFrame { code: code.into(), message: "no".into(), details })
}

fn page(chat_id: &str, messages: Vec<SyncItem>) -> Payload {
    Payload::SyncResponse(SyncResponse { chat_id: chat_id.into(), messages, has_more: false, next_sequence: None })
}

fn item(sequence: u64) -> SyncItem {
    let (message_id, content) = (format!("msg_{sequence}"), format!("text {sequence}"));
    SyncItem { sequence, message_id, content, ..SyncItem::default() }
}

/// The next send: its request, its message and its text.
async fn next_send(peer: &mut Peer) -> anyhow::Result<(String, String, String)> {
    let frame = peer.next().await?;
    let Some(Request::SendMessage(send)) = frame.payload else { anyhow::bail!("{frame:?} instead of a send") };
    Ok((frame.request_id, send.client_message_id, send.content))
}

async fn acknowledge(peer: &mut Peer, request_id: &str, client_message_id: &str, sequence: u64) -> anyhow::Result<()> {
    let ack = SendMessageAck {
        client_message_id: client_message_id.to_owned(),
        message_id: format!("msg_{sequence}"),
        chat_id: CHAT.into(),
        sequence,
        created_at: 1,
    };
    peer.send(request_id, Payload::SendMessageAck(ack)).await
}

async fn stopped(client: &Client) -> anyhow::Result<&'static str> {
    let mut events = client.events();
    let stop = async {
        while client.state() != State::Stopped {
            drop(events.recv().await); // the state says it all
        }
    };
    timeout(WITHIN, stop).await?;
    Ok(client.stopped().expect("a reason"))
}

#[tokio::test]
async fn nothing_is_sent_before_the_connection_is_established() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let client = login(&script).await?;
    let mut peer = script.connection().await?;
    assert!(peer.header("authorization").starts_with("Bearer "));
    assert_eq!(peer.header("x-device-id").len(), 36);
    let early = client.begin_send(CHAT, "early").await?;
    assert!(timeout(SILENCE, peer.next()).await.is_err(), "a frame before connection_established");
    assert_eq!(client.state(), State::Authenticating);
    peer.establish(30_000).await?;
    answer_heads(&mut peer, 0).await?;
    let (request, id, text) = next_send(&mut peer).await?;
    assert_eq!(text, "early");
    acknowledge(&mut peer, &request, &id, 1).await?;
    assert_eq!(early.await??.sequence, 1);
    Ok(())
}

#[tokio::test]
async fn a_refused_send_goes_again_under_its_id_and_is_not_overtaken() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (client, mut peer) = ready(&mut script).await?;
    let (first, second) = (client.begin_send(CHAT, "first").await?, client.begin_send(CHAT, "second").await?);
    let (mut requests, mut ids) = (Vec::new(), Vec::new());
    for code in ["INTERNAL_ERROR", "SERVICE_UNAVAILABLE", "RATE_LIMITED", "SERVER_BUSY", ""] {
        let (request, id, text) = next_send(&mut peer).await?;
        assert_eq!(text, "first", "the second overtook it");
        match code {
            "" => acknowledge(&mut peer, &request, &id, 1).await?,
            code => peer.send(&request, error(code)).await?,
        }
        requests.push(request);
        ids.push(id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one message has one id");
    requests.sort();
    requests.dedup();
    assert_eq!(requests.len(), 5, "each attempt has its own request id");
    let (request, other, text) = next_send(&mut peer).await?;
    assert!(text == "second" && other != ids[0]);
    acknowledge(&mut peer, &request, &other, 2).await?;
    assert_eq!((first.await??.sequence, second.await??.sequence), (1, 2));
    Ok(())
}

#[tokio::test]
async fn a_send_that_failed_four_times_inside_or_is_refused_for_good_is_given_up() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (client, mut peer) = ready(&mut script).await?;
    let broken = client.begin_send(CHAT, "broken").await?;
    for _ in 0..4 {
        let (request, ..) = next_send(&mut peer).await?;
        peer.send(&request, error("INTERNAL_ERROR")).await?;
    }
    assert_eq!(broken.await?.expect_err("given up").code, "INTERNAL_ERROR");
    for code in ["INVALID_MESSAGE", "FORBIDDEN", "MESSAGE_TOO_LARGE", "NOT_A_MEMBER"] {
        let refused = client.begin_send(CHAT, code).await?;
        let (request, ..) = next_send(&mut peer).await?;
        peer.send(&request, error(code)).await?;
        assert_eq!(refused.await?.expect_err("refused").code, code);
    }
    assert_eq!(client.unsent()?, 0, "nothing goes again");
    assert_eq!(client.known_chats()?, Vec::<String>::new(), "a chat one is not in is forgotten");
    Ok(())
}

#[tokio::test]
async fn a_send_without_an_answer_goes_again_on_the_next_connection() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (client, mut peer) = ready(&mut script).await?;
    let answers = [client.begin_send(CHAT, "one").await?, client.begin_send(CHAT, "two").await?];
    let (_, lost, _) = next_send(&mut peer).await?;
    drop(peer);
    let mut peer = caught_up(&mut script, 0).await?;
    for (sequence, expected) in [(1, "one"), (2, "two")] {
        let (request, id, text) = next_send(&mut peer).await?;
        assert_eq!((text.as_str(), id == lost), (expected, expected == "one"));
        acknowledge(&mut peer, &request, &id, sequence).await?;
    }
    for answer in answers {
        answer.await??;
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_ack_is_made_up_for_by_the_message_itself() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (client, mut peer) = ready(&mut script).await?;
    let answer = client.begin_send(CHAT, "hi").await?;
    let (_, id, _) = next_send(&mut peer).await?;
    drop(peer);
    let mut peer = caught_up(&mut script, 1).await?;
    let frame = peer.next().await?;
    assert!(matches!(&frame.payload, Some(Request::SyncRequest(sync)) if sync.last_acked_sequence == 0), "{frame:?}");
    let own = SyncItem { sender_id: USER.into(), client_message_id: Some(id), ..item(1) };
    peer.send(&frame.request_id, page(CHAT, vec![own])).await?;
    assert_eq!(answer.await??.sequence, 1);
    assert_eq!(client.unsent()?, 0);
    Ok(())
}

#[tokio::test]
async fn an_expired_token_is_refreshed_and_the_send_goes_again() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (client, mut peer) = ready(&mut script).await?;
    let before = peer.header("authorization").to_owned();
    let answer = client.begin_send(CHAT, "hi").await?;
    let (request, id, _) = next_send(&mut peer).await?;
    peer.send(&request, error("UNAUTHORIZED")).await?;
    let mut peer = caught_up(&mut script, 0).await?;
    assert_ne!(peer.header("authorization"), before, "the same token again");
    let (request, again, _) = next_send(&mut peer).await?;
    assert_eq!(again, id);
    acknowledge(&mut peer, &request, &id, 1).await?;
    answer.await??;
    Ok(())
}

#[tokio::test]
async fn a_refused_handshake_is_answered_as_its_status_asks() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    script.refuse([Refusal(401, None), Refusal(429, Some(1))]);
    let begun = Instant::now();
    let (client, peer) = ready(&mut script).await?;
    assert_eq!(script.refreshes(), 1, "401 is met with new tokens");
    assert!(begun.elapsed() >= Duration::from_millis(740), "429 is waited out");
    script.refuse([Refusal(403, None)]);
    drop(peer);
    assert_eq!(stopped(&client).await?, "the server refuses this client");
    Ok(())
}

#[tokio::test]
async fn on_closing_acks_are_flushed_and_the_client_comes_back_only_if_it_may() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (client, mut peer) = ready(&mut script).await?;
    peer.push(CHAT, 1).await?;
    client.wait_for(CHAT, 1, WITHIN).await?;
    let closing = |reason: &str, reconnect_allowed| {
        let (reason, message) = (reason.to_owned(), String::new());
        Payload::ConnectionClosing(ConnectionClosing { reason, message, reconnect_delay_ms: 10, reconnect_allowed })
    };
    peer.send("", closing("server_shutdown", true)).await?;
    let frame = peer.next().await?;
    assert!(matches!(&frame.payload, Some(Request::Ack(ack)) if ack.last_acked_sequence == 1), "{frame:?}");
    assert!(peer.next().await.is_err(), "after the acks it closes");
    let mut peer = caught_up(&mut script, 1).await?;
    client.ready(WITHIN).await?;
    peer.send("", closing("duplicate_connection", false)).await?;
    assert_eq!(stopped(&client).await?, "this device is connected elsewhere");
    Ok(())
}

#[tokio::test]
async fn a_hole_is_synced_and_the_application_sees_each_once_and_in_order() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (client, mut peer) = ready(&mut script).await?;
    let begun = Instant::now();
    for sequence in [1, 3, 4, 3, 1] {
        peer.push(CHAT, sequence).await?;
    }
    let frame = peer.next().await?;
    assert!(matches!(&frame.payload, Some(Request::SyncRequest(sync)) if sync.last_acked_sequence == 1), "{frame:?}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "a hole may close by itself");
    assert_eq!(client.view(CHAT)?.len(), 1, "what is above a hole waits");
    peer.send(&frame.request_id, page(CHAT, [2, 3, 4].map(item).into())).await?;
    let view = client.wait_for(CHAT, 4, WITHIN).await?;
    assert_eq!(view.iter().map(|kept| kept.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(client.wire().duplicates(), 4);
    Ok(())
}

#[tokio::test]
async fn acks_are_cumulative_and_come_in_batches() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (_client, mut peer) = ready(&mut script).await?;
    for sequence in 1..=10 {
        peer.push(CHAT, sequence).await?;
    }
    let frame = peer.next().await?;
    assert!(matches!(&frame.payload, Some(Request::Ack(ack)) if ack.last_acked_sequence == 10), "{frame:?}");
    assert!(timeout(SILENCE, peer.next()).await.is_err(), "one ack for all");
    Ok(())
}

#[tokio::test]
async fn syncs_go_out_five_at_once_and_five_a_second() -> anyhow::Result<()> {
    let chats: Vec<String> = (0..12).map(|number| format!("chat_{number:02}")).collect();
    let names: Vec<&str> = chats.iter().map(String::as_str).collect();
    let mut script = Script::start(&names).await?;
    let client = login(&script).await?;
    let mut peer = script.connection().await?;
    peer.establish(30_000).await?;
    // Nothing is asked before the heads are known, so the first second begins here at the earliest.
    let begun = Instant::now();
    answer_heads(&mut peer, 1).await?;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(peer.next().await?);
    }
    assert!(timeout(Duration::from_millis(1200), peer.next()).await.is_err(), "a sixth without an answer");
    assert_ne!(client.state(), State::Ready, "it has not caught up");
    for asked in 5..=12 {
        let frame = waiting.remove(0);
        let Some(Request::SyncRequest(sync)) = frame.payload else { anyhow::bail!("{frame:?}") };
        let only = SyncItem { message_id: format!("msg of {}", sync.chat_id), ..item(1) };
        peer.send(&frame.request_id, page(&sync.chat_id, vec![only])).await?;
        if asked < 12 {
            waiting.push(peer.next().await?);
        }
    }
    for frame in waiting {
        let Some(Request::SyncRequest(sync)) = frame.payload else { anyhow::bail!("{frame:?}") };
        let only = SyncItem { message_id: format!("msg of {}", sync.chat_id), ..item(1) };
        peer.send(&frame.request_id, page(&sync.chat_id, vec![only])).await?;
    }
    client.ready(WITHIN).await?;
    assert!(begun.elapsed() >= Duration::from_secs(2), "twelve take two seconds");
    Ok(())
}

#[tokio::test]
async fn heartbeats_name_open_chats_and_a_resync_asks_for_all_heads() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let client = login(&script).await?;
    let mut peer = script.connection().await?;
    let begun = Instant::now();
    peer.establish(300).await?;
    answer_heads(&mut peer, 0).await?;
    client.ready(WITHIN).await?;
    let frame = peer.next().await?;
    assert!(begun.elapsed() >= Duration::from_millis(270), "not before its time");
    let Some(Request::Heartbeat(heartbeat)) = frame.payload else { anyhow::bail!("{frame:?}") };
    assert_eq!(heartbeat.open_chats[0].chat_id, CHAT);
    let heads = vec![ChatHead { chat_id: CHAT.into(), current_sequence: 7 }];
    let ack = HeartbeatAck { server_time: 1, resync: true, heads };
    peer.send(&frame.request_id, Payload::HeartbeatAck(ack)).await?;
    let (mut synced, mut asked) = (false, false);
    while !(synced && asked) {
        match peer.next().await?.payload {
            Some(Request::SyncRequest(_)) => synced = true,
            Some(Request::SyncHeads(_)) => asked = true,
            Some(Request::Heartbeat(_)) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_consumer_reconnects_and_what_is_unknown_is_passed_over() -> anyhow::Result<()> {
    let mut script = Script::start(&[CHAT]).await?;
    let (client, mut peer) = ready(&mut script).await?;
    peer.send_text(r#"{"type":"aurora","timestamp":"2026-03-14T09:27:01.309Z","payload":{}}"#).await?;
    peer.push(CHAT, 1).await?;
    client.wait_for(CHAT, 1, WITHIN).await?;
    assert_eq!(client.wire().unknown.load(Ordering::Relaxed), 1);
    peer.send("", error("SLOW_CONSUMER")).await?;
    let _peer = caught_up(&mut script, 1).await?;
    client.ready(WITHIN).await?;
    assert_eq!(client.wire().connections(), 2);
    Ok(())
}
