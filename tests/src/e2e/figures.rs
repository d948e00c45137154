//! What is measured besides: how fast objects come, what the operator uses at rest, how fast pods are ready.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::{Instant, timeout},
};

use super::{
    kube::Kube,
    platform::{Platform, SERVICES, condition},
};

const BORN_WITHIN: Duration = Duration::from_mins(1);

/// Milliseconds from the object's appearance to that of its last Deployment, network policy and disruption budget, as watches see them.
pub(super) async fn birth(
    platform: &Platform,
    install: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Value> {
    let watch = |kind: &'static str, count: usize| seen(platform, kind, count);
    let all = async {
        tokio::join!(
            watch("messagingclusters", 1),
            watch("deployments", SERVICES.len()),
            watch("networkpolicies", SERVICES.len()),
            watch("services", SERVICES.len()),
        )
    };
    platform.kube.namespace(&platform.name).await?;
    let (installed, seen) = tokio::join!(install, timeout(BORN_WITHIN, all));
    installed?;
    let (object, deployments, policies, services) = seen.context("not all objects came in time")?;
    let last = deployments?.max(policies?).max(services?);
    Ok(json!(last.saturating_duration_since(object?).as_millis()))
}

/// When so many objects of a kind were there.
async fn seen(platform: &Platform, kind: &str, count: usize) -> anyhow::Result<Instant> {
    let mut command = platform.kube.command("kubectl.sh");
    command.args(["-n", &platform.name, "get", kind, "--watch", "-o", "name"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut names = std::collections::BTreeSet::new();
    while names.len() < count {
        names.insert(lines.next_line().await?.context("the watch ended")?);
    }
    let now = Instant::now();
    drop(child.kill().await); // it may have ended
    Ok(now)
}

/// What the operator's leader has used and asked until now.
#[derive(Debug)]
pub(super) struct Operator {
    pod: String,
    at: Instant,
    resident: u64,
    cpu_nanoseconds: u64,
    requests: u64,
    lease_writes: u64,
    other_writes: u64,
    objects_written: BTreeMap<String, u64>,
}

/// Looks at the leader: what the kubelet counts of its container, and its own metrics.
pub(super) async fn operator(kube: &Kube, namespace: &str) -> anyhow::Result<Operator> {
    let lease = kube.get(namespace, &["lease", "messaging-operator"]).await?;
    let holder = lease["spec"]["holderIdentity"].as_str().context("nobody leads")?;
    let pod = holder.split('_').next().unwrap_or_default().to_owned();
    let node = kube.get(namespace, &["pod", &pod]).await?["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    let summary = kube.raw(&format!("/api/v1/nodes/{node}/proxy/stats/summary?only_cpu_and_memory=true")).await?;
    let metrics = kube.raw(&format!("/api/v1/namespaces/{namespace}/pods/{pod}:9100/proxy/metrics")).await?;
    let summary: Value = serde_json::from_str(&summary)?;
    let mut pods = summary["pods"].as_array().into_iter().flatten();
    let container = pods.find(|found| found["podRef"]["name"] == pod.as_str()).map(|found| &found["containers"][0]);
    let usage = |part: &str, field: &str| container.and_then(|it| it[part][field].as_u64()).unwrap_or(0);
    let by_method = |methods: &[&str]| {
        let is = |line: &str| methods.iter().any(|method| line.contains(&format!("method=\"{method}\"")));
        sum(&metrics, |line| line.starts_with("rest_client_requests_total") && is(line))
    };
    Ok(Operator {
        at: Instant::now(),
        resident: usage("memory", "rssBytes"),
        cpu_nanoseconds: usage("cpu", "usageCoreNanoSeconds"),
        requests: sum(&metrics, |line| line.starts_with("rest_client_requests_total")),
        lease_writes: by_method(&["PUT"]),
        other_writes: by_method(&["POST", "PATCH", "DELETE"]),
        objects_written: by_kind(&metrics),
        pod,
    })
}

fn sum(metrics: &str, is_meant: impl Fn(&str) -> bool) -> u64 {
    let values =
        metrics.lines().filter(|line| is_meant(line)).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

/// Objects written, by kind.
fn by_kind(metrics: &str) -> BTreeMap<String, u64> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("messaging_operator_writes_total{kind=\""));
    lines
        .filter_map(|line| line.split_once("\"} "))
        .filter_map(|(kind, count)| Some((kind.to_owned(), count.parse().ok()?)))
        .collect()
}

/// What it used between two looks.
pub(super) fn between(before: &Operator, after: &Operator) -> Value {
    let seconds = (after.at - before.at).as_secs_f64();
    let more = |(kind, count): (&String, &u64)| {
        let more = count.saturating_sub(before.objects_written.get(kind).copied().unwrap_or(0));
        (more > 0).then(|| (kind.clone(), more))
    };
    let written: BTreeMap<String, u64> = after.objects_written.iter().filter_map(more).collect();
    let used = Duration::from_nanos(after.cpu_nanoseconds.saturating_sub(before.cpu_nanoseconds)).as_secs_f64();
    json!({
        "same_leader": before.pod == after.pod,
        "seconds": seconds,
        "resident_mebibytes": after.resident / (1024 * 1024),
        "cpu_percent_of_a_core": used / seconds * 100.0,
        "requests": after.requests.saturating_sub(before.requests),
        "lease_writes": after.lease_writes.saturating_sub(before.lease_writes),
        "other_writes": after.other_writes.saturating_sub(before.other_writes),
        "objects_written": written,
    })
}

/// Seconds from the start of each pod's container to its readiness, by service; Kubernetes tells whole ones.
pub(super) async fn starts(platform: &Platform) -> anyhow::Result<Value> {
    let mut all = serde_json::Map::new();
    for service in SERVICES {
        let mut seconds = Vec::new();
        for pod in platform.pods(service).await?.iter().filter(|pod| condition(pod, "Ready")) {
            let started = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
            let conditions = pod["status"]["conditions"].as_array();
            let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
            let ready = ready.map(|condition| &condition["lastTransitionTime"]);
            if let (Some(started), Some(ready)) = (seconds_of(started), ready.and_then(seconds_of)) {
                seconds.push(ready - started);
            }
        }
        all.insert(service.to_owned(), json!(seconds));
    }
    Ok(all.into())
}

/// Seconds of Unix time of `2026-01-31T12:00:00Z`.
fn seconds_of(time: &Value) -> Option<i64> {
    Some(proto::time::from_iso(time.as_str()?)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_with_their_labels() {
        let metrics = "# TYPE a counter\na_total{x=\"1\"} 3\na_total{x=\"2\"} 4\nb_total 9\n";
        assert_eq!(sum(metrics, |line| line.starts_with("a_total")), 7);
        let metrics = "messaging_operator_writes_total{kind=\"services\"} 4\nmessaging_operator_writes_total{kind=\"deployments\"} 10\n";
        let wanted = [("deployments".to_owned(), 10), ("services".to_owned(), 4)];
        assert_eq!(by_kind(metrics), BTreeMap::from(wanted));
    }
}
