//! A message makes one trace over all processes, through gRPC metadata, Kafka headers and frames (D9.1).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::Value;
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

/// Attributes of hops (`observability.md` §4) that are the same for each message here.
const ATTRIBUTES: [(&str, &str, &str); 11] = [
    ("gateway.receive", "message.type", "send_message"),
    ("durability.publish", "messaging.destination.name", "messages.persisted"),
    ("fanout.consume", "messaging.destination.name", "messages.persisted"),
    ("fanout.route", "member.count", "2"),
    ("fanout.route", "recipient.count", "2"),
    ("fanout.route", "online.count", "2"),
    ("gateway.deliver", "message.type", "message"),
    ("gateway.deliver", "recipient.count", "2"),
    // The sender's own connection has its ack.
    ("gateway.deliver", "connection.count", "1"),
    ("durability.commit", "db.collection.name", "messages"),
    ("durability.commit", "db.operation.name", "commit"),
];

/// Attributes that each message, or each record, has its own of.
const NAMED: [(&str, &str); 9] = [
    ("gateway.receive", "user.id"),
    ("gateway.receive", "connection.id"),
    ("gateway.receive", "request.id"),
    ("durability.persist", "chat.id"),
    ("durability.persist", "client_message.id"),
    ("durability.publish", "message.sequence"),
    ("fanout.consume", "messaging.destination.partition.id"),
    ("fanout.consume", "messaging.kafka.offset"),
    ("fanout.route", "chat.id"),
];

/// What a span lacks, or has another value of.
fn lacks(span: &Seen) -> Vec<String> {
    let of_this = |name: &&str| **name == span.name;
    let wrong = ATTRIBUTES.iter().filter(|(name, ..)| of_this(name)).filter_map(|(name, key, value)| {
        let found = span.texts.get(*key);
        (found.map(String::as_str) != Some(*value)).then(|| format!("{name}: {key} is {found:?}, not {value}"))
    });
    let missing = NAMED.iter().filter(|(name, key)| of_this(name) && span.texts.get(*key).is_none_or(String::is_empty));
    wrong.chain(missing.map(|(name, key)| format!("{name}: no {key}"))).collect()
}

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
            assert_eq!(lacks(&span), Vec::<String>::new(), "{span:#?}");
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
    assert!(commits.iter().all(|span| lacks(span).is_empty()), "{commits:#?}");
    Ok(())
}

/// The first line of a log that says that.
fn line(log: &str, message: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<BTreeMap<String, Value>>(line).ok());
    let said = |line: &BTreeMap<String, Value>| line["message"].as_str().is_some_and(|text| text.starts_with(message));
    lines.into_iter().find(said).with_context(|| format!("no line {message:?} in {log}"))
}

#[tokio::test]
async fn the_lines_about_a_refused_message_are_found_by_its_trace() -> anyhow::Result<()> {
    let plan =
        Plan::new("lines", Ground::shared().await?).with("LOG", "info,librdkafka=off,gateway=debug,ingest=debug");
    let mut cluster = Cluster::start(&plan).await?;
    let (ana, ben) = (cluster.client(0, "+12025550172").await?, cluster.client(0, "+12025550173").await?);
    let cid = cluster.client(0, "+12025550174").await?;
    let chat = ben.rest().direct(cid.user_id()).await?.chat_id;
    let refused = ana.send(&chat, "not for me").await;
    anyhow::ensure!(refused.is_err(), "sent: {refused:?}");
    for client in [ana, ben, cid] {
        client.stop().await;
    }
    let logs: BTreeMap<String, String> =
        cluster.services().iter().map(|service| (service.name().to_owned(), service.log())).collect();
    let log = |name: &str| {
        logs.iter().filter(|(of, _)| of.starts_with(name)).map(|(_, log)| log.as_str()).collect::<String>()
    };
    let (gateway, ingest) =
        (line(&log("gateway"), "refused a request")?, line(&log("ingest"), "a request was refused")?);
    for (name, service, line) in [("gateway", "gateway", &gateway), ("ingest", "ingest", &ingest)] {
        let fields = ["timestamp", "instance", "event", "trace_id", "span_id", "chat_id", "user_id", "target"];
        let missing: Vec<&str> = fields.into_iter().filter(|field| !line.contains_key(*field)).collect();
        assert_eq!(missing, [""; 0], "{name}: {line:#?}");
        assert_eq!((&line["service"], &line["level"]), (&Value::from(service), &Value::from("DEBUG")), "{line:#?}");
        assert_eq!(line["error_code"], "NOT_A_MEMBER", "{line:#?}");
        assert_eq!(line["chat_id"], chat.as_str(), "{line:#?}");
    }
    let missing: Vec<&str> = ["gateway_id", "connection_id", "request_id"]
        .into_iter()
        .filter(|field| !gateway.contains_key(*field))
        .collect();
    assert_eq!(missing, [""; 0], "{gateway:#?}");
    assert_eq!(gateway["message_type"], "send_message");
    assert_eq!((&ingest["trace_id"], &ingest["operation"]), (&gateway["trace_id"], &Value::from("persist")));
    let without = line(&log("gateway"), "gateway started")?;
    assert!(!without.contains_key("trace_id") && !without.contains_key("request_id"), "{without:#?}");
    Ok(())
}
