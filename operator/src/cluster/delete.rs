//! The end of a cluster. Its objects go by their owner references; a finalizer stands only while topics or tables are to be
//! deleted too, and never for longer than the setting allows, so that it can't keep a namespace from going.

use crds::{
    FINALIZER, MessagingCluster,
    backends::DeletionPolicy,
    conditions::{ConditionType, Reason},
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;
use std::time::Duration;

use crate::{
    cluster::{
        Context, Error, apply,
        build::Objects,
        fetch, status,
        validate::{self, Cluster},
    },
    engine::Gone,
};

/// The annotation that ends a deletion at once, whatever is left behind.
const FORCE: &str = "messaging.dev/force-delete";
/// Time between looks at a deletion that goes on.
const AGAIN: Duration = Duration::from_secs(2);

/// Whether topics or tables are to be deleted with the cluster.
fn deletes(cluster: &MessagingCluster) -> bool {
    let topics = cluster.spec.kafka.topics.as_ref().and_then(|topics| topics.deletion_policy);
    let tables = cluster.spec.dynamodb.tables.as_ref().and_then(|tables| tables.deletion_policy);
    [topics, tables].contains(&Some(DeletionPolicy::Delete))
}

/// Sets the finalizer while it is needed, and takes it away when it is not.
///
/// # Errors
/// When the API server does not answer.
pub async fn guard(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    context: &Context,
) -> Result<(), Error> {
    let has = cluster.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if has == deletes(cluster) {
        return Ok(());
    }
    let mut finalizers: Vec<String> = cluster.finalizers().to_vec();
    if has {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    } else {
        finalizers.push(FINALIZER.to_owned());
    }
    set(clusters, cluster, &finalizers, context).await
}

async fn set(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    finalizers: &[String],
    context: &Context,
) -> Result<(), Error> {
    context.fence.check()?;
    // With the version that was read: another's finalizer that came meanwhile must not be lost.
    let change = json!({ "metadata": { "finalizers": finalizers, "resourceVersion": cluster.resource_version() } });
    match clusters.patch(&cluster.name_any(), &PatchParams::default(), &Patch::Merge(change)).await {
        Ok(_) => {
            context.metrics.wrote("messagingclusters");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One pass over a cluster that is being deleted.
///
/// # Errors
/// When the API server does not answer, or another leads.
pub async fn delete(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    context: &Context,
) -> Result<Action, Error> {
    let uid = cluster.uid().unwrap_or_default();
    if !cluster.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        context.settled.forget(&uid);
        context.backends.forget(&uid);
        return Ok(Action::await_change());
    }
    if cluster.annotations().get(FORCE).is_some_and(|value| value == "true") {
        return let_go(clusters, cluster, "the annotation messaging.dev/force-delete asks for it", context).await;
    }
    let fetched = fetch::fetch(cluster, context).await?;
    // Pods first: a service whose tables go would fail, and would write into what is to be deleted.
    let gone = apply::apply(&cluster.metadata, &Objects::default(), &fetched.live, context).await?;
    let deployments = fetched.live.iter().any(|(key, _)| crate::kinds::is_deployment(key.kind));
    if gone.written > 0 || deployments {
        return Ok(Action::requeue(AGAIN));
    }
    let blocked = match validate::validate(cluster, &fetched.references, context.defaults()) {
        Ok(wanted) => end(&wanted, context).await,
        Err(invalid) => Some((Reason::BackendUnreachable, invalid.to_string())),
    };
    let Some((reason, message)) = blocked else {
        context.events.normal(cluster, "Delete", "Deleted", "topics and tables are deleted as asked for").await;
        return finish(clusters, cluster, context).await;
    };
    if overdue(cluster, context.settings.deletion_timeout) {
        return let_go(clusters, cluster, &message, context).await;
    }
    let why = vec![
        (
            ConditionType::DeletionBlocked,
            if reason == Reason::NothingBlocks { "False" } else { "True" },
            reason,
            message.clone(),
        ),
        (ConditionType::Ready, "False", Reason::Deleting, message.clone()),
        (ConditionType::Reconciling, "True", Reason::Deleting, message),
    ];
    status::add(clusters, cluster, &why, context).await?;
    Ok(Action::requeue(AGAIN))
}

/// Deletes topics and tables, or says what is in the way (`NothingBlocks` while it goes on).
async fn end(wanted: &Cluster, context: &Context) -> Option<(Reason, String)> {
    let (topics, tables) = context.backends.delete(wanted).await;
    for gone in [topics, tables] {
        match gone {
            Gone::Done(_) => {}
            Gone::Working(message) => return Some((Reason::NothingBlocks, message)),
            Gone::Protected(message) => return Some((Reason::DeletionProtectionEnabled, message)),
            Gone::Blocked(_, message) => return Some((Reason::BackendUnreachable, message)),
        }
    }
    None
}

fn overdue(cluster: &MessagingCluster, limit: Duration) -> bool {
    let Some(since) = &cluster.meta().deletion_timestamp else { return false };
    Timestamp::now().duration_since(since.0).unsigned_abs() > limit
}

/// Gives up what can't be deleted, and says so.
async fn let_go(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    why: &str,
    context: &Context,
) -> Result<Action, Error> {
    let note = format!("topics and tables may be left behind: {why}");
    context.events.warning(cluster, "Delete", "LeftBehind", &note).await;
    tracing::warn!(cluster = cluster.name_any(), "{}: {note}", cluster.name_any());
    finish(clusters, cluster, context).await
}

async fn finish(
    clusters: &Api<MessagingCluster>,
    cluster: &MessagingCluster,
    context: &Context,
) -> Result<Action, Error> {
    let rest: Vec<String> = cluster.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    set(clusters, cluster, &rest, context).await?;
    let uid = cluster.uid().unwrap_or_default();
    context.settled.forget(&uid);
    context.backends.forget(&uid);
    Ok(Action::await_change())
}
