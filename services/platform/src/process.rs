//! A process from start to stop: it parses its settings, owns every task, says when it is ready, and drains.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use axum::Router;
use domain::{Clock, Ids};
use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accept, admin,
    clock::{SystemClock, SystemIds},
    config::Settings,
    failpoint, telemetry,
};

/// How often a silent caller is asked whether it is there, and how long it may take to say so: one that vanished without
/// a word must not hold its connection for ever.
const PEER_PING_EVERY: Duration = Duration::from_secs(20);
const PEER_PING_WITHIN: Duration = Duration::from_secs(10);

/// Runs a binary: parses its settings, starts it, waits for a signal or a failure, and stops it.
///
/// What `start` returns is kept until every task has ended, and dropped then.
pub async fn run<C, T, F, Fut>(name: &'static str, start: F) -> ExitCode
where
    C: Settings,
    F: FnOnce(C, Process) -> Fut,
    Fut: Future<Output = anyhow::Result<T>>,
{
    let config = C::parse();
    choose_cryptography();
    let platform = config.platform().clone();
    let traces = match telemetry::start(name, &platform) {
        Ok(traces) => traces,
        Err(error) => return refuse(name, &error),
    };
    failpoint::arm();
    let process = Process::new();
    let all = process.gate("start");
    let listening = process.bind("--admin-listen", platform.admin_listen).await;
    let (mut interrupt, mut terminate) = match signals() {
        Ok(signals) => signals,
        Err(error) => return refuse(name, &error),
    };
    match listening {
        Ok((listener, _)) => process.serve_http("admin", listener, admin::router(process.clone())),
        Err(error) => return refuse(name, &error),
    }
    let kept = tokio::select! {
        started = start(config, process.clone()) => match started {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(
                    event = "process.start_failed",
                    error.message = %format_args!("{error:#}"),
                    "{name} did not start"
                );
                process.stop(&platform).await;
                return ExitCode::FAILURE;
            }
        },
        _ = interrupt.recv() => return ExitCode::FAILURE,
        _ = terminate.recv() => return ExitCode::FAILURE,
    };
    all.open();
    tracing::info!(event = "process.started", "{name} started");

    tokio::select! {
        () = process.stopping() => {}
        _ = interrupt.recv() => process.unready(),
        _ = terminate.recv() => {
            process.unready();
            // Routes to this process vanish a moment after it says that it is not ready: serve until then.
            tokio::select! {
                () = tokio::time::sleep(platform.drain_delay) => {}
                _ = terminate.recv() => {}
            }
        }
    }
    tracing::info!(event = "process.stopping", "{name} is stopping");
    tokio::select! {
        () = process.stop(&platform) => {}
        _ = interrupt.recv() => tracing::warn!(event = "process.killed", "stopped at once by a second signal"),
    }
    drop(kept);
    traces.flush().await;
    // Not by returning: the runtime would wait for calls into a library that nobody waits for any more, such as a commit
    // of offsets to a log that is silent.
    std::process::exit(i32::from(process.has_failed()))
}

/// Several of our crates speak TLS; without a choice of ours they could not agree on who encrypts. For the start of a
/// binary that [`run`] does not run.
pub fn choose_cryptography() {
    // An error says that it was chosen before.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

fn refuse(name: &str, error: &anyhow::Error) -> ExitCode {
    // Logging may not run yet, and a setting is wrong: one line for whoever started it.
    eprintln!("{name} did not start: {error:#}");
    ExitCode::FAILURE
}

fn signals() -> anyhow::Result<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)> {
    let interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    Ok((interrupt, terminate))
}

/// A running process: its tasks, its readiness, its metrics, its clock.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Cancelled when `tasks` have ended: for what the others need to the end.
    stop_last: CancellationToken,
    last_tasks: TaskTracker,
    failed: AtomicBool,
    gates: watch::Sender<BTreeMap<&'static str, State>>,
    beats: Mutex<Vec<Arc<Beats>>>,
    registry: Mutex<Registry>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
}

/// Whether a gate is open.
enum State {
    Open,
    Closed { why: Option<String> },
}

impl State {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}

/// One thing that must be there before the process is ready, and while it is.
#[derive(Clone)]
pub struct Gate {
    process: Process,
    name: &'static str,
}

impl Gate {
    /// It is there.
    pub fn open(&self) {
        self.set(State::Open);
    }

    /// It is gone: the process is not ready.
    pub fn close(&self) {
        self.set(State::Closed { why: None });
    }

    /// It is gone for that reason, which the readiness page shows.
    pub fn close_for(&self, why: impl Into<String>) {
        self.set(State::Closed { why: Some(why.into()) });
    }

    fn set(&self, state: State) {
        self.process.0.gates.send_modify(|gates| {
            gates.insert(self.name, state);
        });
    }
}

/// A loop that has to go on: when it is silent for too long, the process should be replaced.
#[derive(Clone)]
pub struct Liveness(Arc<Beats>);

struct Beats {
    name: &'static str,
    max_silence: Duration,
    last: Mutex<Instant>,
}

impl Liveness {
    /// The loop goes on.
    pub fn beat(&self) {
        *lock(&self.0.last) = Instant::now();
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    /// A process on the machine's clock and randomness.
    pub fn new() -> Self {
        Self::with(Arc::new(SystemClock), Arc::new(SystemIds))
    }

    /// A process on another clock or randomness, for tests.
    pub fn with(clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self(Arc::new(Inner {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            stop_last: CancellationToken::new(),
            last_tasks: TaskTracker::new(),
            failed: AtomicBool::new(false),
            gates: watch::Sender::new(BTreeMap::new()),
            beats: Mutex::default(),
            registry: Mutex::new(Registry::default()),
            clock,
            ids,
        }))
    }

    /// The clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock.clone()
    }

    /// The source of ids and randomness.
    pub fn ids(&self) -> Arc<dyn Ids> {
        self.0.ids.clone()
    }

    /// Starts a task that the process can't do without: when it fails or panics, the process stops.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        drop(self.spawn_child(self.clone().watched(name, task)));
    }

    /// The same for a task that other tasks need until they have ended. It gets a token that is
    /// cancelled then, and must end soon after.
    #[expect(clippy::disallowed_methods, reason = "this is where tasks come to belong to a process")]
    pub fn spawn_last<Fut>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> Fut)
    where
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = task(self.0.stop_last.clone());
        drop(tokio::spawn(self.0.last_tasks.track_future(self.clone().watched(name, task))));
    }

    async fn watched(self, name: &'static str, task: impl Future<Output = anyhow::Result<()>>) {
        let failure = match AssertUnwindSafe(task).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it panicked".to_owned(),
        };
        tracing::error!(
            event = "task.failed",
            task = name,
            error.message = %failure,
            "task {name} failed, so the process stops"
        );
        self.0.failed.store(true, Ordering::Relaxed);
        self.0.stop.cancel();
    }

    /// Starts a task that ends by itself, such as one connection; the process waits for it when it stops.
    #[expect(clippy::disallowed_methods, reason = "this is where tasks come to belong to a process")]
    pub fn spawn_child<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(self.0.tasks.track_future(task))
    }

    /// Resolves when the process is to stop: finish what has begun, take on nothing new.
    pub async fn stopping(&self) {
        self.0.stop.cancelled().await;
    }

    /// The same as a token.
    pub fn stop_token(&self) -> CancellationToken {
        self.0.stop.clone()
    }

    /// A condition of readiness, closed until it is opened.
    pub fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate { process: self.clone(), name };
        gate.close();
        gate
    }

    /// What readiness waits for; empty when the process is ready.
    pub fn not_ready(&self) -> Vec<&'static str> {
        self.0.gates.borrow().iter().filter(|(_, state)| !state.is_open()).map(|(name, _)| *name).collect()
    }

    /// The same for people: each with its reason, where one is known.
    pub fn why_not_ready(&self) -> Vec<String> {
        let gates = self.0.gates.borrow();
        let closed = gates.iter().filter_map(|(name, state)| match state {
            State::Open => None,
            State::Closed { why: None } => Some((*name).to_owned()),
            State::Closed { why: Some(why) } => Some(format!("{name} ({why})")),
        });
        closed.collect()
    }

    /// A loop that must beat at least once in `max_silence`, from now on, as long as the process runs.
    pub fn liveness(&self, name: &'static str, max_silence: Duration) -> Liveness {
        let beats = Arc::new(Beats { name, max_silence, last: Mutex::new(Instant::now()) });
        lock(&self.0.beats).push(beats.clone());
        Liveness(beats)
    }

    /// The loops that are silent for too long; none once the process is stopping, when loops end.
    pub fn stuck(&self) -> Vec<&'static str> {
        if self.0.stop.is_cancelled() {
            return Vec::new();
        }
        let beats = lock(&self.0.beats);
        beats.iter().filter(|beats| lock(&beats.last).elapsed() > beats.max_silence).map(|beats| beats.name).collect()
    }

    /// Resolves when the process is ready.
    pub async fn ready(&self) {
        let mut gates = self.0.gates.subscribe();
        // It can't fail: the process, which sends, is alive while this is borrowed from it.
        drop(gates.wait_for(|gates| gates.values().all(State::is_open)).await);
    }

    /// Registers metrics.
    pub fn metrics<M>(&self, register: impl FnOnce(&mut Registry) -> M) -> M {
        register(&mut lock(&self.0.registry))
    }

    /// All metrics in the text format.
    pub fn metrics_text(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &lock(&self.0.registry)) {
            Ok(()) => text,
            Err(_) => String::new(), // writing into a String cannot fail
        }
    }

    /// Listens on the address that a setting names, and says which it became.
    ///
    /// # Errors
    /// With the setting's name, when the port is in use or the address is not ours.
    pub async fn bind(&self, setting: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("failed to listen on {setting} {address}"))?;
        let bound = listener.local_addr().with_context(|| format!("failed to listen on {setting} {address}"))?;
        tracing::info!(event = "process.listening", setting, address = %bound, "listening on {bound} for {setting}");
        Ok((listener, bound))
    }

    /// Serves HTTP until the process stops, then finishes the requests in flight.
    pub fn serve_http(&self, name: &'static str, listener: TcpListener, router: Router) {
        let stop = self.0.stop.clone();
        self.spawn(name, async move {
            crate::http::serve(name, listener, router, stop, crate::http::Bounds::default()).await;
            Ok(())
        });
    }

    /// Serves gRPC until the process stops, then finishes the calls in flight.
    pub fn serve_grpc(&self, name: &'static str, listener: TcpListener, services: tonic::service::Routes) {
        let stop = self.0.stop.clone();
        self.spawn(name, async move {
            let mut server = tonic::transport::Server::builder()
                .http2_keepalive_interval(Some(PEER_PING_EVERY))
                .http2_keepalive_timeout(Some(PEER_PING_WITHIN));
            let incoming = accept::connections(name, listener);
            server.add_routes(services).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
            Ok(())
        });
    }

    /// Says that the process is not ready, so that nothing new is sent to it.
    fn unready(&self) {
        self.gate("stopping");
    }

    async fn stop(&self, config: &crate::Config) {
        if tokio::time::timeout(config.stop_timeout, self.shut_down()).await.is_err() {
            let left = self.0.tasks.len() + self.0.last_tasks.len();
            tracing::warn!(event = "process.tasks_left", "{left} tasks did not end within {:?}", config.stop_timeout);
        }
    }

    /// Ends every task, as `run` does at a signal.
    pub async fn shut_down(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.stop_last.cancel();
        self.0.last_tasks.close();
        self.0.last_tasks.wait().await;
    }

    fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed)
    }
}

/// A poisoned lock means that a task panicked while it held plain data: the data are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_ready_when_every_gate_is_open() {
        let process = Process::new();
        let (store, log) = (process.gate("store"), process.gate("log"));
        assert_eq!(process.not_ready(), ["log", "store"]);
        store.open();
        log.open();
        assert!(process.not_ready().is_empty());
        process.ready().await;
        log.close();
        assert_eq!(process.not_ready(), ["log"]);
        log.close_for("no brokers");
        assert_eq!(process.why_not_ready(), ["log (no brokers)"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_beating_is_named_until_it_goes_on() {
        let process = Process::new();
        let beating = process.liveness("consume", Duration::from_secs(10));
        let _idle = process.liveness("announce", Duration::from_mins(1));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(process.stuck().is_empty());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(process.stuck(), ["consume"]);
        beating.beat();
        assert!(process.stuck().is_empty());
        tokio::time::advance(Duration::from_mins(2)).await;
        assert_eq!(process.stuck(), ["consume", "announce"]);
        process.shut_down().await;
        assert!(process.stuck().is_empty(), "a stopping process is left to end");
    }

    #[tokio::test]
    async fn a_failing_or_panicking_task_stops_the_process() {
        for panics in [false, true] {
            let process = Process::new();
            process.spawn("doomed", async move {
                assert!(!panics, "told to");
                anyhow::bail!("told to")
            });
            process.stopping().await;
            assert!(process.has_failed());
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_setting() {
        let process = Process::new();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (_held, taken) = process.bind("--listen", free).await.expect("a free port");
        let error = process.bind("--listen", taken).await.expect_err("in use");
        let line = format!("{error:#}");
        assert!(line.contains("--listen") && line.contains(&taken.to_string()), "{line}");
    }
}
