//! One cluster from what a team asks for to what runs: fetch, validate, build, apply, status.

pub mod apply;
pub mod build;
pub mod delete;
pub mod fetch;
pub mod plan;
pub mod rollout;
pub mod status;
pub mod validate;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::MessagingCluster;
use kube::{Api, Resource as _, ResourceExt as _, runtime::controller::Action};
use tokio::time::Instant;

use crate::{
    backends::{Backends, Reports},
    client::Clients,
    config::Settings,
    engine::Act,
    events::Events,
    kinds,
    lease::{Fence, NotLeader},
    metrics::{Metrics, Outcome},
    watch::Read,
};

use apply::{Applied, Cause, Settled};
use validate::{Cluster, Defaults, Invalid, Kinds};

/// First wait after a failure; it doubles with each.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const RETRY_CAP: Duration = Duration::from_mins(5);
/// Wait while something goes on that no watch tells of.
const SOON: Duration = Duration::from_secs(5);
/// How long it is remembered which optional kinds the API server knows.
const KINDS_KNOWN: Duration = Duration::from_mins(1);
/// The annotation that pauses a cluster, with any value but `false`.
const PAUSE: &str = "messaging.dev/pause";

/// What every pass needs.
pub struct Context {
    /// Clients of the API server.
    pub clients: Clients,
    /// The operator's settings.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether this process may write.
    pub fence: Fence,
    /// What was written.
    pub settled: Settled,
    /// Where events go.
    pub events: Events,
    /// Topics and tables.
    pub backends: Backends,
    defaults: Defaults,
    known: Mutex<Option<(Kinds, Instant)>>,
    /// Failures in a row, by namespace and name.
    failures: Mutex<HashMap<String, u32>>,
}

/// A pass that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer, or refused.
    #[error("the API server: {0}")]
    Api(#[from] Box<kube::Error>),
    /// Another operator leads.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// It took too long.
    #[error("the pass took longer than {0:?}")]
    Timeout(Duration),
    /// Objects could not be written; the status says which.
    #[error("{0}")]
    NotWritten(String),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl Context {
    /// What every pass needs, from the settings.
    pub fn new(settings: Settings, clients: Clients, metrics: Arc<Metrics>, fence: Fence) -> Self {
        let defaults = Defaults {
            image_registry: settings.image_registry.clone(),
            operator_version: env!("CARGO_PKG_VERSION").to_owned(),
            dns_domain: settings.cluster_domain.clone(),
        };
        Self {
            settled: Settled::default(),
            events: Events::new(clients.objects.clone(), &settings.pod_name),
            backends: Backends::new(clients.objects.clone(), metrics.clone(), fence.clone(), &settings),
            known: Mutex::default(),
            failures: Mutex::default(),
            clients,
            settings,
            metrics,
            fence,
            defaults,
        }
    }

    /// What the operator says where a spec says nothing.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Which optional kinds the API server knows.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn known(&self) -> Result<Kinds, Error> {
        if let Some((kinds, at)) = *lock(&self.known)
            && at.elapsed() < KINDS_KNOWN
        {
            return Ok(kinds);
        }
        let kinds = kinds::ask(&self.clients.objects).await?;
        *lock(&self.known) = Some((kinds, Instant::now()));
        Ok(kinds)
    }
}

/// One pass over a cluster, and when to look again.
///
/// # Errors
/// When it did not come to its end; [`retry`] says when to try again.
pub async fn reconcile(read: Arc<Read>, context: Arc<Context>) -> Result<Action, Error> {
    let begun = Instant::now();
    let (namespace, name) = (read.namespace().unwrap_or_default(), read.name_any());
    let limit = context.settings.reconcile_timeout;
    let ended = match tokio::time::timeout(limit, Box::pin(pass(&namespace, &name, &context))).await {
        Ok(ended) => ended,
        Err(_) => Err(Error::Timeout(limit)),
    };
    let outcome = match &ended {
        Ok(_) => {
            lock(&context.failures).remove(&format!("{namespace}/{name}"));
            context.metrics.succeeded(&namespace, &name);
            Outcome::Success
        }
        Err(_) => Outcome::Error,
    };
    context.metrics.pass(outcome, begun.elapsed());
    ended
}

/// When to try again what failed: later after each failure in a row.
#[expect(clippy::needless_pass_by_value, reason = "the controller passes what it has")]
pub fn retry(read: Arc<Read>, error: &Error, context: Arc<Context>) -> Action {
    let key = format!("{}/{}", read.namespace().unwrap_or_default(), read.name_any());
    let times = {
        let mut failures = lock(&context.failures);
        let times = failures.entry(key.clone()).or_default();
        *times = times.saturating_add(1);
        *times
    };
    let wait = RETRY.saturating_mul(1 << times.saturating_sub(1).min(16)).min(RETRY_CAP);
    tracing::warn!(cluster = key, %error, "a pass over {key} failed, the next one is in {wait:?}: {error}");
    Action::requeue(wait)
}

/// The pass: five calls.
async fn pass(namespace: &str, name: &str, context: &Context) -> Result<Action, Error> {
    let clusters: Api<MessagingCluster> = Api::namespaced(context.clients.objects.clone(), namespace);
    // From the API server itself: what a watch told may be old, and what is written here must not be.
    let Some(cluster) = read(&clusters, name).await? else { return Ok(Action::await_change()) };
    if cluster.meta().deletion_timestamp.is_some() {
        return delete::delete(&clusters, &cluster, context).await;
    }
    status::begin(&clusters, &cluster, context).await?;
    delete::guard(&clusters, &cluster, context).await?;

    let fetched = fetch::fetch(&cluster, context).await?;
    let wanted = validate::validate(&cluster, &fetched.references, &context.defaults);
    let mut done = match &wanted {
        Ok(wanted) => {
            let objects = build::build(wanted);
            match mode(&cluster, wanted) {
                Mode::Apply => Box::pin(act(&cluster, wanted, &objects, &fetched, context)).await?,
                Mode::Plan => plan::plan(&cluster, wanted, &objects, &fetched, context).await?,
                Mode::Paused(why) => Done { paused: Some(why), ..look(&cluster, &fetched, context).await },
            }
        }
        Err(_) => look(&cluster, &fetched, context).await,
    };
    done.images = images(&cluster, &done.applied, context).await?;
    let written = status::write(&clusters, &cluster, status::Seen::new(&wanted, &fetched, &done), context).await?;
    next(&wanted, &done, written.is_ready, context)
}

async fn read(clusters: &Api<MessagingCluster>, name: &str) -> Result<Option<MessagingCluster>, Error> {
    match clusters.get_opt(name).await {
        Ok(cluster) => Ok(cluster),
        Err(kube::Error::SerdeError(error)) => Err(Error::NotWritten(format!(
            "the MessagingCluster can't be read by this version of the operator: {error}"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// What a pass did and saw.
#[derive(Debug, Default)]
pub struct Done {
    /// The objects.
    pub applied: Applied,
    /// Topics and tables.
    pub reports: Reports,
    /// What would change, in plan mode.
    pub plan: Option<crds::status::Plan>,
    /// Why nothing was changed, when paused.
    pub paused: Option<crds::conditions::Reason>,
    /// Why pods have no image, by service.
    pub images: HashMap<validate::Service, String>,
}

enum Mode {
    Apply,
    Plan,
    Paused(crds::conditions::Reason),
}

fn mode(cluster: &MessagingCluster, wanted: &Cluster) -> Mode {
    use crds::conditions::Reason;
    if cluster.annotations().get(PAUSE).is_some_and(|value| value != "false") {
        Mode::Paused(Reason::PausedByAnnotation)
    } else if wanted.is_paused {
        Mode::Paused(Reason::PausedBySpec)
    } else {
        match wanted.mode {
            crds::messaging_cluster::Mode::Apply => Mode::Apply,
            crds::messaging_cluster::Mode::Plan => Mode::Plan,
        }
    }
}

/// Applies the objects, and brings topics and tables in sync meanwhile: services wait for them by themselves.
async fn act(
    cluster: &MessagingCluster,
    wanted: &Cluster,
    objects: &build::Objects,
    fetched: &fetch::Fetched,
    context: &Context,
) -> Result<Done, Error> {
    let (applied, reports) = tokio::join!(
        apply::apply(&cluster.metadata, objects, &fetched.live, context),
        context.backends.sync(wanted, Act::Apply),
    );
    Ok(Done { applied: applied?, reports, ..Done::default() })
}

/// Changes nothing.
async fn look(cluster: &MessagingCluster, fetched: &fetch::Fetched, context: &Context) -> Done {
    let reports = context.backends.last(&cluster.uid().unwrap_or_default()).await;
    Done { applied: apply::observe(&cluster.name_any(), &fetched.live), reports, ..Done::default() }
}

/// Why pods of services that are not ready have no image.
async fn images(
    cluster: &MessagingCluster,
    applied: &Applied,
    context: &Context,
) -> Result<HashMap<validate::Service, String>, Error> {
    let mut found = HashMap::new();
    for (service, deployment) in &applied.deployments {
        let counts = rollout::counts(deployment);
        if counts.available >= counts.desired && counts.updated >= counts.desired {
            continue;
        }
        if let Some(trouble) = fetch::image_trouble(cluster, *service, context).await? {
            found.insert(*service, trouble);
        }
    }
    Ok(found)
}

/// When to look again.
fn next(wanted: &Result<Cluster, Invalid>, done: &Done, is_ready: bool, context: &Context) -> Result<Action, Error> {
    if let Some(failure) = done.applied.failures.iter().find(|failure| failure.cause == Cause::Failed) {
        return Err(Error::NotWritten(format!("{}: {}", failure.object, failure.message)));
    }
    let mut wait = context.settings.resync;
    if done.applied.failures.iter().any(|failure| failure.cause == Cause::Leaving) || (wanted.is_ok() && !is_ready) {
        wait = wait.min(SOON);
    }
    Ok(Action::requeue(done.reports.next().map_or(wait, |next| wait.min(next))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
