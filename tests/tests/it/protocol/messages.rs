//! WS-M: what goes on between people who are connected.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;
use proto::messaging::v1::{
    ChatCursor, Heartbeat, SyncHeads, SyncRequest, client_frame::Payload as Ask, server_frame::Payload,
};
use tests::client::{Client, Rest};
use tokio::time::{Instant, sleep};

use super::{
    place::{Place, rules},
    speaker::{BOTH, Speaker, WITHIN, new_id, text, token_of},
};

rules! {
    ws_m_01_messages_of_one_chat_get_rising_places;
    ws_m_02_the_same_id_again_gets_the_same_place_and_message;
    ws_m_03_an_ack_repeats_the_ids_of_what_it_acknowledges;
    ws_m_04_each_of_many_requests_gets_its_own_answer;
    ws_m_05_a_page_is_in_order;
    ws_m_06_pages_together_are_complete with ["--sync-burst=1000"];
    ws_m_07_nothing_answers_an_ack;
    ws_m_08_what_others_send_answers_nothing;
    ws_m_09_who_is_no_member_writes_nothing;
}

/// Two people and their chat.
async fn two(place: &Place) -> anyhow::Result<(Client, Client, String)> {
    let (ana, ben) = (place.client("+12025550100").await?, place.client("+12025550101").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    Ok((ana, ben, chat))
}

/// The place of the last message, as a member sees it.
async fn head(speaker: &mut Speaker, chat: &str) -> anyhow::Result<u64> {
    let chats = vec![ChatCursor { chat_id: chat.to_owned(), last_sequence: 0 }];
    speaker.ask("head", Ask::SyncHeads(SyncHeads { chats })).await?;
    match speaker.answer("head").await? {
        Payload::SyncHeadsResponse(heads) if heads.chats.len() == 1 => Ok(heads.chats[0].current_sequence),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn ws_m_01_messages_of_one_chat_get_rising_places(place: Place) -> anyhow::Result<()> {
    let (ana, _ben, chat) = two(&place).await?;
    let mut last = 0;
    for protocol in BOTH {
        let mut speaker = Speaker::connect(&place, &ana, protocol).await?;
        for number in 0..20 {
            let ack = speaker.say(&chat, &format!("number {number}")).await?;
            assert_eq!(ack.sequence, last + 1, "{protocol}");
            last = ack.sequence;
        }
    }
    Ok(())
}

async fn ws_m_02_the_same_id_again_gets_the_same_place_and_message(place: Place) -> anyhow::Result<()> {
    let (ana, _ben, chat) = two(&place).await?;
    let send = text(&chat, "once");
    let mut acks = Vec::new();
    for protocol in BOTH {
        // Also over another connection, and in the other encoding.
        let mut speaker = Speaker::connect(&place, &ana, protocol).await?;
        for request in ["one", "two"] {
            speaker.ask(request, Ask::SendMessage(send.clone())).await?;
            let Payload::SendMessageAck(ack) = speaker.answer(request).await? else { anyhow::bail!("no ack") };
            acks.push(ack);
        }
    }
    assert!(acks.iter().all(|ack| *ack == acks[0]), "{acks:?}");
    assert_eq!(ana.rest().history(&chat).await?.len(), 1);
    Ok(())
}

async fn ws_m_03_an_ack_repeats_the_ids_of_what_it_acknowledges(place: Place) -> anyhow::Result<()> {
    let (ana, _ben, chat) = two(&place).await?;
    for protocol in BOTH {
        let mut speaker = Speaker::connect(&place, &ana, protocol).await?;
        let send = text(&chat, "hi");
        speaker.ask("r", Ask::SendMessage(send.clone())).await?;
        let Payload::SendMessageAck(ack) = speaker.answer("r").await? else { anyhow::bail!("no ack") };
        assert_eq!((ack.client_message_id, ack.chat_id), (send.client_message_id, chat.clone()), "{protocol}");
        assert!(ack.message_id.starts_with("msg_") && ack.created_at > 0, "{}", ack.message_id);
    }
    Ok(())
}

async fn ws_m_04_each_of_many_requests_gets_its_own_answer(place: Place) -> anyhow::Result<()> {
    let (ana, _ben, chat) = two(&place).await?;
    for protocol in BOTH {
        let mut speaker = Speaker::connect(&place, &ana, protocol).await?;
        let cursor = ChatCursor { chat_id: chat.clone(), last_sequence: 0 };
        let mut open = HashMap::new();
        for _ in 0..5 {
            let asks = [
                ("send", Ask::SendMessage(text(&chat, "hi"))),
                ("page", Ask::SyncRequest(SyncRequest { chat_id: chat.clone(), ..SyncRequest::default() })),
                ("heads", Ask::SyncHeads(SyncHeads { chats: vec![cursor.clone()] })),
                ("beat", Ask::Heartbeat(Heartbeat { open_chats: vec![cursor.clone()] })),
                ("fault", Ask::SendMessage(text(&chat, ""))),
            ];
            for (kind, ask) in asks {
                let request = new_id();
                speaker.ask(&request, ask).await?;
                open.insert(request, kind);
            }
        }
        while !open.is_empty() {
            let frame = speaker.frame().await?;
            let kind = open.remove(&frame.request_id);
            let fits = match &frame.payload {
                Some(Payload::SendMessageAck(_)) => kind == Some("send"),
                Some(Payload::SyncResponse(_)) => kind == Some("page"),
                Some(Payload::SyncHeadsResponse(_)) => kind == Some("heads"),
                Some(Payload::HeartbeatAck(_)) => kind == Some("beat"),
                Some(Payload::Error(_)) => kind == Some("fault"),
                _ => kind.is_none() && frame.request_id.is_empty(),
            };
            assert!(fits, "{protocol}: {kind:?} was answered by {frame:?}");
        }
    }
    Ok(())
}

async fn ws_m_05_a_page_is_in_order(place: Place) -> anyhow::Result<()> {
    let (ana, ben, chat) = two(&place).await?;
    let mut writer = Speaker::connect(&place, &ana, BOTH[0]).await?;
    for number in 1..=30 {
        writer.say(&chat, &format!("number {number}")).await?;
    }
    for protocol in BOTH {
        let mut reader = Speaker::connect(&place, &ben, protocol).await?;
        let page = reader.page(&chat, 10, None).await?;
        let places: Vec<u64> = page.messages.iter().map(|item| item.sequence).collect();
        assert_eq!(places, (11..=30).collect::<Vec<u64>>(), "{protocol}");
        assert_eq!((page.has_more, page.next_sequence), (false, None));
        assert!(page.messages.iter().all(|item| item.client_message_id.is_none()), "not ours to know");
        let beyond = reader.page(&chat, 30, None).await?;
        assert!(beyond.messages.is_empty() && !beyond.has_more);
    }
    Ok(())
}

async fn ws_m_06_pages_together_are_complete(place: Place) -> anyhow::Result<()> {
    let (ana, ben, long) = two(&place).await?;
    let short = ana.rest().group("Short", &[ben.user_id()]).await?.chat_id;
    let mut writer = Speaker::connect(&place, &ana, BOTH[1]).await?;
    // Long ones, so that the bytes of a page end it before its limit does, and more short ones than any limit.
    let wide = |number: u32| if number.is_multiple_of(2) { "\"".repeat(4096) } else { format!("number {number}") };
    write(&mut writer, &long, 250, wide).await?;
    write(&mut writer, &short, 520, |number| format!("number {number}")).await?;
    for protocol in BOTH {
        let mut reader = Speaker::connect(&place, &ben, protocol).await?;
        for (limit, most) in [(None, 100), (Some(7), 7), (Some(500), 500), (Some(9000), 500)] {
            let pages = pages(&mut reader, &long, limit).await?;
            assert!(pages.iter().all(|page| page.len() <= most), "{protocol} {limit:?}");
            assert_eq!(pages.concat(), (1..=250).collect::<Vec<u64>>(), "{protocol} {limit:?}");
            assert!(pages.len() > 1, "{limit:?}: 512 KB are more than one page");
            // Nothing but its limit ends a page of short ones.
            let all: Vec<u64> = (1..=520).collect();
            let expected: Vec<&[u64]> = all.chunks(most).collect();
            assert_eq!(self::pages(&mut reader, &short, limit).await?, expected, "{protocol} {limit:?}");
        }
    }
    Ok(())
}

/// Sends texts to a chat that is new, some at a time.
async fn write(writer: &mut Speaker, chat: &str, count: u32, content: impl Fn(u32) -> String) -> anyhow::Result<()> {
    let numbers: Vec<u32> = (1..=count).collect();
    for some in numbers.chunks(20) {
        for number in some {
            writer.ask(&format!("r-{number}"), Ask::SendMessage(text(chat, &content(*number)))).await?;
        }
        for number in some {
            let Payload::SendMessageAck(ack) = writer.answer(&format!("r-{number}")).await? else {
                anyhow::bail!("{number} is not acknowledged")
            };
            anyhow::ensure!(ack.sequence == u64::from(*number), "{number} has the place {}", ack.sequence);
        }
    }
    Ok(())
}

/// The places on each page of a chat, from its beginning.
async fn pages(reader: &mut Speaker, chat: &str, limit: Option<u32>) -> anyhow::Result<Vec<Vec<u64>>> {
    let (mut pages, mut after) = (Vec::new(), 0);
    loop {
        let page = reader.page(chat, after, limit).await?;
        anyhow::ensure!(page.has_more == page.next_sequence.is_some(), "{limit:?} after {after}");
        pages.push(page.messages.iter().map(|item| item.sequence).collect());
        match page.next_sequence {
            Some(next) => after = next - 1,
            None => return Ok(pages),
        }
    }
}

async fn ws_m_07_nothing_answers_an_ack(place: Place) -> anyhow::Result<()> {
    let (ana, ben, chat) = two(&place).await?;
    let mut writer = Speaker::connect(&place, &ana, BOTH[0]).await?;
    // From here on nobody but the reader acknowledges for Ben.
    let (token, rest) = (token_of(&ben)?, Rest::new(place.server(), ben.rest().device())?);
    rest.use_tokens(ben.rest().tokens()?);
    ben.stop().await;
    for protocol in BOTH {
        let mut reader = Speaker::connect_by(&place, &token, protocol).await?;
        for (request, above) in [("", 0), ("will-be-ignored", 0), ("", 1_000_000), ("will-be-ignored", 1_000_000)] {
            let sequence = writer.say(&chat, "hi").await?.sequence;
            reader.acknowledge(request, &chat, sequence + above).await?;
            // Acks of one chat go one by one: when this one has been done, an answer to that one would have been given.
            let last = if above == 0 { writer.say(&chat, "and").await?.sequence } else { sequence };
            let deadline = Instant::now() + WITHIN;
            loop {
                // One that waits is replaced by a higher one, so it may have to go again.
                reader.acknowledge("", &chat, last).await?;
                if pending(&rest, &chat).await? == 0 {
                    break;
                }
                anyhow::ensure!(Instant::now() < deadline, "{protocol}: {last} was not acknowledged");
                sleep(Duration::from_millis(50)).await;
            }
            reader.nothing_before_this_heartbeat().await?;
        }
    }
    Ok(())
}

/// Messages of a chat that who asks has not acknowledged.
async fn pending(rest: &Rest, chat: &str) -> anyhow::Result<u64> {
    let chats = rest.chats().await?;
    Ok(chats.iter().find(|summary| summary.chat_id == chat).context("listed")?.pending_ack_count)
}

async fn ws_m_08_what_others_send_answers_nothing(place: Place) -> anyhow::Result<()> {
    let (ana, ben, chat) = two(&place).await?;
    let mut writer = Speaker::connect(&place, &ana, BOTH[0]).await?;
    for protocol in BOTH {
        let mut reader = Speaker::connect(&place, &ben, protocol).await?;
        let ack = writer.say(&chat, "Meet at the north gate ☕").await?;
        let frame = reader.frame().await?;
        assert_eq!(frame.request_id, "", "{protocol}");
        let Some(Payload::Message(message)) = frame.payload else { anyhow::bail!("{:?}", frame.payload) };
        let expected = (ack.message_id, ack.sequence, ack.created_at, "Meet at the north gate ☕");
        assert_eq!((message.message_id, message.sequence, message.created_at, &*message.content), expected);
        let about = (message.sender_id.as_str(), message.chat_id.as_str(), message.content_type.as_str());
        assert_eq!(about, (ana.user_id(), &*chat, "text/plain"));
        assert_eq!(message.client_message_id, None, "not theirs to know");
    }
    Ok(())
}

async fn ws_m_09_who_is_no_member_writes_nothing(place: Place) -> anyhow::Result<()> {
    let (ana, _ben, chat) = two(&place).await?;
    let eve = place.client("+12025550102").await?;
    let mut member = Speaker::connect(&place, &ana, BOTH[0]).await?;
    member.say(&chat, "before").await?;
    for protocol in BOTH {
        let mut outsider = Speaker::connect(&place, &eve, protocol).await?;
        outsider.ask("r", Ask::SendMessage(text(&chat, "let me in"))).await?;
        assert_eq!(outsider.error("r").await?.code, "NOT_A_MEMBER", "{protocol}");
        let sync = SyncRequest { chat_id: chat.clone(), ..SyncRequest::default() };
        outsider.ask("s", Ask::SyncRequest(sync)).await?;
        assert_eq!(outsider.error("s").await?.code, "NOT_A_MEMBER", "{protocol}");
        assert_eq!(head(&mut member, &chat).await?, 1, "the counter is as it was");
    }
    assert_eq!(member.say(&chat, "after").await?.sequence, 2);
    Ok(())
}
