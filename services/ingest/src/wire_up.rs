//! Joins ingest to the store and the log.

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use adapters::{
    dynamodb::{
        self,
        restore::{Progress, Restore},
    },
    kafka,
};
use anyhow::Context as _;
use domain::ports::{
    DeliveryState, EventPublisher, Heads, Incarnations, MembershipDirectory, MessageHistory, MessageLog,
};
use platform::{
    Gate, Process, Secret,
    clock::{SystemClock, SystemIds},
    failpoint,
    grpc::InternalToken,
};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use proto::messaging::v1::ingest_server::IngestServer;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    AfterRestore, Limits, Settings,
    acknowledge::Acknowledge,
    api::Api,
    commit::Committer,
    incarnation::{Left, Tenure},
    metrics::Metrics,
    persist::Persist,
    publish::Publish,
    republish::Republish,
    slots::Slots,
    sync::Sync,
};

/// How often idle chats are looked for, and how often a stopping process looks whether it is done.
const SWEEP: Duration = Duration::from_secs(30);
/// A process that does not look after its lease for so long is stuck.
const LEASE_SILENCE: Duration = Duration::from_mins(1);
/// How often it is looked whether the log is connected.
const LOG_LOOK: Duration = Duration::from_secs(2);
/// How often `ingest after-restore` says how far it is.
const RESTORE_REPORT: Duration = Duration::from_secs(10);
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// A service that runs.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Where it answers gRPC calls.
    pub grpc: SocketAddr,
}

/// What ingest needs from the outside.
pub struct Ports {
    /// Counters and the transaction.
    pub log: Arc<dyn MessageLog>,
    /// Stored messages.
    pub history: Arc<dyn MessageHistory>,
    /// Who is in a chat.
    pub members: Arc<dyn MembershipDirectory>,
    /// Leases.
    pub incarnations: Arc<dyn Incarnations>,
    /// Heads of chats.
    pub heads: Arc<dyn Heads>,
    /// Watermarks.
    pub delivery: Arc<dyn DeliveryState>,
    /// The log.
    pub publisher: Arc<dyn EventPublisher>,
    /// Holes that readers passed over.
    pub holes: Counter,
}

/// Starts the service on the store and the log that the settings name.
///
/// # Errors
/// When the token can't be read, a setting is wrong, or the port is in use.
pub async fn start(settings: Settings, process: &Process) -> anyhow::Result<Running> {
    let file = &settings.internal_token_file;
    let token = tokio::fs::read_to_string(file).await.with_context(|| format!("failed to read {}", file.display()))?;
    let token = InternalToken::new(&Secret::new(token))?;
    let store = dynamodb::Store::for_service(&settings.store, "ingest").await;
    let history = dynamodb::message_history::MessageHistory::new(store.clone());
    let ports = Ports {
        log: Arc::new(dynamodb::message_log::MessageLog::new(store.clone())),
        members: Arc::new(dynamodb::membership_directory::MembershipDirectory::new(store.clone())),
        incarnations: Arc::new(dynamodb::incarnations::Incarnations::new(store.clone())),
        heads: Arc::new(dynamodb::heads::Heads::new(store.clone())),
        delivery: Arc::new(dynamodb::delivery_state::DeliveryState::new(store)),
        publisher: kafka::publisher::Publisher::new(&settings.log, process)?,
        holes: history.holes(),
        history: Arc::new(history),
    };
    let (listener, grpc) = process.bind("--grpc-listen", settings.grpc_listen).await?;
    let api = join(ports, &settings.limits, process);
    let service = IngestServer::with_interceptor(api, token.require());
    process.serve_grpc("ingest grpc", listener, tonic::service::Routes::new(service));
    Ok(Running { grpc })
}

/// Raises the counters of restored tables (D3.9), and says how many.
///
/// # Errors
/// When the store refuses or does not answer, or somebody stores messages meanwhile.
pub async fn after_restore(asked: &AfterRestore) -> anyhow::Result<()> {
    let store = dynamodb::Store::for_service(&asked.store, "ingest").await;
    let restore = Restore { name: &asked.restore, by: asked.raise_by };
    let progress = Progress::default();
    let report = async {
        loop {
            sleep(RESTORE_REPORT).await;
            eprintln!("{} counters raised so far", progress.raised().now);
        }
    };
    let raised = tokio::select! {
        raised = store.raise_counters(restore, &progress, &SystemClock, &SystemIds) => raised?,
        () = report => return Ok(()), // it has no end
    };
    let (now, before) = (raised.now, raised.before);
    writeln!(std::io::stdout(), "{now} counters raised by {}; {before} had been before", asked.raise_by)?;
    Ok(())
}

/// Joins the parts to the ports, and starts their tasks. The process is ready when it has a lease.
pub fn join(ports: Ports, limits: &Limits, process: &Process) -> Api {
    let metrics = process.metrics(|registry| Metrics::register(registry, ports.holes));
    let (slots, abandon) = (Slots::default(), CancellationToken::new());
    let (clock, ids) = (process.clock(), process.ids());
    let tenure = Arc::new(Tenure::new(
        ports.incarnations.clone(),
        clock.clone(),
        ids.clone(),
        slots.clone(),
        limits.clone(),
        metrics.clone(),
    ));
    let publish = Publish::new(
        ports.publisher.clone(),
        ports.history.clone(),
        process,
        limits.clone(),
        metrics.clone(),
        abandon.clone(),
    );
    let committer = Committer {
        log: ports.log.clone(),
        members: ports.members,
        publish: publish.clone(),
        tenure: tenure.clone(),
        slots,
        clock: clock.clone(),
        ids,
        limits: limits.clone(),
        metrics: metrics.clone(),
        calls: Semaphore::new(limits.store_calls as usize),
        abandon: abandon.clone(),
    };
    let persist = Persist::new(committer, process);
    let sync = Arc::new(Sync::new(ports.heads, ports.history, limits.store_timeout));
    let republish = Republish::new(
        ports.incarnations,
        ports.log,
        publish.clone(),
        tenure.clone(),
        process,
        limits.clone(),
        metrics.clone(),
    );

    process.spawn("ingest log", watch_log(ports.publisher.clone(), metrics.log_available.clone(), process.clone()));
    process.spawn(
        "ingest lease",
        hold_lease(
            tenure,
            process.gate("ingest lease"),
            persist.clone(),
            publish,
            limits.drain,
            abandon,
            process.clone(),
        ),
    );
    process.spawn("ingest republish", async move {
        republish.run().await;
        Ok(())
    });
    process.spawn("ingest sweep", sweep(persist.clone(), process.clone()));
    let acknowledge =
        Acknowledge::new(ports.delivery, persist.clone(), sync.clone(), clock, limits.store_timeout, metrics);
    Api { persist, sync, acknowledge, stop: process.stop_token() }
}

/// Keeps the lease until the process stops and all it stored is on the log, or for as long as it may drain.
async fn hold_lease(
    tenure: Arc<Tenure>,
    gate: Gate,
    persist: Arc<Persist>,
    publish: Arc<Publish>,
    drain: Duration,
    abandon: CancellationToken,
    process: Process,
) -> anyhow::Result<()> {
    let drained = async {
        process.stopping().await;
        failpoint::reached("drain");
        let idle = async {
            while !(persist.is_idle() && publish.is_idle()) {
                sleep(DRAIN_CHECK).await;
            }
        };
        timeout(drain, idle).await.is_ok()
    };
    let alive = process.liveness("ingest lease", LEASE_SILENCE);
    let is_drained = tokio::select! {
        is_drained = drained => is_drained,
        () = tenure.keep(&gate, &alive) => false,
    };
    abandon.cancel();
    tenure.end(if is_drained { Left::Nothing } else { Left::Unpublished }).await;
    Ok(())
}

/// Shows whether the log is connected.
async fn watch_log(publisher: Arc<dyn EventPublisher>, is_available: Gauge, process: Process) -> anyhow::Result<()> {
    loop {
        is_available.set(i64::from(publisher.is_connected()));
        tokio::select! {
            () = sleep(LOG_LOOK) => {}
            () = process.stopping() => return Ok(()),
        }
    }
}

async fn sweep(persist: Arc<Persist>, process: Process) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = sleep(SWEEP) => persist.forget_idle(),
            () = process.stopping() => return Ok(()),
        }
    }
}
