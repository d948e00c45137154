//! What the services measure: what `observability.md` §2 asks for is there, and `docs/METRICS.md` names all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;
use tests::world::World;
use tokio::time::{Instant, sleep};

const WITHIN: Duration = Duration::from_secs(30);

/// What the page asks of gateway (§2.1), ingest (§2.2), fanout (§2.3) and all of them (§2.4): name, type, own labels, buckets.
const DEMANDED: &[(&str, &str, &[&str], &[f64])] = &[
    // §2.1
    ("gateway_connections_active", "gauge", &[], &[]),
    ("gateway_connections_total", "counter", &["status"], &[]),
    ("gateway_messages_received_total", "counter", &["type"], &[]),
    ("gateway_messages_sent_total", "counter", &["type"], &[]),
    ("gateway_send_latency_seconds", "histogram", &[], &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
    ("gateway_buffer_size_bytes", "histogram", &[], &[1024.0, 10240.0, 102_400.0, 1_048_576.0, 10_485_760.0]),
    ("gateway_slow_consumer_disconnects_total", "counter", &[], &[]),
    ("gateway_heartbeat_latency_seconds", "histogram", &[], &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1]),
    ("gateway_auth_failures_total", "counter", &["reason"], &[]),
    ("gateway_heartbeat_timeout_total", "counter", &[], &[]),
    ("gateway_send_total", "counter", &["status"], &[]),
    ("gateway_connections_limit", "gauge", &[], &[]),
    // §2.2
    ("durability_persist_total", "counter", &["status"], &[]),
    ("durability_persist_duration_seconds", "histogram", &[], &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
    ("durability_idempotency_hits_total", "counter", &[], &[]),
    ("durability_transaction_conflicts_total", "counter", &[], &[]),
    ("durability_kafka_produce_duration_seconds", "histogram", &[], &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5]),
    ("durability_dynamodb_errors_total", "counter", &["error_type"], &[]),
    ("durability_dynamodb_available", "gauge", &[], &[]),
    ("durability_kafka_available", "gauge", &[], &[]),
    ("durability_counter_missing_total", "counter", &[], &[]),
    ("durability_duplicate_sequence_total", "counter", &[], &[]),
    // §2.3
    ("fanout_events_consumed_total", "counter", &["topic"], &[]),
    ("fanout_events_processed_total", "counter", &["status"], &[]),
    ("fanout_delivery_total", "counter", &["status"], &[]),
    ("fanout_delivery_latency_seconds", "histogram", &[], &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0]),
    ("fanout_batch_size", "histogram", &[], &[1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0]),
    ("fanout_membership_cache_hits_total", "counter", &[], &[]),
    ("fanout_membership_cache_misses_total", "counter", &[], &[]),
    ("fanout_dlq_events_total", "counter", &["reason"], &[]),
    // And the topic, for fanout reads three.
    ("fanout_consumer_lag", "gauge", &["topic", "partition"], &[]),
    // §2.4
    ("messaging_clock_skew_samples_total", "counter", &["source_plane", "dest_plane"], &[]),
];

/// What the page asks for and nobody shows; docs/adr/0019-metrics-that-differ.md says why, and what to look at instead.
const DIFFERENT: &[&str] = &[
    // §2.2: a sequence is allocated by the transaction that persists (D3.2): it has no time and no count of its own.
    "durability_sequence_allocation_duration_seconds",
    "durability_sequence_allocated_total",
    // §2.2: the breaker is gateway's, one for each ingest.
    "durability_circuit_breaker_state",
    // §2.2: an ack without a commit has no place in the code that could count it.
    "durability_ack_sent_total",
    // §2.3, the plan's names for what is counted above.
    "fanout_messages_processed_total",
    "fanout_delivery_success_total",
    "fanout_delivery_skip_total",
    "fanout_poison_pill_total",
    // §2.4: derived from the others.
    "messaging_e2e_latency_seconds",
    "messaging_messages_in_flight",
    "messaging_slo_error_budget_remaining",
];

/// One family of a metrics page.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// Of its samples; none without a sample.
    labels: Option<BTreeSet<String>>,
    buckets: BTreeSet<String>,
}

type Families = BTreeMap<String, Family>;

/// Reads a page in the text format of `OpenMetrics`; counters get the name that is queried.
fn read(page: &str) -> anyhow::Result<Families> {
    let mut families = Families::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').context("a name and a type")?;
            current = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            anyhow::ensure!(!families.contains_key(&current), "{current} is there twice");
            families.insert(current.clone(), Family { kind: kind.to_owned(), ..Family::default() });
        } else if !line.starts_with('#') {
            let family = families.get_mut(&current).with_context(|| format!("a sample before its type: {line}"))?;
            let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |found| found.0);
            let mut names = BTreeSet::new();
            // No label of ours has a comma in its value: they are enums.
            for (name, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
                if name == "le" {
                    family.buckets.insert(value.trim_matches('"').to_owned());
                } else {
                    names.insert(name.to_owned());
                }
            }
            family.labels.get_or_insert_default().extend(names);
        }
    }
    Ok(families)
}

/// The page of the one process that holds all services.
async fn page(world: &World) -> anyhow::Result<Families> {
    let log = std::fs::read_to_string(world.log_path())?;
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.rfind(|line| line["setting"] == "--admin-listen").context("no admin pages")?;
    let address = line["address"].as_str().context("no address")?;
    read(&reqwest::get(format!("http://{address}/metrics")).await?.error_for_status()?.text().await?)
}

/// The page after some traffic: what counts by labels is shown once it was counted.
async fn measured(expected: &BTreeSet<&str>) -> anyhow::Result<Families> {
    let world = World::start().await?;
    let (ana, ben) = (world.client("+12025550190").await?, world.client("+12025550191").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    for content in ["one", "two", "three"] {
        ana.send(&chat, content).await?;
    }
    ben.wait_for(&chat, 3, WITHIN).await?;
    let group = ana.rest().group("a group", &[ben.user_id()]).await?.chat_id;
    let member = format!("chats/{group}/members/{}", ben.user_id());
    let removed = ana.rest().call(Method::DELETE, &member)?.send().await?;
    anyhow::ensure!(removed.status().is_success(), "not removed: {}", removed.status());
    let url = format!("{}/v1/ws", world.server());
    let refused = reqwest::Client::new()
        .get(url)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("authorization", "Bearer nothing")
        .header("x-device-id", "6ba7b810-9dad-11d1-80b4-00c04fd430c8")
        .send()
        .await?;
    anyhow::ensure!(refused.status() == 401, "a wrong token: {}", refused.status());
    ana.stop().await;
    let deadline = Instant::now() + WITHIN;
    loop {
        let families = page(&world).await?;
        // A family with labels is shown from its first sample on. What never comes, the test names.
        if expected.iter().all(|name| families.contains_key(*name)) || Instant::now() > deadline {
            return Ok(families);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The rows of the page for operators: name, type, labels.
fn documented() -> anyhow::Result<BTreeMap<String, (String, BTreeSet<String>)>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells.as_slice() else { anyhow::bail!("four cells a row: {line}") };
        anyhow::ensure!(!meaning.is_empty(), "{name} has no meaning");
        let labels = labels.split_whitespace().map(|label| label.trim_matches([',', '`']).to_owned()).collect();
        let before = rows.insert(name.trim_matches('`').to_owned(), ((*kind).to_owned(), labels));
        anyhow::ensure!(before.is_none(), "{name} is there twice");
    }
    Ok(rows)
}

#[tokio::test]
async fn the_services_show_what_is_asked_for_and_the_page_names_all_of_it() -> anyhow::Result<()> {
    let documented = documented()?;
    let expected = documented.keys().map(String::as_str).chain(DEMANDED.iter().map(|row| row.0)).collect();
    let families = measured(&expected).await?;
    let mut faults = Vec::new();
    for (name, kind, labels, buckets) in DEMANDED {
        let Some(family) = families.get(*name) else {
            faults.push(format!("{name} is not there"));
            continue;
        };
        if family.kind != *kind {
            faults.push(format!("{name} is a {}, not a {kind}", family.kind));
        }
        let wanted: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if family.labels.as_ref().is_some_and(|labels| *labels != wanted) {
            faults.push(format!("{name} has the labels {:?}, not {wanted:?}", family.labels));
        }
        let mut found: Vec<f64> = family.buckets.iter().filter_map(|bucket| bucket.parse().ok()).collect();
        found.retain(|bucket| bucket.is_finite());
        found.sort_unstable_by(f64::total_cmp);
        if found != *buckets {
            faults.push(format!("{name} has the buckets {found:?}, not {buckets:?}"));
        }
    }
    for name in DIFFERENT {
        if families.contains_key(*name) {
            faults.push(format!("{name} is there: it is demanded, and not different any more"));
        }
    }
    for (name, family) in &families {
        match documented.get(name) {
            None => faults.push(format!("docs/METRICS.md lacks {name}, a {} with {:?}", family.kind, family.labels)),
            Some((kind, _)) if *kind != family.kind => {
                faults.push(format!("docs/METRICS.md says {kind} of {name}, which is a {}", family.kind));
            }
            Some((_, labels)) if family.labels.as_ref().is_some_and(|seen| seen != labels) => {
                faults.push(format!("docs/METRICS.md says {labels:?} of {name}, which has {:?}", family.labels));
            }
            Some(_) => {}
        }
    }
    let gone = documented.keys().filter(|name| !families.contains_key(*name));
    faults.extend(gone.map(|name| format!("docs/METRICS.md names {name}, which nobody shows")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
