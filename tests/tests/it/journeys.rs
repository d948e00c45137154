//! The journeys of the test pyramid, each on the embedded platform and on separate processes over real systems.

mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tests::{
    client::{Client, Event, Kept},
    faults::store::{Action, Rule, StoreProxy},
    history::{
        line::{Kind, Line, Run, What},
        recorder::Recorder,
    },
    raw::Raw,
};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep, timeout_at},
};

use stage::{Marks, Stage, recorded};

const WITHIN: Duration = Duration::from_secs(30);
const ANA: &str = "+12025550100";
const BEN: &str = "+12025550101";
const CEM: &str = "+12025550102";

/// Each journey twice.
macro_rules! journeys {
    ($($embedded:ident, $real:ident => $journey:ident;)*) => {$(
        #[tokio::test]
        async fn $embedded() -> anyhow::Result<()> {
            $journey(Stage::embedded().await?).await
        }

        #[tokio::test]
        async fn $real() -> anyhow::Result<()> {
            $journey(Stage::real(stringify!($journey)).await?).await
        }
    )*};
}

journeys! {
    e2e_5_1_two_people_talk, e2e_5_1_two_people_talk_on_real_systems => core;
    e2e_5_2_who_was_away_gets_exactly_what_they_missed, e2e_5_2_who_was_away_gets_exactly_what_they_missed_on_real_systems => reconnect;
    e2e_5_3_a_repeated_message_is_one_message, e2e_5_3_a_repeated_message_is_one_message_on_real_systems => retry;
    e2e_5_4_three_senders_have_one_order, e2e_5_4_three_senders_have_one_order_on_real_systems => ordering;
    e2e_5_5_chats_count_by_themselves, e2e_5_5_chats_count_by_themselves_on_real_systems => independence;
    ct_gi_01_an_acknowledged_message_is_an_event, ct_gi_01_an_acknowledged_message_is_an_event_on_real_systems => acknowledged;
    ct_gi_02_who_is_no_member_changes_nothing, ct_gi_02_who_is_no_member_changes_nothing_on_real_systems => outsider;
}

/// Each journey behind a proxy before the store, twice.
macro_rules! journeys_before_a_proxy {
    ($($real:ident, $embedded:ident => $journey:ident;)*) => {$(
        #[tokio::test]
        async fn $real() -> anyhow::Result<()> {
            let (stage, store) = Stage::before_a_proxy(stringify!($journey)).await?;
            $journey(stage, store).await
        }

        #[tokio::test]
        async fn $embedded() -> anyhow::Result<()> {
            let (stage, store) = Stage::before_a_proxy_embedded(stringify!($journey)).await?;
            $journey(stage, store).await
        }
    )*};
}

journeys_before_a_proxy! {
    e2e_5_1_a_message_is_stored_before_its_ack_and_its_push, e2e_5_1_a_message_is_stored_before_its_ack_and_its_push_embedded => stored_first;
    ct_gi_03_a_slow_ingest_leaves_a_send_open_and_the_same_id_is_stored_once, ct_gi_03_a_slow_ingest_leaves_a_send_open_and_the_same_id_is_stored_once_embedded => slow;
}

fn places(view: &[Kept]) -> Vec<u64> {
    view.iter().map(|kept| kept.sequence).collect()
}

/// What the log says of each message: its place and its id.
fn logged(events: &[Line]) -> Vec<(u64, &str)> {
    let messages = events.iter().map(|event| (event.sequence.unwrap_or(0), event.message_id.as_deref().unwrap_or("")));
    messages.collect()
}

/// What an application is shown of a chat, up to the message at that place.
async fn shown(events: &mut broadcast::Receiver<Event>, chat: &str, last: u64) -> anyhow::Result<Vec<Kept>> {
    let (deadline, mut shown) = (Instant::now() + WITHIN, Vec::new());
    while shown.last().is_none_or(|kept: &Kept| kept.sequence < last) {
        let event = timeout_at(deadline, events.recv()).await;
        let event = event.with_context(|| format!("of {last} messages: {:?}", places(&shown)))??;
        if let Event::Message(kept) = event
            && kept.chat == chat
        {
            shown.push(kept);
        }
    }
    Ok(shown)
}

/// Looks at the marks of a user until they are these: none falls, and none passes the counter.
async fn wait_for_marks(stage: &Stage, chat: &str, user: &str, expected: Marks) -> anyhow::Result<()> {
    let (deadline, mut last) = (Instant::now() + WITHIN, Marks::default());
    while last != expected {
        anyhow::ensure!(Instant::now() < deadline, "{user}: {last:?} instead of {expected:?}");
        let now = stage.marks(chat, user).await?;
        let head = stage.head(chat).await?;
        assert!(now.acknowledged <= head && now.read <= head, "{user}: {now:?} above {head}");
        assert!(now.acknowledged >= last.acknowledged && now.read >= last.read, "{user}: {now:?} after {last:?}");
        last = now;
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn core(stage: Stage) -> anyhow::Result<()> {
    let (ana, ben) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?);
    let (mut to_ana, mut to_ben) = (ana.events(), ben.events());
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let first = ana.send(&chat, "one").await?;
    // The ack means that it is stored.
    assert_eq!(stage.rows(&chat).await?[&first.sequence].message_id.as_deref(), Some(first.message_id.as_str()));
    ben.wait_for(&chat, 1, WITHIN).await?;
    wait_for_marks(&stage, &chat, ben.user_id(), Marks { acknowledged: 1, read: 0 }).await?;
    let second = ben.send(&chat, "two").await?;
    ana.wait_for(&chat, 2, WITHIN).await?;
    assert_eq!((first.sequence, second.sequence), (1, 2));
    for person in [&ana, &ben] {
        assert_eq!(places(&person.wait_for(&chat, 2, WITHIN).await?), [1, 2]);
        let history = person.rest().history(&chat).await?;
        assert_eq!(history.iter().map(|item| item.content.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        wait_for_marks(&stage, &chat, person.user_id(), Marks { acknowledged: 2, read: 0 }).await?;
    }
    // Neither an ack above the counter nor one of before moves a mark. The read mark shows that both were taken: acks of
    // one connection to a chat go in their order, and one that was not taken goes again with the next.
    let mut socket = stage.socket_of(1, &ben, "6ba7b810-9dad-41d1-80b4-00c04fd430c8").await?;
    socket.text(ack_frame(&chat, json!({"last_acked_sequence": 1_000_000}))).await?;
    let again = async {
        loop {
            socket.text(ack_frame(&chat, json!({"last_acked_sequence": 1, "last_read_sequence": 1}))).await?;
            sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        looked = wait_for_marks(&stage, &chat, ben.user_id(), Marks { acknowledged: 2, read: 1 }) => looked?,
        never = again => return never,
    }
    // One more message, so that what comes twice would have come before it.
    let third = ana.send(&chat, "three").await?;
    for events in [&mut to_ana, &mut to_ben] {
        assert_eq!(places(&shown(events, &chat, 3).await?), [1, 2, 3]);
    }
    let events = stage.events(&chat, &third.message_id).await?;
    assert_eq!(logged(&events), [(1, &*first.message_id), (2, &*second.message_id), (3, &*third.message_id)]);
    Ok(())
}

async fn stored_first(stage: Stage, store: StoreProxy) -> anyhow::Result<()> {
    // Long enough for an ack or a push that does not wait for the store to come before the row is there.
    let late = Action::Delay(1000);
    let (ana, ben) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let (mut from, mut to) = (stage.socket_of(0, &ana, id).await?, stage.socket_of(1, &ben, id).await?);
    store.set([Rule::each("TransactWriteItems", late)]);
    for sequence in 1..=2 {
        let client_id = format!("6ba7b810-9dad-41d1-80b4-{sequence:012}");
        from.text(send_frame("late", &client_id, &chat, "X")).await?;
        let seen = async |socket: &mut Raw, kind| {
            let frame = socket.next_of(kind).await?;
            anyhow::Ok((frame, stage.row(&chat, sequence).await?))
        };
        let (ack, push) = tokio::try_join!(seen(&mut from, "send_message_ack"), seen(&mut to, "message"))?;
        for (frame, row) in [ack, push] {
            let row = row.with_context(|| format!("there was no row when it came: {frame}"))?;
            assert_eq!(frame["payload"]["message_id"], row["message_id"]["S"]);
            assert_eq!(frame["payload"]["sequence"], sequence);
        }
    }
    assert!(store.count(late) >= 2, "nothing was late");
    Ok(())
}

async fn reconnect(stage: Stage) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let recorder = Recorder::create(&folder.path().join("history.jsonl"), Run::default())?;
    let options = recorded(stage.server(0), folder.path(), &recorder, "ana");
    let ana = stage.client_with(0, ANA, options.clone()).await?;
    let ben = stage.client(1, BEN).await?;
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    for number in 1..=5 {
        ben.send(&chat, &format!("{number}")).await?;
    }
    ana.wait_for(&chat, 5, WITHIN).await?;
    let user = ana.user_id().to_owned();
    ana.stop().await;
    wait_for_marks(&stage, &chat, &user, Marks { acknowledged: 5, read: 0 }).await?;
    for number in 6..=8 {
        ben.send(&chat, &format!("{number}")).await?;
    }
    let before = recorder.lines()?.len();
    let ana = Client::resume(options).await?.context("a login")?;
    assert_eq!(places(&ana.wait_for(&chat, 8, WITHIN).await?), [1, 2, 3, 4, 5, 6, 7, 8]);
    let lines = recorder.lines()?.split_off(before);
    let asked = lines.iter().find(|line| line.what == What::Sync && line.kind == Kind::Invoke).context("a sync")?;
    let pages: Vec<&Line> = lines.iter().filter(|line| line.what == What::Sync && line.kind == Kind::Ok).collect();
    assert_eq!(asked.cursor, Some(5));
    assert_eq!(pages.iter().flat_map(|page| &page.items).map(|item| item.0).collect::<Vec<_>>(), [6, 7, 8]);
    assert_eq!(pages.first().and_then(|page| page.more), Some(false));
    // Its own ack, on the connection that caught up.
    wait_for_marks(&stage, &chat, &user, Marks { acknowledged: 8, read: 0 }).await?;
    assert_eq!(ana.wire().connections(), 1);
    ana.stop().await;
    Ok(())
}

fn ack_frame(chat: &str, mut marks: Value) -> String {
    marks["chat_id"] = chat.into();
    json!({"type": "ack", "payload": marks}).to_string()
}

fn send_frame(request_id: &str, client_id: &str, chat: &str, content: &str) -> String {
    let payload = json!({"client_message_id": client_id, "chat_id": chat, "content": content});
    json!({"type": "send_message", "request_id": request_id, "payload": payload}).to_string()
}

async fn retry(stage: Stage) -> anyhow::Result<()> {
    let (ana, ben) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let bearer = format!("Bearer {}", ana.rest().tokens()?.access_token);
    let device = ana.rest().device().to_string();
    ana.stop().await;
    let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let mut answers: Vec<Value> = Vec::new();
    let mut socket = stage.socket(0, &bearer, &device).await?;
    for request in ["once", "twice"] {
        socket.text(send_frame(request, id, &chat, "X")).await?;
        answers.push(socket.next_of("send_message_ack").await?);
    }
    drop(socket);
    let mut socket = stage.socket(1, &bearer, &device).await?;
    socket.text(send_frame("again", id, &chat, "X")).await?;
    answers.push(socket.next_of("send_message_ack").await?);
    for (request, answer) in ["once", "twice", "again"].into_iter().zip(&answers) {
        assert_eq!(answer["request_id"], request);
        assert_eq!(answer["payload"], answers[0]["payload"]);
    }
    // One more message, so that a second event would have come before it.
    socket.text(send_frame("last", "6ba7b811-9dad-41d1-80b4-00c04fd430c8", &chat, "Y")).await?;
    let last = socket.next_of("send_message_ack").await?;
    assert_eq!(last["payload"]["sequence"], 2);
    let [once, last] = [&answers[0], &last].map(|answer| answer["payload"]["message_id"].as_str().unwrap_or(""));
    let events = stage.events(&chat, last).await?;
    assert_eq!(logged(&events), [(1, once), (2, last)]);
    assert_eq!((stage.rows(&chat).await?.len(), stage.head(&chat).await?), (2, 2));
    assert_eq!(places(&ben.wait_for(&chat, 2, WITHIN).await?), [1, 2]);
    Ok(())
}

async fn ordering(stage: Stage) -> anyhow::Result<()> {
    let people = [stage.client(0, ANA).await?, stage.client(1, BEN).await?, stage.client(0, CEM).await?];
    let mut events = people.each_ref().map(Client::events);
    let chat = people[0].rest().group("Order", &[people[1].user_id(), people[2].user_id()]).await?.chat_id;
    let mut sockets = Vec::new();
    for (number, person) in people.iter().enumerate() {
        sockets.push(stage.socket_of(number % 2, person, "6ba7b810-9dad-41d1-80b4-00c04fd430c8").await?);
    }
    // All thirty are under way before anybody looks at an answer.
    let client_id = |person: usize, number: usize| format!("6ba7b810-9dad-41d1-80b4-{person:04}{number:08}");
    for number in 0..10 {
        for (person, socket) in sockets.iter_mut().enumerate() {
            let content = format!("{person}-{number}");
            socket.text(send_frame(&content, &client_id(person, number), &chat, &content)).await?;
        }
    }
    let mut sent = BTreeMap::new();
    for (person, socket) in sockets.iter_mut().enumerate() {
        // Those of one connection have the order in which they were sent (D3.5), and so do their acks.
        let mut last = 0;
        for number in 0..10 {
            let ack = socket.next_of_either("send_message_ack", "error").await?;
            let sequence = ack["payload"]["sequence"].as_u64().with_context(|| format!("no ack: {ack}"))?;
            assert_eq!(ack["payload"]["client_message_id"], client_id(person, number));
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
            let message_id = ack["payload"]["message_id"].as_str().unwrap_or("").to_owned();
            sent.insert(sequence, (message_id, client_id(person, number), format!("{person}-{number}")));
        }
    }
    assert_eq!(sent.keys().copied().collect::<Vec<u64>>(), (1..=30).collect::<Vec<_>>());
    // One more message, so that what comes twice would have come before it.
    let last = people[0].send(&chat, "last").await?;
    sent.insert(31, (last.message_id.clone(), last.client_message_id, "last".to_owned()));
    assert_eq!(last.sequence, 31);
    for events in &mut events {
        let shown = shown(events, &chat, 31).await?;
        let shown: Vec<_> = shown.iter().map(|kept| (kept.sequence, &*kept.message_id, &*kept.content)).collect();
        let expected: Vec<_> = sent.iter().map(|(place, (id, _, content))| (*place, &**id, &**content)).collect();
        assert_eq!(shown, expected);
    }
    let ids = |row: &Line| (row.message_id.clone().unwrap_or_default(), row.client_id.clone().unwrap_or_default());
    let rows: Vec<_> = stage.rows(&chat).await?.iter().map(|(place, row)| (*place, ids(row))).collect();
    let expected: Vec<_> =
        sent.iter().map(|(place, (id, client_id, _))| (*place, (id.clone(), client_id.clone()))).collect();
    assert_eq!(rows, expected);
    assert_eq!(stage.head(&chat).await?, 31);
    let events = stage.events(&chat, &last.message_id).await?;
    assert_eq!(logged(&events), sent.iter().map(|(place, (id, ..))| (*place, &**id)).collect::<Vec<_>>());
    Ok(())
}

async fn independence(stage: Stage) -> anyhow::Result<()> {
    let (ana, ben, cem) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?, stage.client(1, CEM).await?);
    let one = ana.rest().direct(ben.user_id()).await?.chat_id;
    let other = ana.rest().direct(cem.user_id()).await?.chat_id;
    let (first, second) = tokio::join!(ana.send(&one, "here"), ana.send(&other, "there"));
    assert_eq!((first?.sequence, second?.sequence), (1, 1));
    Ok(())
}

async fn acknowledged(stage: Stage) -> anyhow::Result<()> {
    let (ana, ben) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let sent = ana.send(&chat, "an event").await?;
    let event = stage.events(&chat, &sent.message_id).await?.remove(0);
    assert_eq!(event.sequence, Some(sent.sequence));
    assert_eq!(event.message_id.as_deref(), Some(sent.message_id.as_str()));
    assert_eq!(event.client_id.as_deref(), Some(sent.client_message_id.as_str()));
    assert_eq!(event.user.as_deref(), Some(ana.user_id()));
    Ok(())
}

async fn outsider(stage: Stage) -> anyhow::Result<()> {
    let (ana, ben, cem) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?, stage.client(1, CEM).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let one = ana.send(&chat, "one").await?;
    let refused = cem.send(&chat, "from outside").await.expect_err("no member");
    assert_eq!(refused.code, "NOT_A_MEMBER");
    assert_eq!((stage.head(&chat).await?, stage.rows(&chat).await?.len()), (1, 1));
    // One more message, so that an event of the refused one would have come before it.
    let two = ana.send(&chat, "two").await?;
    let events = stage.events(&chat, &two.message_id).await?;
    assert_eq!(logged(&events), [(1, &*one.message_id), (2, &*two.message_id)]);
    Ok(())
}

async fn slow(stage: Stage, store: StoreProxy) -> anyhow::Result<()> {
    let (ana, ben) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?);
    let mut to_ben = ben.events();
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let bearer = format!("Bearer {}", ana.rest().tokens()?.access_token);
    let device = ana.rest().device().to_string();
    ana.stop().await;
    let mut socket = stage.socket(0, &bearer, &device).await?;
    let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    store.set([Rule::each("TransactWriteItems", Action::Hang)]);
    let begun = Instant::now();
    socket.text(send_frame("slow", id, &chat, "X")).await?;
    let error = socket.next_of("error").await?;
    // The deadline is 5 s; who waits for an answer here does not wait for twice as long.
    let took = begun.elapsed();
    assert_eq!(error["payload"]["code"], "SERVICE_UNAVAILABLE", "{error}");
    assert!(took > Duration::from_secs(4), "{took:?}");
    assert!(store.count(Action::Hang) > 0, "nothing was slow");
    store.heal();
    let deadline = Instant::now() + WITHIN;
    let ack = loop {
        socket.text(send_frame("again", id, &chat, "X")).await?;
        let answer = socket.next_of_either("send_message_ack", "error").await?;
        if answer["type"] == "send_message_ack" {
            break answer["payload"].clone();
        }
        anyhow::ensure!(Instant::now() < deadline, "not stored: {answer}");
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(ack["sequence"], 1);
    assert_eq!((stage.rows(&chat).await?.len(), stage.head(&chat).await?), (1, 1));
    // One more message, so that what comes twice would have come before it.
    let last = ben.send(&chat, "last").await?;
    assert_eq!(places(&shown(&mut to_ben, &chat, 2).await?), [1, 2]);
    // Where a chat went from one ingest to another, an event may be there twice (D4.4), but no other is there.
    let events = stage.events(&chat, &last.message_id).await?;
    let expected = [(1, ack["message_id"].as_str().unwrap_or("")), (2, &*last.message_id)];
    assert_eq!(logged(&events).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    Ok(())
}
