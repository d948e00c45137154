//! What the operator counts. Names that controller-runtime made known are kept, so that dashboards and alerts fit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::Clock;
use http::Method;
use platform::Liveness;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The one controller of this operator.
const CONTROLLER: &str = "messagingcluster";

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All is as asked for.
    Success,
    /// It failed and is tried again.
    Error,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Success => "success",
            Self::Error => "error",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pass {
    controller: &'static str,
    result: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfController {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLease {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCluster {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Aspect {
    namespace: String,
    name: String,
    r#type: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    backend: &'static str,
    op: &'static str,
    code: String,
}

/// Pairs of a condition's type and status.
type Shown = BTreeSet<(String, String)>;

/// What the operator counts.
pub struct Metrics {
    passes: Family<Pass, Counter>,
    errors: Family<OfController, Counter>,
    time: Family<OfController, Histogram>,
    depth: Family<OfController, Gauge>,
    requests: Family<Asked, Counter>,
    leads: Family<OfLease, Gauge>,
    watch_seen: Family<OfKind, Gauge>,
    watch_errors: Family<OfKind, Counter>,
    condition: Family<Aspect, Gauge>,
    last_success: Family<OfCluster, Gauge>,
    writes: Family<OfKind, Counter>,
    backend_requests: Family<Call, Counter>,
    crd_outdated: Gauge,
    /// The conditions that have series, by cluster: a cluster that goes takes them along.
    shown: Mutex<BTreeMap<(String, String), Shown>>,
    clock: Arc<dyn Clock>,
    beats: Mutex<BTreeMap<String, Liveness>>,
}

impl Metrics {
    /// Registers all.
    pub fn new(registry: &mut Registry, clock: Arc<dyn Clock>) -> Self {
        let seconds =
            || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]);
        let this = Self {
            passes: Family::default(),
            errors: Family::default(),
            time: Family::new_with_constructor(seconds),
            depth: Family::default(),
            requests: Family::default(),
            leads: Family::default(),
            watch_seen: Family::default(),
            watch_errors: Family::default(),
            condition: Family::default(),
            last_success: Family::default(),
            writes: Family::default(),
            backend_requests: Family::default(),
            crd_outdated: Gauge::default(),
            shown: Mutex::default(),
            clock,
            beats: Mutex::default(),
        };
        registry.register("controller_runtime_reconcile", "Passes over a cluster, by result", this.passes.clone());
        registry.register("controller_runtime_reconcile_errors", "Passes that failed", this.errors.clone());
        registry.register("controller_runtime_reconcile_time_seconds", "Duration of a pass", this.time.clone());
        registry.register("workqueue_depth", "Clusters waiting for a pass", this.depth.clone());
        registry.register(
            "rest_client_requests",
            "Requests to the API server; code 0 is no answer",
            this.requests.clone(),
        );
        registry.register("leader_election_master_status", "1 while this process holds the lease", this.leads.clone());
        let help = "When a watch began anew last, which each does every minute, in seconds of Unix time";
        registry.register("messaging_operator_watch_last_event_timestamp_seconds", help, this.watch_seen.clone());
        registry.register("messaging_operator_watch_errors", "Watches that broke", this.watch_errors.clone());
        registry.register(
            "messaging_operator_condition",
            "1 for the status that a condition has",
            this.condition.clone(),
        );
        let help = "When a pass over a cluster succeeded last, in seconds of Unix time";
        registry.register("messaging_operator_last_success_timestamp_seconds", help, this.last_success.clone());
        registry.register("messaging_operator_writes", "Objects applied or deleted, by kind", this.writes.clone());
        let help = "Calls to Kafka and DynamoDB";
        registry.register("messaging_operator_backend_requests", help, this.backend_requests.clone());
        let help = "1 while the definition on the API server is not this operator's";
        registry.register("messaging_operator_crd_schema_outdated", help, this.crd_outdated.clone());
        this
    }

    /// Seconds of Unix time.
    fn now(&self) -> i64 {
        self.clock.now().0 / 1000
    }

    /// A pass ended.
    pub fn pass(&self, outcome: Outcome, took: Duration) {
        self.passes.get_or_create(&Pass { controller: CONTROLLER, result: outcome }).inc();
        if outcome == Outcome::Error {
            self.errors.get_or_create(&OfController { controller: CONTROLLER }).inc();
        }
        self.time.get_or_create(&OfController { controller: CONTROLLER }).observe(took.as_secs_f64());
    }

    /// So many clusters still wait for a pass.
    pub fn depth(&self, waiting: usize) {
        self.depth
            .get_or_create(&OfController { controller: CONTROLLER })
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// The API server answered with a code, or not at all (0).
    pub fn request(&self, method: &Method, code: u16) {
        self.requests.get_or_create(&Asked { method: method.to_string(), code: code.to_string() }).inc();
    }

    /// This process holds the lease, or no longer.
    pub fn leads(&self, lease: &str, holds: bool) {
        self.leads.get_or_create(&OfLease { name: lease.to_owned() }).set(i64::from(holds));
    }

    /// From now on a watch must be heard of.
    pub fn expect_watch(&self, path: String, liveness: Liveness) {
        lock(&self.beats).insert(path, liveness);
    }

    /// The watch of a path began anew.
    pub fn watch_began(&self, path: &str) {
        if let Some(liveness) = lock(&self.beats).get(path) {
            liveness.beat();
        }
        let plural = path.rsplit('/').next().unwrap_or_default();
        self.watch_seen.get_or_create(&OfKind { kind: plural.to_owned() }).set(self.now());
    }

    /// A watch broke.
    pub fn watch_broke(&self, plural: &str) {
        self.watch_errors.get_or_create(&OfKind { kind: plural.to_owned() }).inc();
    }

    /// An object of a kind was written.
    pub fn wrote(&self, plural: &str) {
        self.writes.get_or_create(&OfKind { kind: plural.to_owned() }).inc();
    }

    /// So many calls went to a backing system; `code` is what they came to.
    pub fn backend(&self, backend: &'static str, op: &'static str, code: &str, calls: u32) {
        self.backend_requests.get_or_create(&Call { backend, op, code: code.to_owned() }).inc_by(calls.into());
    }

    /// The conditions of a cluster, as type and status.
    pub fn conditions(&self, namespace: &str, name: &str, conditions: &[(String, String)]) {
        let wanted: Shown = conditions.iter().cloned().collect();
        let mut shown = lock(&self.shown);
        let before = shown.entry((namespace.to_owned(), name.to_owned())).or_default();
        for gone in before.difference(&wanted) {
            self.condition.remove(&aspect(namespace, name, gone));
        }
        for pair in &wanted {
            self.condition.get_or_create(&aspect(namespace, name, pair)).set(1);
        }
        *before = wanted;
    }

    /// A pass over a cluster succeeded.
    pub fn succeeded(&self, namespace: &str, name: &str) {
        self.last_success
            .get_or_create(&OfCluster { namespace: namespace.to_owned(), name: name.to_owned() })
            .set(self.now());
    }

    /// A cluster is gone, and so are its series.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.conditions(namespace, name, &[]);
        lock(&self.shown).remove(&(namespace.to_owned(), name.to_owned()));
        self.last_success.remove(&OfCluster { namespace: namespace.to_owned(), name: name.to_owned() });
    }

    /// Whether the definition on the API server is another than this operator's.
    pub fn crd_outdated(&self, outdated: bool) {
        self.crd_outdated.set(i64::from(outdated));
    }
}

fn aspect(namespace: &str, name: &str, (kind, status): &(String, String)) -> Aspect {
    Aspect { namespace: namespace.to_owned(), name: name.to_owned(), r#type: kind.clone(), status: status.clone() }
}

/// A poisoned lock guards plain values here: they can still be used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
