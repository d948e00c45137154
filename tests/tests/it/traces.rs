//! A message makes one trace over all processes, through gRPC metadata, Kafka headers and frames (D9.1).

use std::{collections::BTreeSet, time::Duration};

use tests::{
    collector::{Collector, Seen},
    world::{
        cluster::{Cluster, Plan},
        ground::Ground,
    },
};
use tokio::time::{Instant, sleep};

const WITHIN: Duration = Duration::from_secs(30);

/// The hops of a message: the service, and its span, each the parent of the next.
const HOPS: [(&str, &str); 6] = [
    ("gateway", "gateway.receive"),
    ("ingest", "durability.persist"),
    ("ingest", "durability.publish"),
    ("fanout", "fanout.consume"),
    ("fanout", "fanout.route"),
    ("gateway", "gateway.deliver"),
];

/// Waits until a trace with that many spans has come, and returns all of the traces of messages.
async fn traces(collector: &Collector, messages: usize) -> anyhow::Result<Vec<Vec<Seen>>> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let spans = collector.spans();
        let of_messages: BTreeSet<&String> =
            spans.iter().filter(|span| span.name == HOPS[0].1).map(|span| &span.trace).collect();
        let traces: Vec<Vec<Seen>> = of_messages
            .into_iter()
            .map(|trace| spans.iter().filter(|span| span.trace == *trace).cloned().collect())
            .collect();
        if traces.len() >= messages && traces.iter().all(|trace| trace.len() >= HOPS.len()) {
            return Ok(traces);
        }
        anyhow::ensure!(Instant::now() < deadline, "not all spans came: {spans:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn one_trace_has_exactly_the_six_spans_of_a_message() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let plan = Plan::new("traces", Ground::shared().await?)
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .with("OTEL_BSP_SCHEDULE_DELAY", "100");
    let mut cluster = Cluster::start(&plan).await?;
    // At one gateway, for each that holds a connection of a member gets the message, and is a hop.
    let (ana, ben) = (cluster.client(0, "+12025550170").await?, cluster.client(0, "+12025550171").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    for content in ["one", "two", "three"] {
        ana.send(&chat, content).await?;
    }
    ben.wait_for(&chat, 3, WITHIN).await?;
    let early = traces(&collector, 3).await?;
    assert_eq!(early.len(), 3, "a trace for each message: {early:#?}");
    ana.stop().await;
    ben.stop().await;
    // At its end each process hands over all that it has: nothing more may belong to a message.
    for service in cluster.services() {
        service.terminate().await?;
    }
    for service in cluster.services() {
        service.ended().await?;
    }
    for mut trace in traces(&collector, 3).await? {
        let mut parent = String::new();
        for (service, name) in HOPS {
            let place = trace.iter().position(|span| span.name == name);
            let span = trace.remove(place.ok_or_else(|| anyhow::anyhow!("no {name} left in {trace:#?}"))?);
            assert_eq!((span.service.as_str(), span.parent), (service, parent), "{name}");
            parent = span.id;
        }
        assert_eq!(trace, [], "no other span belongs to the trace");
    }
    // The store was called once for a batch, which has a trace of its own and a link to each message in it.
    let spans = collector.spans();
    let persisted: BTreeSet<&String> =
        spans.iter().filter(|span| span.name == "durability.persist").map(|span| &span.id).collect();
    let commits: Vec<&Seen> = spans.iter().filter(|span| span.name == "durability.commit").collect();
    let linked: BTreeSet<&String> = commits.iter().flat_map(|span| &span.links).collect();
    assert_eq!(linked, persisted, "{commits:#?}");
    Ok(())
}
