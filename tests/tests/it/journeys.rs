//! The journeys of the test pyramid, each on the embedded platform and on separate processes over real systems.

mod stage;

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use tests::{
    client::Client,
    faults::store::{Action, Rule, StoreProxy},
    history::{
        line::{Kind, Run, What},
        recorder::Recorder,
    },
    world::{cluster::Plan, ground::Ground},
};
use tokio::time::Instant;

use stage::{Stage, recorded};

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

fn places(view: &[tests::client::Kept]) -> Vec<u64> {
    view.iter().map(|kept| kept.sequence).collect()
}

async fn core(stage: Stage) -> anyhow::Result<()> {
    let (ana, ben) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let first = ana.send(&chat, "one").await?;
    // The ack means that it is stored.
    assert_eq!(stage.rows(&chat).await?[&first.sequence].message_id.as_deref(), Some(first.message_id.as_str()));
    ben.wait_for(&chat, 1, WITHIN).await?;
    let second = ben.send(&chat, "two").await?;
    ana.wait_for(&chat, 2, WITHIN).await?;
    assert_eq!((first.sequence, second.sequence), (1, 2));
    for person in [&ana, &ben] {
        assert_eq!(places(&person.wait_for(&chat, 2, WITHIN).await?), [1, 2]);
        let history = person.rest().history(&chat).await?;
        assert_eq!(history.iter().map(|item| item.content.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    }
    assert_eq!(stage.events(&chat, 2).await?.len(), 2);
    // Watermarks follow the acks, and never pass the counter.
    let pending = || async {
        let chats = ana.rest().chats().await?;
        anyhow::Ok(chats.iter().find(|summary| summary.chat_id == chat).context("listed")?.pending_ack_count)
    };
    let (deadline, mut last) = (Instant::now() + WITHIN, u64::MAX);
    while last > 0 {
        let now = pending().await?;
        assert!(now <= last.min(2), "{now} after {last}");
        last = now;
        anyhow::ensure!(Instant::now() < deadline, "{last} messages are not acknowledged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
    ana.stop().await;
    for number in 6..=8 {
        ben.send(&chat, &format!("{number}")).await?;
    }
    let before = recorder.lines()?.len();
    let ana = Client::resume(options).await?.context("a login")?;
    assert_eq!(places(&ana.wait_for(&chat, 8, WITHIN).await?), [1, 2, 3, 4, 5, 6, 7, 8]);
    let lines = recorder.lines()?.split_off(before);
    let asked = lines.iter().find(|line| line.what == What::Sync && line.kind == Kind::Invoke).context("a sync")?;
    let page = lines.iter().find(|line| line.what == What::Sync && line.kind == Kind::Ok).context("a page")?;
    assert_eq!(asked.cursor, Some(5));
    assert_eq!(page.items.iter().map(|item| item.0).collect::<Vec<_>>(), [6, 7, 8]);
    assert_eq!(page.more, Some(false));
    ana.stop().await;
    // What was acknowledged at the end is known.
    let deadline = Instant::now() + WITHIN;
    let ana = stage.client(0, ANA).await?;
    while ana.rest().chats().await?.iter().any(|summary| summary.chat_id == chat && summary.pending_ack_count > 0) {
        anyhow::ensure!(Instant::now() < deadline, "8 was not acknowledged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
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
    assert_eq!(socket.next_of("send_message_ack").await?["payload"]["sequence"], 2);
    let events = stage.events(&chat, 2).await?;
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!((stage.rows(&chat).await?.len(), stage.head(&chat).await?), (2, 2));
    assert_eq!(places(&ben.wait_for(&chat, 2, WITHIN).await?), [1, 2]);
    Ok(())
}

async fn ordering(stage: Stage) -> anyhow::Result<()> {
    let people = [stage.client(0, ANA).await?, stage.client(1, BEN).await?, stage.client(0, CEM).await?];
    let chat = people[0].rest().group("Order", &[people[1].user_id(), people[2].user_id()]).await?.chat_id;
    let mut answers = Vec::new();
    for number in 0..10 {
        for person in &people {
            answers.push(person.begin_send(&chat, &format!("{} {number}", person.user_id())).await?);
        }
    }
    let mut acknowledged = BTreeSet::new();
    for answer in answers {
        acknowledged.insert(answer.await??.sequence);
    }
    assert_eq!(acknowledged, (1..=30).collect());
    let first = people[0].wait_for(&chat, 30, WITHIN).await?;
    assert_eq!(places(&first), (1..=30).collect::<Vec<_>>());
    for person in &people[1..] {
        assert_eq!(person.wait_for(&chat, 30, WITHIN).await?, first);
    }
    assert_eq!(first.iter().map(|kept| &kept.content).collect::<BTreeSet<_>>().len(), 30);
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
    let event = stage.events(&chat, 1).await?.remove(0);
    assert_eq!(event.sequence, Some(sent.sequence));
    assert_eq!(event.message_id.as_deref(), Some(sent.message_id.as_str()));
    assert_eq!(event.client_id.as_deref(), Some(sent.client_message_id.as_str()));
    assert_eq!(event.user.as_deref(), Some(ana.user_id()));
    Ok(())
}

async fn outsider(stage: Stage) -> anyhow::Result<()> {
    let (ana, ben, cem) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?, stage.client(1, CEM).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    ana.send(&chat, "one").await?;
    let refused = cem.send(&chat, "from outside").await.expect_err("no member");
    assert_eq!(refused.code, "NOT_A_MEMBER");
    assert_eq!((stage.head(&chat).await?, stage.rows(&chat).await?.len()), (1, 1));
    // One more message, so that an event of the refused one would have come before it.
    ana.send(&chat, "two").await?;
    assert_eq!(stage.events(&chat, 2).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn ct_gi_03_a_slow_ingest_leaves_a_send_open_and_the_same_id_is_stored_once() -> anyhow::Result<()> {
    let ground = Ground::shared().await?;
    let slow = StoreProxy::start(&ground.store, 1).await?;
    let plan = Plan::new("slow", ground).with("STORE_ENDPOINT", format!("http://{}", slow.address()));
    let stage = Stage::planned(plan, &ground.store).await?;
    let (ana, ben) = (stage.client(0, ANA).await?, stage.client(1, BEN).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let bearer = format!("Bearer {}", ana.rest().tokens()?.access_token);
    let device = ana.rest().device().to_string();
    ana.stop().await;
    let mut socket = stage.socket(0, &bearer, &device).await?;
    let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    slow.set([Rule::each("TransactWriteItems", Action::Hang)]);
    let begun = Instant::now();
    socket.text(send_frame("slow", id, &chat, "X")).await?;
    let error = socket.next_of("error").await?;
    let took = begun.elapsed();
    assert_eq!(error["payload"]["code"], "SERVICE_UNAVAILABLE", "{error}");
    assert!((Duration::from_secs(4)..Duration::from_secs(7)).contains(&took), "{took:?}");
    assert!(slow.count(Action::Hang) > 0, "nothing was slow");
    slow.heal();
    let deadline = Instant::now() + WITHIN;
    let sequence = loop {
        socket.text(send_frame("again", id, &chat, "X")).await?;
        let answer = socket.next_of_either("send_message_ack", "error").await?;
        if answer["type"] == "send_message_ack" {
            break answer["payload"]["sequence"].clone();
        }
        anyhow::ensure!(Instant::now() < deadline, "not stored: {answer}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(sequence, 1);
    assert_eq!((stage.rows(&chat).await?.len(), stage.head(&chat).await?), (1, 1));
    assert_eq!(places(&ben.wait_for(&chat, 1, WITHIN).await?), [1]);
    Ok(())
}
