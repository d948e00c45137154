//! How much one chat takes when each transaction of the store takes a while: what group commit is for (D3.10).

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    crowd::{Counts, Crowd, Heard, message, people},
    milliseconds, quantile,
};
use crate::{
    faults::store::{Action, Rule, StoreProxy},
    world::{
        cluster::{Cluster, Plan},
        ground::Ground,
    },
};

/// Time for what is under way at the end.
const TAIL: Duration = Duration::from_secs(10);

/// Ten senders keep `in_flight` messages each under way in one chat for a while, over a store whose transactions last so long,
/// its own work included.
///
/// # Errors
/// When the system does not start, or messages are refused.
pub async fn run(
    ground: &Ground,
    senders: usize,
    in_flight: usize,
    transaction: Duration,
    during: Duration,
) -> anyhow::Result<Value> {
    let store = StoreProxy::start(&ground.store, 1).await?;
    let plan = Plan::new("bench-chat", ground).with("STORE_ENDPOINT", format!("http://{}", store.address()));
    let mut cluster = Cluster::start(&plan).await?;
    let crowd_of = people(&cluster, senders).await?;
    let ids: Vec<&str> = crowd_of[1..].iter().map(|person| person.user.as_str()).collect();
    let chat = crowd_of[0].rest.group("a busy group", &ids).await?.chat_id;
    let address = cluster.gateways[0].address("--listen").await?;
    let (counts, mut crowd) = (Arc::new(Counts::default()), Crowd::default());
    let mut lines = Vec::new();
    for person in &crowd_of {
        let (heard, acks) = mpsc::channel(1024);
        lines.push((crowd.connect(&address, person, counts.clone(), Heard::Acks(heard)).await?, acks));
    }
    let slow = u64::try_from(transaction.as_millis())?;
    store.set([Rule::each("TransactWriteItems", Action::Last(slow))]);
    let before = store.count(Action::Last(slow));
    let begun = Instant::now();
    let end = begun + during;
    let all = lines.into_iter().enumerate().map(|(who, (line, mut acks))| {
        let chat = chat.clone();
        async move {
            let (mut under_way, mut number, mut latencies) = (HashMap::new(), 0_u64, Vec::new());
            loop {
                while under_way.len() < in_flight && Instant::now() < end {
                    number += 1;
                    let request = format!("r-{who}-{number}");
                    line.send(message(&chat, &request, "something short")).await?;
                    under_way.insert(request, Instant::now());
                }
                if under_way.is_empty() {
                    return anyhow::Ok(latencies);
                }
                let ack = tokio::time::timeout(TAIL, acks.recv()).await.context("no ack in time")?;
                let (at, text) = ack.context("the socket closed")?;
                let frame: Value = serde_json::from_str(&text)?;
                let request = frame["request_id"].as_str().unwrap_or_default();
                let sent = under_way.remove(request).with_context(|| format!("an ack of nothing: {text}"))?;
                latencies.push(at.saturating_duration_since(sent));
            }
        }
    });
    let mut latencies: Vec<Duration> = futures_util::future::try_join_all(all).await?.into_iter().flatten().collect();
    let took = begun.elapsed();
    let transactions = store.count(Action::Last(slow)) - before;
    store.heal();
    sleep(Duration::from_millis(100)).await;
    for service in cluster.services() {
        service.kill().await?;
    }
    let acknowledged = latencies.len();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let (rate, batch) = (acknowledged as f64 / took.as_secs_f64(), acknowledged as f64 / transactions.max(1) as f64);
    let p99 = quantile(&mut latencies, 0.99);
    Ok(json!({
        "senders": senders,
        "in_flight_each": in_flight,
        "transaction_milliseconds": milliseconds(transaction),
        "acknowledged": acknowledged,
        "messages_per_second": rate.round(),
        "messages_per_transaction": (batch * 10.0).round() / 10.0,
        "transactions_of_the_store": transactions,
        "ack_milliseconds": { "p50": milliseconds(quantile(&mut latencies, 0.5)), "p99": milliseconds(p99) },
        "ack_p99_in_transactions": (p99.as_secs_f64() / transaction.as_secs_f64() * 10.0).round() / 10.0,
    }))
}
