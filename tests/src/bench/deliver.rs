//! Processor time of gateway and fanout for one delivered message, in a chat with many members who are all connected.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    cost::{cpu, each},
    crowd::{Counts, Crowd, Heard, message, people},
    milliseconds,
};
use crate::world::{
    cluster::{Cluster, Plan},
    ground::Ground,
};

/// Bytes of a message's content.
const CONTENT: usize = 100;
/// Messages before the first that is measured.
const WARM: u64 = 20;

/// Sends messages to a chat of `members`, so many under way at a time, and says what each delivery cost.
///
/// # Errors
/// When the system does not start, or messages do not arrive.
pub async fn run(ground: &Ground, members: usize, in_flight: &[u64], messages: u64) -> anyhow::Result<Value> {
    let plan = Plan::new("bench-deliver", ground)
        .with("GROUP_MEMBERS", members.to_string())
        .with("LOG", "info,gateway=warn,fanout=warn,ingest=warn,librdkafka=off");
    let mut cluster = Cluster::start(&plan).await?;
    let crowd_of = people(&cluster, members).await?;
    let (first, others) = crowd_of.split_first().context("a chat has members")?;
    let ids: Vec<&str> = others.iter().map(|person| person.user.as_str()).collect();
    let chat = first.rest.group("a large group", &ids).await?.chat_id;
    let address = cluster.gateways[0].address("--listen").await?;
    let (counts, mut crowd) = (Arc::new(Counts::default()), Crowd::default());
    for person in others {
        crowd.connect(&address, person, counts.clone(), Heard::Nothing).await?;
    }
    let line = crowd.connect(&address, first, Arc::new(Counts::default()), Heard::Nothing).await?;
    let (recipients, content) = (others.len() as u64, "x".repeat(CONTENT));
    let mut sent = 0;
    let post = async |sent: &mut u64| -> anyhow::Result<()> {
        *sent += 1;
        line.send(message(&chat, &format!("r-{sent}"), &content)).await
    };
    for _ in 0..WARM {
        post(&mut sent).await?;
    }
    counts.messages(sent * recipients).await?;

    let mut results = Vec::new();
    for under_way in in_flight {
        let begun = (Instant::now(), cpu(&cluster.gateways[0])?, cpu(&cluster.fanout)?);
        let end = sent + messages;
        while sent < end {
            for _ in 0..(*under_way).min(end - sent) {
                post(&mut sent).await?;
            }
            counts.messages((sent + 1).saturating_sub(*under_way).max(1) * recipients).await?;
        }
        counts.messages(sent * recipients).await?;
        let deliveries = messages * recipients;
        let (gateway, fanout) =
            (cpu(&cluster.gateways[0])?.saturating_sub(begun.1), cpu(&cluster.fanout)?.saturating_sub(begun.2));
        let took = begun.0.elapsed();
        results.push(json!({
            "in_flight": under_way,
            "messages": messages,
            "deliveries": deliveries,
            "cpu_microseconds_per_delivery": {
                "gateway": each(gateway, deliveries),
                "fanout": each(fanout, deliveries),
                "together": each(gateway + fanout, deliveries),
            },
            "seconds": milliseconds(took) / 1000.0,
            "deliveries_per_second": rate(deliveries, took),
        }));
    }
    let memory = cluster.gateways[0].memory_kilobytes();
    drop(crowd);
    for service in cluster.services() {
        service.kill().await?;
    }
    Ok(json!({
        "members": members,
        "content_bytes": CONTENT,
        "gateway_resident_kilobytes": memory,
        "results": results,
    }))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(count: u64, took: Duration) -> f64 {
    (count as f64 / took.as_secs_f64()).round()
}
