//! A busy group: one order for everybody, and few transactions.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tests::{
    client::Client,
    history::{Acknowledged, Violations, check_history, check_order, check_view},
    world::World,
};

const WITHIN: Duration = Duration::from_mins(2);
const SENDERS: usize = 10;
const EACH: usize = 100;

#[tokio::test]
async fn a_thousand_messages_of_ten_senders_have_one_order_without_holes() -> anyhow::Result<()> {
    let calls_file = tempfile::NamedTempFile::new()?;
    let flag = format!("--store-calls={}", calls_file.path().display());
    let world = World::start_with(&[&flag]).await?;
    let mut people = Vec::new();
    for number in 0..SENDERS {
        people.push(world.client(&format!("+120255501{number:02}")).await?);
    }
    let others: Vec<&str> = people[1..].iter().map(Client::user_id).collect();
    let chat = people[0].rest().group("Sunday hike", &others).await?.chat_id;

    let before = calls(calls_file.path())?.len();
    let mut answers = Vec::new();
    for number in 0..EACH {
        for (who, person) in people.iter().enumerate() {
            let content = format!("{who} says {number}");
            answers.push((content.clone(), person.begin_send(&chat, &content).await?));
        }
    }
    let mut acknowledged = Vec::new();
    for (content, answer) in answers {
        let sent = answer.await??;
        acknowledged.push(Acknowledged { chat: chat.clone(), content, sent });
    }
    let recorded = calls(calls_file.path())?;

    let history = people[0].rest().history(&chat).await?;
    let attempted: Vec<String> = acknowledged.iter().map(|ack| ack.content.clone()).collect();
    assert_eq!(history.len(), SENDERS * EACH);
    assert_eq!(check_history(&history, &acknowledged, &attempted), Violations::new());
    let sender = |ack: &Acknowledged| ack.content.split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(check_order(&acknowledged, sender), Violations::new());
    let mut duplicates = 0;
    for person in &people {
        let view = person.wait_for(&chat, SENDERS * EACH, WITHIN).await?;
        assert_eq!(view.len(), SENDERS * EACH);
        assert_eq!(check_view(&view, &history), Violations::new());
        duplicates += person.wire().duplicates();
    }

    let mut by_operation = BTreeMap::new();
    for call in &recorded[before..] {
        if call["service"] == "ingest" {
            let operation = call["operation"].as_str().unwrap_or_default().to_owned();
            let table = call["table"].as_str().unwrap_or("").to_owned();
            *by_operation.entry((operation, table)).or_insert(0) += 1;
        }
    }
    let transactions: Vec<&Value> = recorded[before..]
        .iter()
        .filter(|call| call["service"] == "ingest" && call["operation"] == "TransactWriteItems")
        .collect();
    let stored: u64 = transactions.iter().map(|call| messages_of(call)).sum();
    println!(
        "{} messages in {} transactions; ingest's store calls: {by_operation:?}; wire duplicates: {duplicates}",
        history.len(),
        transactions.len(),
    );
    assert!(transactions.len() < history.len(), "messages that come together are stored together");
    assert!(stored >= history.len() as u64, "all messages went through these transactions");
    // Between the first send and the last ack ingest asks the store for one more thing at the most for this chat: its
    // head, once. The lease of the process is renewed besides, and clients that sync read their chat.
    let heads = by_operation
        .iter()
        .filter(|((operation, table), _)| operation == "GetItem" && table.ends_with("chat-counters"));
    assert!(heads.map(|(_, count)| *count).sum::<i32>() <= 1, "{by_operation:?}");
    let allowed = ["TransactWriteItems", "GetItem", "UpdateItem", "BatchGetItem", "Query", "PutItem"];
    assert!(by_operation.keys().all(|(operation, _)| allowed.contains(&operation.as_str())), "{by_operation:?}");
    Ok(())
}

/// A transaction for k messages of s senders has 1 + 2k + s items; with one sender a message, 1 + 3k.
fn messages_of(call: &Value) -> u64 {
    let items = call["items"].as_u64().unwrap_or(0);
    items.saturating_sub(1) / 2
}

fn calls(file: &std::path::Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(file)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
