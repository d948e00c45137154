//! What was observed of a cluster, as conditions that tools understand, in one patch. Last of five calls.

use crds::{
    MessagingCluster, MessagingClusterStatus,
    conditions::{ConditionType, Reason},
    status::{ComponentStatus, Endpoints, TableStatus, TopicStatus},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::{
        Context, Done, Error,
        apply::{Cause, MANAGER},
        build::CONFIG_HASH,
        fetch::Fetched,
        rollout::{self, Counts},
        validate::{Cluster, Invalid, Service},
    },
    engine::{self, Class},
};

/// What a status is made of.
pub struct Seen<'pass> {
    wanted: &'pass Result<Cluster, Invalid>,
    denied: &'pass [String],
    done: &'pass Done,
}

/// One verdict: a status, a reason, a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: Reason,
    message: String,
}

impl Verdict {
    fn new(status: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// What was written.
pub struct Written {
    /// Whether the cluster is as asked for.
    pub is_ready: bool,
}

impl<'pass> Seen<'pass> {
    /// What a pass saw.
    pub fn new(wanted: &'pass Result<Cluster, Invalid>, fetched: &'pass Fetched, done: &'pass Done) -> Self {
        Self { wanted, denied: &fetched.denied, done }
    }

    /// The status of a cluster, at a time. Pure.
    pub fn status(&self, cluster: &MessagingCluster, now: &Time) -> MessagingClusterStatus {
        let before = cluster.status.clone().unwrap_or_default();
        let verdicts = self.verdicts(cluster);
        let is_ready = verdicts.iter().any(|(kind, verdict)| *kind == ConditionType::Ready && verdict.is_true());
        let version = if is_ready { Some(cluster.spec.version.clone()) } else { before.version };
        MessagingClusterStatus {
            observed_generation: cluster.metadata.generation,
            version,
            conditions: conditions(&verdicts, &before.conditions, cluster.metadata.generation, now),
            components: self.components(),
            topics_synced: self.done.reports.topics.as_ref().map(share),
            topics: self.done.reports.topics.iter().flat_map(|report| report.items.iter().map(topic)).collect(),
            tables_synced: self.done.reports.tables.as_ref().map(share),
            tables: self.done.reports.tables.iter().flat_map(|report| report.items.iter().map(table)).collect(),
            endpoints: self.wanted.as_ref().ok().map(endpoints),
            plan: self.done.plan.clone(),
        }
    }

    fn verdicts(&self, cluster: &MessagingCluster) -> Vec<(ConditionType, Verdict)> {
        use ConditionType as C;
        let configuration = self.configuration();
        let services: Vec<(Service, Verdict)> =
            Service::ALL.into_iter().map(|service| (service, self.service(service))).collect();
        let topics = backend(self.done.reports.topics.as_ref());
        let tables = backend(self.done.reports.tables.as_ref());
        let stalled = self.stalled(&configuration, &services);
        let ready = self.ready(&configuration, &services, &topics, &tables);
        let reconciling = self.reconciling(cluster, &ready, &stalled, &configuration);
        let mut all = vec![
            (C::Ready, ready),
            (C::Reconciling, reconciling),
            (C::Stalled, stalled),
            (C::ConfigurationValid, configuration),
        ];
        all.extend(services.into_iter().map(|(service, verdict)| (condition_of(service), verdict)));
        all.extend([(C::TopicsSynced, topics), (C::TablesSynced, tables), (C::Paused, self.paused())]);
        if let Some(plan) = &self.done.plan {
            let verdict = if plan.changes.is_empty() {
                Verdict::new("True", Reason::PlanEmpty, "nothing would change")
            } else {
                Verdict::new("False", Reason::PlanPending, format!("{}; set mode: Apply to carry it out", plan.summary))
            };
            all.push((C::UpToDate, verdict));
        }
        all
    }

    fn configuration(&self) -> Verdict {
        match self.wanted {
            Ok(_) => Verdict::new("True", Reason::Valid, "the spec and what it refers to can be used"),
            Err(invalid) => {
                let mut message = invalid.to_string();
                if !self.denied.is_empty() {
                    message.push_str("; the operator may not read ");
                    message.push_str(&self.denied.join(", "));
                    message.push_str(": grant its account `get` on them");
                }
                Verdict::new("False", invalid.reason(), message)
            }
        }
    }

    fn paused(&self) -> Verdict {
        match self.done.paused {
            Some(reason) => Verdict::new("True", reason, "the operator changes nothing until the pause ends"),
            None => Verdict::new("False", Reason::NotPaused, "the operator keeps the cluster as asked for"),
        }
    }

    fn service(&self, service: Service) -> Verdict {
        use Reason as R;
        let Some(deployment) = self.done.applied.deployments.get(&service) else {
            return Verdict::new("False", R::RolloutInProgress, "there is no Deployment yet");
        };
        let counts = rollout::counts(deployment);
        let ratio = ratio(counts);
        if let Some(trouble) = self.done.images.get(&service) {
            return Verdict::new("False", R::ImagePullFailed, format!("{ratio} pods are ready; {trouble}"));
        }
        if let Some(message) = rollout::is_stuck(deployment) {
            return Verdict::new("False", R::RolloutStuck, format!("{ratio} pods are ready; {message}"));
        }
        if self.done.applied.held.contains(&service) {
            return Verdict::new(
                "False",
                R::RolloutWaiting,
                format!("{ratio} pods are ready; the new template waits until the services before it have rolled out"),
            );
        }
        if counts.desired == 0 {
            return Verdict::new("False", R::Disabled, "no pods are asked for");
        }
        if !counts.is_current || counts.updated < counts.desired || counts.total > counts.desired {
            let updated = counts.updated;
            return Verdict::new(
                "False",
                R::RolloutInProgress,
                format!("{ratio} pods are ready, {updated} of the newest template"),
            );
        }
        if counts.available < counts.desired {
            return Verdict::new("False", R::MinimumReplicasUnavailable, format!("{ratio} pods are ready"));
        }
        Verdict::new("True", R::DeploymentAvailable, format!("{ratio} pods are ready"))
    }

    fn ready(
        &self,
        configuration: &Verdict,
        services: &[(Service, Verdict)],
        topics: &Verdict,
        tables: &Verdict,
    ) -> Verdict {
        use Reason as R;
        if !configuration.is_true() {
            return Verdict::new("False", R::ConfigurationNotValid, configuration.message.clone());
        }
        if let Ok(wanted) = self.wanted
            && wanted.is_suspended
        {
            return Verdict::new("False", R::Suspended, "spec.suspend is true: no pods run");
        }
        if let Some(failure) = self.done.applied.failures.first() {
            let reason = if failure.cause == Cause::Foreign { R::OwnershipConflict } else { R::ComponentsNotReady };
            return Verdict::new("False", reason, format!("{}: {}", failure.object, failure.message));
        }
        let waiting: Vec<String> = services
            .iter()
            .filter(|(_, verdict)| !verdict.is_true() && verdict.reason != R::Disabled)
            .map(|(service, verdict)| format!("{service}: {}", verdict.message))
            .collect();
        if !waiting.is_empty() {
            let reason = if self.done.paused.is_some() { R::ReconciliationPaused } else { R::ComponentsNotReady };
            return Verdict::new("False", reason, waiting.join("; "));
        }
        for (verdict, reason) in [(topics, R::TopicsNotReady), (tables, R::TablesNotReady)] {
            if !verdict.is_true() {
                return Verdict::new("False", reason, verdict.message.clone());
            }
        }
        Verdict::new("True", R::AllComponentsReady, "all services, topics and tables are as asked for")
    }

    fn stalled(&self, configuration: &Verdict, services: &[(Service, Verdict)]) -> Verdict {
        use Reason as R;
        // A Secret that is missing heals without a change of the spec, so only the rest of what is not valid stalls.
        if matches!(configuration.reason, R::InvalidSpec | R::InvalidReference | R::UnsupportedVersion) {
            return Verdict::new("True", R::InvalidSpec, configuration.message.clone());
        }
        for failure in &self.done.applied.failures {
            let reason = match failure.cause {
                Cause::Foreign => R::OwnershipConflict,
                Cause::Refused => R::BackendRefused,
                Cause::Leaving | Cause::Failed => continue,
            };
            return Verdict::new("True", reason, format!("{}: {}", failure.object, failure.message));
        }
        for report in [&self.done.reports.topics, &self.done.reports.tables].into_iter().flatten() {
            if report.class() == Class::Stalled {
                let reason = if matches!(report.reason, engine::Reason::NotOwned | engine::Reason::ResourceConflict) {
                    R::OwnershipConflict
                } else if report.reason == engine::Reason::NonConvergent {
                    R::NonConvergent
                } else {
                    R::BackendRefused
                };
                return Verdict::new("True", reason, report.message.clone());
            }
        }
        if let Some((service, verdict)) = services.iter().find(|(_, verdict)| verdict.reason == R::RolloutStuck) {
            return Verdict::new("True", R::RetriesExhausted, format!("{service}: {}", verdict.message));
        }
        Verdict::new("False", R::NotStalled, "nothing waits for a person")
    }

    fn reconciling(
        &self,
        cluster: &MessagingCluster,
        ready: &Verdict,
        stalled: &Verdict,
        configuration: &Verdict,
    ) -> Verdict {
        use Reason as R;
        let settled =
            ready.is_true() || stalled.is_true() || matches!(ready.reason, R::Suspended) || self.done.paused.is_some();
        if settled || self.done.plan.is_some() {
            return Verdict::new("False", R::Settled, "nothing is under way");
        }
        let observed = cluster.status.as_ref().and_then(|status| status.observed_generation);
        let reports = [&self.done.reports.topics, &self.done.reports.tables];
        let reason = if !configuration.is_true() || !self.done.applied.failures.is_empty() {
            R::Retrying
        } else if observed != cluster.metadata.generation {
            R::NewGeneration
        } else if reports.iter().any(|report| report.as_ref().is_none_or(|report| report.class() != Class::InSync)) {
            R::WaitingForBackend
        } else {
            R::ProgressingRollout
        };
        Verdict::new("True", reason, ready.message.clone())
    }

    fn components(&self) -> Vec<ComponentStatus> {
        let deployments = &self.done.applied.deployments;
        let all = Service::ALL.into_iter().filter_map(|service| Some((service, deployments.get(&service)?)));
        all.map(|(service, deployment)| {
            let counts = rollout::counts(deployment);
            let text = |path: &str| deployment.data.pointer(path).and_then(|value| value.as_str()).map(str::to_owned);
            ComponentStatus {
                name: service.name().to_owned(),
                pods: ratio(counts),
                ready: counts.ready,
                desired: counts.desired,
                updated: counts.updated,
                image: text("/spec/template/spec/containers/0/image"),
                config_hash: text(&format!("/spec/template/metadata/annotations/{}", CONFIG_HASH.replace('/', "~1"))),
            }
        })
        .collect()
    }
}

fn ratio(counts: Counts) -> String {
    format!("{}/{}", counts.ready, counts.desired)
}

fn condition_of(service: Service) -> ConditionType {
    match service {
        Service::Gateway => ConditionType::GatewayReady,
        Service::Ingest => ConditionType::IngestReady,
        Service::Fanout => ConditionType::FanoutReady,
        Service::ChatMgmt => ConditionType::ChatMgmtReady,
    }
}

fn backend(report: Option<&engine::Report>) -> Verdict {
    let Some(report) = report else {
        return Verdict::new("Unknown", Reason::Initializing, "nobody has looked yet");
    };
    let status = if report.class() == Class::InSync { "True" } else { "False" };
    Verdict::new(status, report.reason.of_condition(), report.message.clone())
}

fn share(report: &engine::Report) -> String {
    format!("{}/{}", report.synced(), report.items.len())
}

fn topic(item: &engine::Item) -> TopicStatus {
    TopicStatus {
        name: item.name.clone(),
        id: item.id.clone(),
        partitions: item.partitions.and_then(|count| i32::try_from(count).ok()),
        synced: item.is_synced(),
        message: (!item.message.is_empty()).then(|| item.message.clone()),
    }
}

fn table(item: &engine::Item) -> TableStatus {
    TableStatus {
        name: item.name.clone(),
        arn: item.id.clone(),
        status: item.status.clone(),
        synced: item.is_synced(),
        message: (!item.message.is_empty()).then(|| item.message.clone()),
    }
}

fn endpoints(wanted: &Cluster) -> Endpoints {
    use crate::cluster::validate::Route;
    match (&wanted.route, &wanted.domain) {
        (Route::None, _) | (_, None) => {
            let host = |service: Service| format!("{}.{}.svc", wanted.object_name(service), wanted.namespace);
            Endpoints {
                websocket: format!("ws://{}:8080/v1/ws", host(Service::Gateway)),
                api: format!("http://{}:8080/api/v1", host(Service::ChatMgmt)),
            }
        }
        (Route::Gateway(_) | Route::Ingress { tls_secret: Some(_), .. }, Some(domain)) => {
            Endpoints { websocket: format!("wss://{domain}/v1/ws"), api: format!("https://{domain}/api/v1") }
        }
        (Route::Ingress { tls_secret: None, .. }, Some(domain)) => {
            Endpoints { websocket: format!("ws://{domain}/v1/ws"), api: format!("http://{domain}/api/v1") }
        }
    }
}

fn conditions(
    verdicts: &[(ConditionType, Verdict)],
    before: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let made = verdicts.iter().map(|(kind, verdict)| {
        let same = before.iter().find(|old| old.type_ == kind.as_str() && old.status == verdict.status);
        Condition {
            type_: kind.to_string(),
            status: verdict.status.to_owned(),
            reason: verdict.reason.to_string(),
            message: verdict.message.clone(),
            last_transition_time: same.map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
            observed_generation: generation,
        }
    });
    made.collect()
}

/// Writes a first status where there is none, so that nobody takes a cluster without conditions for a ready one.
///
/// # Errors
/// When the API server does not answer.
pub async fn begin(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    context: &Context,
) -> Result<(), Error> {
    if cluster.status.as_ref().is_some_and(|status| !status.conditions.is_empty()) {
        return Ok(());
    }
    let verdicts = [
        (ConditionType::Ready, Verdict::new("Unknown", Reason::Initializing, "the first pass has begun")),
        (ConditionType::Reconciling, Verdict::new("True", Reason::NewGeneration, "the first pass has begun")),
        (ConditionType::Stalled, Verdict::new("False", Reason::NotStalled, "nothing waits for a person")),
    ];
    let conditions = conditions(&verdicts, &[], cluster.metadata.generation, &Time(Timestamp::now()));
    let status = MessagingClusterStatus {
        observed_generation: cluster.metadata.generation,
        conditions,
        ..MessagingClusterStatus::default()
    };
    patch(clusters, cluster, &status, context).await
}

/// Writes the status if it is another than before, and tells of what became different.
///
/// # Errors
/// When the API server does not answer.
pub async fn write(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    seen: Seen<'_>,
    context: &Context,
) -> Result<Written, Error> {
    let status = seen.status(cluster, &Time(Timestamp::now()));
    show(cluster, &status, context);
    if cluster.status.as_ref() != Some(&status) {
        patch(clusters, cluster, &status, context).await?;
        tell(cluster, &status, context).await;
    }
    let reports = &seen.done.reports;
    for notice in [&reports.topics, &reports.tables].into_iter().flatten().flat_map(|report| &report.notices) {
        let note = format!("{}: {}", notice.object, notice.message);
        if notice.is_warning {
            context.events.warning(cluster, "Observe", notice.reason, &note).await;
        } else {
            context.events.normal(cluster, "Apply", notice.reason, &note).await;
        }
    }
    let is_ready = find(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.status == "True");
    Ok(Written { is_ready })
}

/// Writes one condition beside those that are there.
///
/// # Errors
/// When the API server does not answer.
pub async fn add(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    more: &[(ConditionType, &'static str, Reason, String)],
    context: &Context,
) -> Result<(), Error> {
    let mut status = cluster.status.clone().unwrap_or_default();
    let verdicts: Vec<(ConditionType, Verdict)> = more
        .iter()
        .map(|(kind, status, reason, message)| (*kind, Verdict::new(status, *reason, message.clone())))
        .collect();
    let made = conditions(&verdicts, &status.conditions, cluster.metadata.generation, &Time(Timestamp::now()));
    status.conditions.retain(|old| made.iter().all(|new| new.type_ != old.type_));
    status.conditions.extend(made);
    if cluster.status.as_ref() != Some(&status) {
        patch(clusters, cluster, &status, context).await?;
        tell(cluster, &status, context).await;
    }
    Ok(())
}

async fn patch(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    status: &MessagingClusterStatus,
    context: &Context,
) -> Result<(), Error> {
    context.fence.check()?;
    let object = json!({
        "apiVersion": "messaging.dev/v1alpha1", "kind": "MessagingCluster",
        // Of this very object: a cluster of the same name that came after it has its own status.
        "metadata": { "name": cluster.name_any(), "uid": cluster.uid() },
        "status": status,
    });
    match clusters.patch_status(&cluster.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await
    {
        Ok(_) => {
            context.metrics.wrote("messagingclusters/status");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn show(cluster: &MessagingCluster, status: &MessagingClusterStatus, context: &Context) {
    let pairs: Vec<(String, String)> =
        status.conditions.iter().map(|condition| (condition.type_.clone(), condition.status.clone())).collect();
    context.metrics.conditions(&cluster.namespace().unwrap_or_default(), &cluster.name_any(), &pairs);
}

fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Reasons that are no news: they say that something goes on as it should.
const QUIET: [Reason; 8] = [
    Reason::RolloutInProgress,
    Reason::RolloutWaiting,
    Reason::MinimumReplicasUnavailable,
    Reason::Initializing,
    Reason::Disabled,
    Reason::TableCreating,
    Reason::TableUpdating,
    Reason::IndexBackfilling,
];

/// Events for conditions that became different.
async fn tell(cluster: &MessagingCluster, status: &MessagingClusterStatus, context: &Context) {
    let before = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    for kind in ConditionType::ALL.iter().copied().filter(|kind| *kind != ConditionType::Reconciling) {
        let Some(now) = find(&status.conditions, kind) else { continue };
        let old = find(before, kind);
        if old.is_some_and(|old| old.status == now.status && old.reason == now.reason) {
            continue;
        }
        let is_good = now.status == kind.good();
        let was_good = old.is_none_or(|old| old.status == kind.good());
        if is_good && (kind == ConditionType::Ready || !was_good) {
            context.events.normal(cluster, "Reconcile", &now.reason, &now.message).await;
        } else if !is_good && kind != ConditionType::Ready && QUIET.iter().all(|quiet| quiet.as_str() != now.reason) {
            context.events.warning(cluster, "Reconcile", &now.reason, &now.message).await;
        }
    }
}
