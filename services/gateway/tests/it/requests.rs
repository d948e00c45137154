//! What clients ask, and the one answer to each.

use std::sync::atomic::Ordering;

use futures_util::SinkExt as _;
use gateway::config::Limits;
use proto::{
    frames,
    messaging::v1::{
        Ack, ChatCursor, Heartbeat, SendMessage, SyncHeads, SyncRequest, client_frame::Payload as Ask,
        server_frame::Payload,
    },
};
use tokio_tungstenite::tungstenite::Message;

use crate::world::{Client, PATIENCE, World, chat, eventually, in_both, roomy, user};

#[tokio::test]
async fn a_send_is_stored_and_acknowledged() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (user, chat) = (user(), chat());
        let mut client = world.connect(user).await;
        client.send("r-1", chat, "cafe\u{301}").await;
        let frame = client.next().await;
        assert_eq!(frame.request_id, "r-1");
        let Some(Payload::SendMessageAck(ack)) = frame.payload else { panic!("{frame:?}") };
        assert_eq!((ack.sequence, ack.created_at, ack.chat_id), (1, 7, chat.to_string()));
        let stored = world.ingest.stored.lock().expect("whole")[&chat].last().expect("stored").clone();
        assert_eq!((stored.sender_id, stored.origin_connection), (user.to_string(), client.id.clone()));
        assert_eq!(stored.client_message_id, ack.client_message_id);
        assert_eq!(stored.content, "café", "in the form in which it is stored");
    })
    .await;
}

#[tokio::test]
async fn the_same_id_sent_again_has_the_same_place() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (mut client, chat) = (world.connect(user()).await, chat());
        // The same id in another spelling; each answer repeats its own.
        let id = "EAEFC4D2-d3bf-4d01-abae-4b5b844a7034";
        for (request, id) in [("a", id.to_owned()), ("b", id.to_lowercase())] {
            let send = SendMessage {
                client_message_id: id.clone(),
                chat_id: chat.to_string(),
                content: "hi".into(),
                content_type: "text/plain".into(),
            };
            client.ask(request, Ask::SendMessage(send)).await;
            let Some(Payload::SendMessageAck(ack)) = client.next().await.payload else { panic!("no ack") };
            assert_eq!((ack.sequence, ack.client_message_id), (1, id));
        }
    })
    .await;
}

#[tokio::test]
async fn refusals_carry_code_details_and_request_id() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let mut client = world.connect(user()).await;
        let chat = chat();
        for (content, code) in [
            ("!NotAMember", "NOT_A_MEMBER"),
            ("!Forbidden", "FORBIDDEN"),
            ("!Unavailable", "SERVICE_UNAVAILABLE"),
            ("!Internal", "INTERNAL_ERROR"),
        ] {
            client.send("r", chat, content).await;
            let error = client.error("r").await;
            assert_eq!(error.code, code);
            assert_eq!(error.details.expect("details").chat_id, Some(chat.to_string()), "{code}");
        }
        // One-way frames are never answered, so a wrong one is told to nobody in particular.
        client
            .ask("x", Ask::Ack(Ack { chat_id: chat.to_string(), last_acked_sequence: 0, last_read_sequence: None }))
            .await;
        assert_eq!(client.error("").await.code, "INVALID_MESSAGE");
        client.nonsense().await;
        assert_eq!(client.error("").await.code, "INVALID_MESSAGE");
        client.wave().await;
        beat(&mut client, "after").await;
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_its_field() {
    in_both(async |protocol| {
        let world = World::with(Limits { frame_invalid: 1000, ..roomy() }).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        let send = |change: fn(&mut SendMessage)| {
            let client_message_id = "eaefc4d2-d3bf-4d01-abae-4b5b844a7034".into();
            let content_type = String::new();
            let mut send =
                SendMessage { client_message_id, chat_id: chat().to_string(), content: "hi".into(), content_type };
            change(&mut send);
            Ask::SendMessage(send)
        };
        let sync = |chat_id: &str, after, limit| {
            let (chat_id, last_acked_sequence) = (chat_id.to_owned(), after);
            Ask::SyncRequest(SyncRequest { chat_id, last_acked_sequence, limit })
        };
        let cursor = |chat_id: &str| ChatCursor { chat_id: chat_id.into(), last_sequence: 0 };
        let open = |count| Ask::Heartbeat(Heartbeat { open_chats: vec![cursor(&chat().to_string()); count] });
        let of = chat().to_string();
        for (ask, code, field, limit) in [
            (send(|it| it.content.clear()), "INVALID_MESSAGE", "content", None),
            (send(|it| it.content = "\u{7}".into()), "INVALID_MESSAGE", "content", None),
            (send(|it| it.content = "a\0b".into()), "INVALID_CONTENT", "content", None),
            (send(|it| it.content = "x".repeat(4097)), "MESSAGE_TOO_LARGE", "content", Some(4096)),
            (send(|it| it.content = "\u{fb1d}".repeat(1365)), "MESSAGE_TOO_LARGE", "content", Some(4096)),
            (send(|it| it.content_type = "text/html".into()), "INVALID_CONTENT_TYPE", "content_type", None),
            (send(|it| it.client_message_id.clear()), "INVALID_MESSAGE", "client_message_id", None),
            (send(|it| it.chat_id.clear()), "INVALID_MESSAGE", "chat_id", None),
            (sync("", 0, None), "INVALID_MESSAGE", "chat_id", None),
            (sync(&of, 1 << 53, None), "INVALID_MESSAGE", "last_acked_sequence", None),
            (sync(&of, 0, Some(0)), "INVALID_MESSAGE", "limit", None),
            (Ask::SyncHeads(SyncHeads { chats: vec![cursor("x")] }), "INVALID_MESSAGE", "chat_id", None),
            (Ask::SyncHeads(SyncHeads { chats: vec![cursor(&of); 51] }), "INVALID_MESSAGE", "chats", Some(50)),
            (open(21), "INVALID_MESSAGE", "open_chats", Some(20)),
        ] {
            client.ask("r", ask.clone()).await;
            let error = client.error("r").await;
            let details = error.details.unwrap_or_default();
            assert_eq!((&*error.code, details.field.as_deref(), details.limit), (code, Some(field), limit), "{ask:?}");
        }
        client.ask("no spaces please", send(|_| {})).await;
        assert_eq!(client.error("").await.details.expect("details").field.as_deref(), Some("request_id"));
        let ack = |last_acked_sequence, last_read_sequence| {
            Ask::Ack(Ack { chat_id: chat().to_string(), last_acked_sequence, last_read_sequence })
        };
        for (ask, field) in [(ack(0, None), "last_acked_sequence"), (ack(1, Some(2)), "last_read_sequence")] {
            client.ask("x", ask).await;
            assert_eq!(client.error("").await.details.expect("details").field.as_deref(), Some(field));
        }
    })
    .await;
}

#[tokio::test]
async fn a_field_that_is_missing_or_cannot_be_read_is_told_too() {
    let world = World::with(Limits { frame_invalid: 1000, ..roomy() }).await;
    let mut json = world.connect(user()).await;
    let id = "eaefc4d2-d3bf-4d01-abae-4b5b844a7034";
    for (kind, payload, field) in [
        ("send_message", format!(r#"{{"client_message_id":"{id}","chat_id":"{}"}}"#, chat()), "content"),
        ("send_message", format!(r#"{{"client_message_id":"{id}","content":"hi"}}"#), "chat_id"),
        ("send_message", format!(r#"{{"chat_id":"{}","content":"hi"}}"#, chat()), "client_message_id"),
        ("send_message", format!(r#"{{"client_message_id":"{id}","chat_id":"{}","content":7}}"#, chat()), "content"),
        ("sync_request", format!(r#"{{"chat_id":"{}"}}"#, chat()), "last_acked_sequence"),
        ("sync_request", format!(r#"{{"chat_id":"{}","last_acked_sequence":-1}}"#, chat()), "last_acked_sequence"),
        ("sync_heads", r#"{"chats":[{"last_sequence":1}]}"#.to_owned(), "chat_id"),
        ("heartbeat", format!(r#"{{"open_chats":[{{"chat_id":"{}"}}]}}"#, chat()), "last_sequence"),
        ("heartbeat", "[]".to_owned(), "payload"),
    ] {
        json.text(&format!(r#"{{"type":"{kind}","request_id":"r","payload":{payload}}}"#)).await;
        let error = json.error("r").await;
        let told = error.details.as_ref().and_then(|details| details.field.as_deref());
        assert_eq!((&*error.code, told), ("INVALID_MESSAGE", Some(field)), "{kind} {payload}: {}", error.message);
    }
    let mut binary = world.connect_as(user(), &crate::world::device(), Some(frames::PROTOBUF)).await;
    for (bytes, code, field) in [
        (&b"\x0a\x01r\x52\x04\x1a\x02\xff\xfe"[..], "INVALID_ENCODING", "content"),
        (b"\x0a\x01r\x52\x02\x08\x07", "INVALID_MESSAGE", "client_message_id"),
        (b"\x0a\x01r", "INVALID_MESSAGE", "payload"),
    ] {
        binary.socket.send(Message::Binary(bytes.to_vec().into())).await.expect("sent");
        let error = binary.error("r").await;
        let told = error.details.as_ref().and_then(|details| details.field.as_deref());
        assert_eq!((&*error.code, told), (code, Some(field)), "{}", error.message);
    }
}

/// A heartbeat whose answer is the next frame.
async fn beat(client: &mut Client, request_id: &str) -> proto::messaging::v1::HeartbeatAck {
    client.ask(request_id, Ask::Heartbeat(Heartbeat::default())).await;
    let frame = client.next().await;
    assert_eq!(frame.request_id, request_id, "{frame:?}");
    match frame.payload {
        Some(Payload::HeartbeatAck(ack)) => ack,
        other => panic!("not a heartbeat_ack: {other:?}"),
    }
}

#[tokio::test]
async fn a_burst_to_one_chat_is_stored_in_its_order() {
    in_both(async |protocol| {
        let world = World::with(Limits { send_rate: 1000, send_burst: 1000, ..roomy() }).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        let chats = [chat(), chat(), chat()];
        for number in 0..90 {
            client.send(&format!("r{number}"), chats[number % 3], &format!("m{number}")).await;
        }
        for _ in 0..90 {
            let frame = client.next().await;
            assert!(matches!(frame.payload, Some(Payload::SendMessageAck(_))), "{frame:?}");
        }
        for (at, chat) in chats.iter().enumerate() {
            let expected: Vec<_> = (0..30).map(|number| format!("m{}", number * 3 + at)).collect();
            assert_eq!(world.ingest.texts(*chat), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn what_waited_goes_together_and_each_has_its_own_answer() {
    in_both(async |protocol| {
        let world = World::with(Limits { send_rate: 1000, send_burst: 1000, sends_together: 4, ..roomy() })
            .await
            .speaking(protocol);
        let mut client = world.connect(user()).await;
        let chat = chat();
        world.ingest.is_gated.store(true, Ordering::SeqCst);
        client.send("r0", chat, "m0").await;
        eventually("under way", || world.ingest.under_way.load(Ordering::SeqCst) == 1).await;
        for number in 1..=6 {
            let content = if number == 3 { "!NotAMember".to_owned() } else { format!("m{number}") };
            client.send(&format!("r{number}"), chat, &content).await;
        }
        // The answer to the last heartbeat says that all before it was read.
        beat(&mut client, "read").await;
        world.ingest.is_gated.store(false, Ordering::SeqCst);
        world.ingest.gate.0.add_permits(1);
        for number in 0..=6 {
            let request = format!("r{number}");
            if number == 3 {
                assert_eq!(client.error(&request).await.code, "NOT_A_MEMBER");
                continue;
            }
            let frame = client.next().await;
            assert_eq!(frame.request_id, request, "{frame:?}");
            let Some(Payload::SendMessageAck(ack)) = frame.payload else { panic!("{frame:?}") };
            assert_eq!(ack.sequence, if number < 3 { number + 1 } else { number });
        }
        assert_eq!(world.ingest.texts(chat), ["m0", "m1", "m2", "m4", "m5", "m6"]);
        assert_eq!(*world.ingest.calls_of_many.lock().expect("whole"), [4, 2], "one alone, four, and the two left");
    })
    .await;
}

#[tokio::test]
async fn what_comes_at_once_goes_together() {
    in_both(async |protocol| {
        let world = World::with(roomy()).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        let chat = chat();
        client.send_at_once(chat, &["a", "b", "c", "d", "e"]).await;
        for place in 0..5 {
            let frame = client.next().await;
            assert_eq!(frame.request_id, place.to_string(), "{frame:?}");
            assert!(matches!(frame.payload, Some(Payload::SendMessageAck(_))), "{frame:?}");
        }
        assert_eq!(world.ingest.texts(chat), ["a", "b", "c", "d", "e"]);
        assert_eq!(*world.ingest.calls_of_many.lock().expect("whole"), [5]);
    })
    .await;
}

#[tokio::test]
async fn what_answers_bring_is_gathered_until_as_many_are_there_again() {
    in_both(async |protocol| {
        let limits = Limits { sends_gather: PATIENCE * 2, send_rate: 1000, send_burst: 1000, ..roomy() };
        let world = World::with(limits).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        let chat = chat();
        let answered = async |client: &mut Client, count| {
            for _ in 0..count {
                let frame = client.next().await;
                assert!(matches!(frame.payload, Some(Payload::SendMessageAck(_))), "{frame:?}");
            }
        };
        client.send_at_once(chat, &["a", "b", "c"]).await;
        answered(&mut client, 3).await;
        // One by one, each read before the next is sent: nothing is answered before the third is there.
        for (place, content) in ["d", "e", "f"].into_iter().enumerate() {
            client.send(&place.to_string(), chat, content).await;
            if content != "f" {
                beat(&mut client, content).await;
            }
        }
        answered(&mut client, 3).await;
        assert_eq!(world.ingest.texts(chat), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(*world.ingest.calls_of_many.lock().expect("whole"), [3, 3]);
    })
    .await;
}

#[tokio::test]
async fn a_chat_that_is_slow_holds_up_no_other() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let mut client = world.connect(user()).await;
        let (slow, quick) = (chat(), chat());
        world.ingest.is_gated.store(true, Ordering::SeqCst);
        client.send("slow", slow, "1").await;
        eventually("under way", || world.ingest.under_way.load(Ordering::SeqCst) == 1).await;
        world.ingest.is_gated.store(false, Ordering::SeqCst);
        client.send("behind", slow, "2").await;
        client.send("quick", quick, "1").await;
        assert_eq!(client.next().await.request_id, "quick");
        world.ingest.gate.0.add_permits(1);
        assert_eq!(client.next().await.request_id, "slow");
        assert_eq!(client.next().await.request_id, "behind");
    })
    .await;
}

#[tokio::test]
async fn too_fast_and_too_many_are_refused_and_not_stored() {
    in_both(async |protocol| {
        let world = World::with(Limits { send_burst: 2, send_rate: 1, ..roomy() }).await.speaking(protocol);
        let (mut client, chat_) = (world.connect(user()).await, chat());
        for number in 0..3 {
            client.send(&number.to_string(), chat_, "hi").await;
        }
        let mut refused = Vec::new();
        for _ in 0..3 {
            let frame = client.next().await;
            if let Some(Payload::Error(error)) = frame.payload {
                refused.push((
                    frame.request_id,
                    error.code,
                    error.details.and_then(|details| details.retry_after_seconds),
                ));
            }
        }
        assert_eq!(refused, [("2".to_owned(), "RATE_LIMITED".to_owned(), Some(1))]);
        assert_eq!(world.ingest.texts(chat_).len(), 2);

        let world = World::with(Limits { inbound_requests: 2, ..roomy() }).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        world.ingest.is_gated.store(true, Ordering::SeqCst);
        for number in 0..3 {
            client.send(&number.to_string(), chat_, "hi").await;
        }
        assert_eq!(client.error("2").await.code, "SERVER_BUSY");
        world.ingest.gate.0.add_permits(2);
        assert_eq!(client.next().await.request_id, "0");
        assert_eq!(client.next().await.request_id, "1");
    })
    .await;
}

#[tokio::test]
async fn pages_come_one_at_a_time_and_show_only_own_client_ids() {
    in_both(async |protocol| {
        let world = World::with(Limits { send_burst: 100, ..roomy() }).await.speaking(protocol);
        let (one, other, chat) = (user(), user(), chat());
        let (mut sender, mut reader) = (world.connect(one).await, world.connect(other).await);
        for number in 0..5 {
            sender.send(&number.to_string(), chat, "hi").await;
            sender.next().await;
        }
        reader.send("own", chat, "me too").await;
        reader.next().await;
        for number in 0..8 {
            let sync = SyncRequest { chat_id: chat.to_string(), last_acked_sequence: 3, limit: Some(2) };
            reader.ask(&number.to_string(), Ask::SyncRequest(sync)).await;
        }
        for number in 0..8 {
            let frame = reader.next().await;
            assert_eq!(frame.request_id, number.to_string());
            let Some(Payload::SyncResponse(page)) = frame.payload else { panic!("not a page") };
            assert_eq!(page.messages.iter().map(|item| item.sequence).collect::<Vec<_>>(), [4, 5]);
            assert_eq!((page.has_more, page.next_sequence), (true, Some(6)));
            assert!(page.messages.iter().all(|item| item.client_message_id.is_none()));
        }
        assert_eq!(world.ingest.most_syncs.load(Ordering::SeqCst), 1);
        let sync = SyncRequest { chat_id: chat.to_string(), last_acked_sequence: 5, limit: None };
        reader.ask("last", Ask::SyncRequest(sync)).await;
        let Some(Payload::SyncResponse(page)) = reader.next().await.payload else { panic!("not a page") };
        assert_eq!((page.messages.len(), page.has_more, page.next_sequence), (1, false, None));
        assert!(page.messages[0].client_message_id.is_some(), "its own");
        let unknown = SyncRequest { chat_id: crate::world::chat().to_string(), last_acked_sequence: 0, limit: None };
        reader.ask("no", Ask::SyncRequest(unknown)).await;
        assert_eq!(reader.error("no").await.code, "NOT_A_MEMBER");
    })
    .await;
}

#[tokio::test]
async fn heads_and_acks_reach_ingest() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (user, chat, unknown) = (user(), chat(), chat());
        let mut client = world.connect(user).await;
        client.send("r", chat, "hi").await;
        client.next().await;
        let cursor =
            |chat: &domain::ids::ChatId, last_sequence| ChatCursor { chat_id: chat.to_string(), last_sequence };
        client.ask("h", Ask::SyncHeads(SyncHeads { chats: vec![cursor(&chat, 0), cursor(&unknown, 0)] })).await;
        let Some(Payload::SyncHeadsResponse(heads)) = client.next().await.payload else { panic!("no heads") };
        assert_eq!((heads.chats[0].current_sequence, heads.not_member), (1, vec![unknown.to_string()]));

        for (last, expected) in [(0, 1), (1, 0)] {
            client.ask("b", Ask::Heartbeat(Heartbeat { open_chats: vec![cursor(&chat, last)] })).await;
            let Some(Payload::HeartbeatAck(ack)) = client.next().await.payload else { panic!("no heartbeat_ack") };
            assert_eq!(ack.heads.len(), expected, "only chats that are behind");
        }
        let ack = Ack { chat_id: chat.to_string(), last_acked_sequence: 1, last_read_sequence: Some(1) };
        client.ask("", Ask::Ack(ack)).await;
        eventually("acknowledged", || world.ingest.acks.lock().expect("whole").len() == 1).await;
        assert_eq!(world.ingest.acks.lock().expect("whole")[0].user_id, user.to_string());
        client.ask("many", Ask::SyncHeads(SyncHeads { chats: vec![cursor(&chat, 0); 51] })).await;
        assert_eq!(client.error("many").await.code, "INVALID_MESSAGE");
    })
    .await;
}

#[tokio::test]
async fn what_a_client_acknowledges_before_it_goes_reaches_ingest() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (chat, other) = (chat(), chat());
        let mut client = world.connect(user()).await;
        let ack = |chat: domain::ids::ChatId, last_acked_sequence, last_read_sequence| {
            Ask::Ack(Ack { chat_id: chat.to_string(), last_acked_sequence, last_read_sequence })
        };
        // All in one piece, with the close behind it; a later one may be lower in one of its marks.
        for (chat, delivered, read) in [(chat, 1, None), (chat, 9, None), (other, 4, Some(4)), (chat, 5, Some(5))] {
            client.feed("", ack(chat, delivered, read)).await;
        }
        client.socket.feed(Message::Close(None)).await.expect("sent");
        client.socket.flush().await.expect("sent");
        let highest = |chat: domain::ids::ChatId| {
            let acks = world.ingest.acks.lock().expect("whole").clone();
            let of: Vec<_> = acks.iter().filter(|ack| ack.chat_id == chat.to_string()).collect();
            let read = of.iter().filter_map(|ack| ack.last_read_sequence).max();
            of.iter().map(|ack| ack.last_acked_sequence).max().map(|delivered| (delivered, read))
        };
        eventually("both are there", || highest(chat) == Some((9, Some(5))) && highest(other) == Some((4, Some(4))))
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_was_lost_comes_back_and_the_client_is_told_to_sync() {
    in_both(async |protocol| {
        let announce = std::time::Duration::from_millis(20);
        let world = World::with(Limits { registry_announce: announce, ..roomy() }).await.speaking(protocol);
        let user = user();
        let mut client = world.connect(user).await;
        assert!(!beat(&mut client, "1").await.resync);
        world.registry.wipe();
        eventually("registered again", || world.registry.of(user) == 1).await;
        assert!(beat(&mut client, "2").await.resync);
        assert!(!beat(&mut client, "3").await.resync, "once");
        assert!(!beat(&mut client, "4").await.resync);
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_finds_a_lapsed_registration_and_repairs_it() {
    in_both(async |protocol| {
        let interval = std::time::Duration::from_millis(300);
        let rare = std::time::Duration::from_mins(1);
        let world = World::with(Limits { heartbeat_interval: interval, registry_announce: rare, ..roomy() })
            .await
            .speaking(protocol);
        let user = user();
        let mut client = world.connect(user).await;
        world.registry.connections.lock().expect("whole").clear();
        let deadline = tokio::time::Instant::now() + crate::world::PATIENCE;
        while !beat(&mut client, "b").await.resync {
            assert!(tokio::time::Instant::now() < deadline, "never told to sync");
            tokio::time::sleep(interval / 2).await; // as often as a client may
        }
        assert_eq!(world.registry.of(user), 1);
    })
    .await;
}

#[tokio::test]
async fn a_send_to_a_dead_ingest_goes_to_the_next_one_with_the_same_id() {
    in_both(async |protocol| {
        let world = World::with_two_ingests(Limits { send_burst: 100, ..roomy() }).await.speaking(protocol);
        let mut client = world.connect(user()).await;
        let chats: Vec<_> = (0..20).map(|_| chat()).collect();
        // About half of the chats belong to the pod that is not there.
        for (number, chat) in chats.iter().enumerate() {
            client.send(&number.to_string(), *chat, "hi").await;
            assert!(matches!(client.next().await.payload, Some(Payload::SendMessageAck(_))));
            assert_eq!(world.ingest.texts(*chat), ["hi"]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_ingest_means_that_nobody_knows() {
    in_both(async |protocol| {
        let limits = Limits { ingest_timeout: std::time::Duration::from_millis(500), ..roomy() };
        let world = World::with(limits).await.speaking(protocol);
        let (mut client, chat) = (world.connect(user()).await, chat());
        client.send("1", chat, "hi").await;
        client.next().await;
        world.ingest_process.shut_down().await;
        client.send("2", chat, "hi").await;
        assert_eq!(client.error("2").await.code, "SERVICE_UNAVAILABLE");
    })
    .await;
}
