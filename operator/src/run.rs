//! Who wakes whom: the lease, the watches, the passes over clusters, and what `/livez` hears of them.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use kube::{
    Resource as _,
    core::DynamicObject,
    runtime::{
        Config as ControllerConfig, applier,
        reflector::{self, ObjectRef},
    },
};
use platform::{Liveness, Process};
use tokio::sync::watch as signal;

use crate::{
    client::Clients,
    cluster::{self, Context},
    config::Config,
    crd,
    kinds::{self, Kind},
    lease::{Election, Fence},
    metrics::Metrics,
    watch::{self, Scope, Wakes},
};

/// How long a watch may be silent before `/livez` fails; each begins anew every minute.
const WATCH_SILENCE: Duration = Duration::from_mins(10);
/// How long the loop of passes may be silent.
const LOOP_SILENCE: Duration = Duration::from_mins(5);
/// Time between beats of the loop of passes.
const BEAT: Duration = Duration::from_secs(10);
/// Time between looks for kinds that somebody may install later.
const PROBE: Duration = Duration::from_mins(10);

/// Starts the operator. It is ready when it has reached the API server, whether or not it leads.
///
/// # Errors
/// When there is no API server to be found, or its certificates can't be used.
pub async fn start(config: Config, process: Process) -> anyhow::Result<()> {
    let metrics = Arc::new(process.metrics(|registry| Metrics::new(registry, process.clock())));
    let clients = Clients::connect(&metrics).await?;
    start_with(&config, &process, &clients, &metrics);
    Ok(())
}

/// The same with clients of the caller's. What fails later stops the process.
pub fn start_with(config: &Config, process: &Process, clients: &Clients, metrics: &Arc<Metrics>) {
    let settings = config.settings.clone();
    let fence = Fence::new();
    let holder = format!("{}_{}", settings.pod_name, process.ids().ulid());
    let mut election =
        Election::new(clients.lease.clone(), &settings.pod_namespace, &settings.lease_name, holder, fence.clone());
    let (elected, mut leads) = signal::channel(false);
    let context = Arc::new(Context::new(settings.clone(), clients.clone(), metrics.clone(), fence));

    let gate = process.gate("api server");
    process.spawn("definition", crd::follow(clients.objects.clone(), metrics.clone(), gate, process.stop_token()));

    let stopping = process.stop_token();
    let counted = metrics.clone();
    let lease = settings.lease_name.clone();
    // Other tasks write until they have ended, so the lease is given back after them.
    process.spawn_last("lease", |ended| async move {
        if !election.acquire(&stopping).await {
            return Ok(());
        }
        tracing::info!("this operator leads");
        counted.leads(&lease, true);
        elected.send_replace(true);
        let kept = election.keep(&ended).await;
        counted.leads(&lease, false);
        kept.context("the lease was lost")
    });

    let starter = process.clone();
    process.spawn("start of passes", async move {
        let stop = starter.stop_token();
        let elected = tokio::select! {
            elected = leads.wait_for(|leads| *leads) => elected.is_ok(),
            () = stop.cancelled() => false,
        };
        if elected {
            for scope in scopes(&settings.watch_namespaces) {
                lane(&starter, &context, &scope);
            }
        }
        Ok(())
    });
}

fn scopes(namespaces: &[String]) -> Vec<Scope> {
    let named: Vec<Scope> =
        namespaces.iter().filter(|name| !name.is_empty()).map(|name| Scope::Namespace(name.clone())).collect();
    if named.is_empty() { vec![Scope::All] } else { named }
}

/// Watches and passes of one scope.
fn lane(process: &Process, context: &Arc<Context>, scope: &Scope) {
    let (wakes, woken) = Wakes::new(context.metrics.clone());
    let (store, writer) = reflector::store();
    let client = context.clients.objects.clone();
    let stop = process.stop_token();

    let path = crds::MessagingCluster::url_path(&(), scope.namespace());
    context.metrics.expect_watch(path, process.liveness("watch of messagingclusters", WATCH_SILENCE));
    let followed = watch::clusters(client, scope.clone(), writer, store.clone(), wakes.clone());
    let until = stop.clone();
    process.spawn("watch of messagingclusters", async move {
        until.run_until_cancelled(Box::pin(followed)).await;
        Ok(())
    });
    for kind in kinds::built_in() {
        let path = DynamicObject::url_path(&kind.resource, scope.namespace());
        context.metrics.expect_watch(path, process.liveness(kind.plural, WATCH_SILENCE));
        follow(process, context, scope, kind, &wakes);
    }
    process.spawn("watch of optional kinds", optional(process.clone(), context.clone(), scope.clone(), wakes));

    let loops = process.liveness("passes", LOOP_SILENCE);
    let metrics = context.metrics.clone();
    let queue = stream::unfold((woken, metrics), |(mut woken, metrics)| async move {
        let next: ObjectRef<watch::Read> = woken.recv().await?;
        metrics.depth(woken.len());
        Some((Ok::<_, std::convert::Infallible>(next), (woken, metrics)))
    });
    let config = ControllerConfig::default().concurrency(context.settings.concurrency);
    let passes = applier(
        |cluster, context| Box::pin(cluster::reconcile(cluster, context)),
        cluster::retry,
        context.clone(),
        store,
        queue.take_until(stop.cancelled_owned()),
        config,
    );
    process.spawn("passes", beat(passes, loops));
}

/// Polls passes to their end, and beats while they can be polled.
async fn beat(passes: impl futures_util::Stream + Send, liveness: Liveness) -> anyhow::Result<()> {
    let mut passes = std::pin::pin!(passes);
    let mut ticks = tokio::time::interval(BEAT);
    loop {
        tokio::select! {
            pass = passes.next() => if pass.is_none() { return Ok(()) },
            _ = ticks.tick() => {}
        }
        liveness.beat();
    }
}

fn follow(process: &Process, context: &Arc<Context>, scope: &Scope, kind: &'static Kind, wakes: &Wakes) {
    let name = kind.plural;
    let followed = watch::children(context.clients.objects.clone(), scope.clone(), kind, wakes.clone());
    let stop = process.stop_token();
    process.spawn(name, async move {
        stop.run_until_cancelled(Box::pin(followed)).await;
        Ok(())
    });
}

/// Watches the kinds that not every API server knows, from when it knows them.
async fn optional(process: Process, context: Arc<Context>, scope: Scope, wakes: Wakes) -> anyhow::Result<()> {
    let mut missing: Vec<&'static Kind> = kinds::optional().collect();
    let stop = process.stop_token();
    loop {
        let mut still = Vec::new();
        for kind in missing {
            match kinds::is_known(&context.clients.objects, kind).await {
                Ok(true) => follow(&process, &context, &scope, kind, &wakes),
                Ok(false) => still.push(kind),
                Err(error) => {
                    tracing::warn!(%error, "the API server did not say whether it knows {}: {error}", kind.plural);
                    still.push(kind);
                }
            }
        }
        missing = still;
        if missing.is_empty() || stop.run_until_cancelled(tokio::time::sleep(PROBE)).await.is_none() {
            return Ok(());
        }
    }
}
