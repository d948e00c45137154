//! One run: the system starts, people write, something breaks, it heals, all is read again, and the checker judges.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::{
    sync::{Mutex, OnceCell},
    time::{Instant, sleep},
};

use super::{
    load::{Load, People, phone},
    random::Random,
    repeat::{Texts, Visitor},
    rig::{Extra, Rig},
    row::Row,
    truth,
};
use crate::{
    client::Client,
    history::{
        checker::{self, Report},
        line::{Kind, Line, Run, What},
        recorder::Recorder,
    },
    world::ground::{OwnGround, Systems},
};

const WARM_UP: Duration = Duration::from_millis(1500);
const COOL_DOWN: Duration = Duration::from_millis(1500);
const ANSWERED_WITHIN: Duration = Duration::from_mins(1);
const SEEN_WITHIN: Duration = Duration::from_secs(50);
const LAG_WITHIN: Duration = Duration::from_secs(40);
/// Old messages that a person sends again at the end.
const REPEATED: usize = 10;

/// How often each thing was done to the system; a run in which something was not done has shown nothing.
pub type Evidence = Vec<(&'static str, u64)>;

/// What a row's fault works on.
pub struct Scene {
    /// The system.
    pub rig: Rig,
    /// Who uses it.
    pub people: People,
    /// What they say, until they are silent.
    pub load: Option<Load>,
    /// Its history.
    pub recorder: Recorder,
    /// The seed's numbers.
    pub random: Random,
    /// The systems below, which may be killed.
    pub own: Arc<OwnGround>,
}

/// What the services run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// Apache Kafka, DynamoDB Local and Redis.
    #[default]
    Real,
    /// The embedded store and log, and Redis.
    Embedded,
}

/// What a run has shown.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The row's name.
    pub row: &'static str,
    /// Its seed.
    pub seed: u64,
    /// Over what.
    pub on: On,
    /// Which broken build, if any.
    pub broken: Option<String>,
    /// What was done.
    pub evidence: BTreeMap<&'static str, u64>,
    /// What the checker says.
    pub report: Report,
    /// Where the history is.
    pub history: PathBuf,
    /// How long all of it took, in seconds.
    pub seconds: u64,
}

static GROUND: OnceCell<Arc<OwnGround>> = OnceCell::const_new();
/// The same with three brokers.
static BROKERS: OnceCell<Arc<OwnGround>> = OnceCell::const_new();
/// One run at a time: each takes the whole machine, and some kill the systems below.
static ONE: Mutex<()> = Mutex::const_new(());

impl Scene {
    /// Lets nobody begin another message, and waits until each has its answer.
    ///
    /// # Errors
    /// When one has none in time.
    pub async fn hush(&mut self) -> anyhow::Result<()> {
        if let Some(load) = self.load.take() {
            load.stop(ANSWERED_WITHIN).await?;
        }
        Ok(())
    }

    /// A fault begins.
    pub fn begins(&self, name: &str) {
        self.fault(name, Kind::Invoke);
    }

    /// It has ended: from now on the promises about time hold.
    pub fn ends(&self, name: &str) {
        self.fault(name, Kind::Ok);
    }

    fn fault(&self, name: &str, kind: Kind) {
        self.recorder.write(Line { what: What::Fault, kind, error: Some(name.to_owned()), ..Line::default() });
    }
}

/// Runs a row with a seed; the history and the outcome go to that folder.
///
/// # Errors
/// When the system does not start, nobody answers, the fault did not happen, or what is there can't be read. What the
/// checker says is no error.
pub async fn run(row: Row, on: On, seed: u64, into: &Path) -> anyhow::Result<Outcome> {
    run_with(row, on, seed, into, None).await
}

/// Starts the systems of a run, or finds those of the runs before it.
async fn systems(row: Row, on: On, cluster: &str) -> anyhow::Result<Arc<OwnGround>> {
    // In memory, for no row kills the store, and a busy disk is a fault of its own.
    let start =
        |brokers| async move { OwnGround::start_with(Systems::Real { brokers, tables: "memory" }).await.map(Arc::new) };
    anyhow::ensure!(row.runs_on(on), "{} can't be done there", row.name());
    match (on, row) {
        // Its topics are made when it starts.
        (On::Embedded, _) => OwnGround::start_with(Systems::Embedded { cluster }).await.map(Arc::new),
        (On::Real, Row::BrokerKilled) => BROKERS.get_or_try_init(|| start(3)).await.cloned(),
        (On::Real, _) => GROUND.get_or_try_init(|| start(1)).await.cloned(),
    }
}

/// The same with services that are broken on purpose.
///
/// # Errors
/// See [`run`].
pub async fn run_with(row: Row, on: On, seed: u64, into: &Path, broken: Option<&str>) -> anyhow::Result<Outcome> {
    let _one = ONE.lock().await;
    let begun = Instant::now();
    std::fs::create_dir_all(into)?;
    let name = match (broken, on) {
        (Some(broken), _) => format!("broken-{broken}"),
        (None, On::Real) => row.name().to_owned(),
        (None, On::Embedded) => format!("{}-embedded", row.name()),
    };
    let cluster = format!("{}{}", name.replace(['-', '_'], ""), unique());
    let own = systems(row, on, &cluster).await?;
    let history = into.join(format!("{name}-{seed}.jsonl"));
    let promised = Run { row: name.clone(), seed, ..row.promise() };
    let recorder = Recorder::create(&history, promised)?;
    let mut random = Random::new(seed);
    let mut extra: Extra = row.extra(&mut random);
    if let Some(broken) = broken {
        let services = ["gateway", "ingest", "fanout", "chatmgmt"];
        extra.extend(services.map(|service| (service, "BROKEN", broken.to_owned())));
    }
    let rig = Rig::start(&own, &cluster, &extra, &mut random).await?;
    let people = People::meet(&rig, &recorder, &mut random).await?;
    let mut scene = Scene { rig, people, load: None, recorder, random, own };
    let done = Box::pin(play(row, &mut scene)).await;
    if done.is_err() {
        keep_logs(&scene.rig, &history);
    }
    let evidence = done.with_context(|| format!("{name}, seed {seed}, history in {}", history.display()))?;
    for (what, count) in &evidence {
        anyhow::ensure!(*count > 0, "{name}, seed {seed}: {what} did not happen, so this run shows nothing");
    }
    anyhow::ensure!(!evidence.is_empty(), "{name} says nothing of what it did");
    let report = checker::check(&scene.recorder.lines()?);
    keep_logs(&scene.rig, &history);
    scene.people.leave().await;
    let evidence = evidence.into_iter().collect();
    let seconds = begun.elapsed().as_secs();
    let outcome =
        Outcome { row: row.name(), seed, on, broken: broken.map(str::to_owned), evidence, report, history, seconds };
    let file = into.join(format!("{name}-{seed}.json"));
    std::fs::write(file, serde_json::to_string_pretty(&outcome)?)?;
    Ok(outcome)
}

/// Everything between the start of the load and the last line of the history.
async fn play(row: Row, scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.rig.measure(&scene.recorder);
    scene.load = Some(scene.people.talk(&mut scene.random));
    sleep(WARM_UP).await;
    let mut evidence = Box::pin(row.inject(scene)).await?;
    scene.rig.repair().await?;
    sleep(COOL_DOWN).await;
    scene.hush().await?;
    let heads = truth::heads(&scene.rig.store, &scene.rig.tables).await?;
    scene.people.caught_up(&heads, SEEN_WITHIN).await;
    let lag = settle(scene).await?;
    anyhow::ensure!(lag == 0, "{lag} records are not committed by fanout after {LAG_WITHIN:?}");
    evidence.push(("messages sent again", repeat(scene).await?));
    finish(scene).await?;
    Ok(evidence)
}

/// Waits until fanout has committed everything; what is left after a while.
async fn settle(scene: &Scene) -> anyhow::Result<i64> {
    let deadline = Instant::now() + LAG_WITHIN;
    loop {
        let (log, recorder) = (scene.rig.log.clone(), scene.recorder.clone());
        let lag = tokio::task::spawn_blocking(move || log.lag(&recorder)).await??;
        if lag == 0 || Instant::now() > deadline {
            return Ok(lag);
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Two people send old messages again, from other devices.
async fn repeat(scene: &mut Scene) -> anyhow::Result<u64> {
    let mut texts = Texts::new();
    for client in &scene.people.clients {
        for (chat, _) in &scene.people.chats {
            texts.extend(client.view(chat)?.into_iter().map(|kept| (kept.message_id, kept.content)));
        }
    }
    let mut count = 0;
    for person in [0, 1] {
        let name = format!("{}/visitor", phone(person));
        let client = scene.rig.client(person, &phone(person), 1, &name, &scene.recorder).await?;
        let visitor = Visitor::of(&client)?;
        client.stop().await;
        count += visitor.repeat(&name, &texts, REPEATED, &scene.recorder, &mut scene.random).await?;
    }
    Ok(count)
}

/// Everybody reads everything from the first message on a new device; then store and log are read.
async fn finish(scene: &mut Scene) -> anyhow::Result<()> {
    let heads = truth::scan(&scene.rig.store, &scene.rig.tables, &scene.recorder).await?;
    for person in 0..scene.people.clients.len() {
        let name = format!("{}/final", phone(person));
        let client = Arc::new(scene.rig.client(person % 2, &phone(person), 1, &name, &scene.recorder).await?);
        read_all(scene, person, &client, &heads).await;
        let user = Some(client.user_id().to_owned());
        let (what, kind, epoch) = (What::Final, Kind::Ok, 1);
        scene.recorder.write(Line { what, kind, session: name, epoch, user, ..Line::default() });
        if let Some(client) = Arc::into_inner(client) {
            client.stop().await;
        }
    }
    let (log, recorder) = (scene.rig.log.clone(), scene.recorder.clone());
    tokio::task::spawn_blocking(move || log.dump(&recorder)).await??;
    scene.rig.measure(&scene.recorder);
    Ok(())
}

/// A ready client has asked for the heads of all its chats, and has read what it lacked.
async fn read_all(scene: &Scene, person: usize, client: &Client, heads: &BTreeMap<String, u64>) {
    for (chat, members) in &scene.people.chats {
        if members.contains(&person) {
            let head = usize::try_from(heads.get(chat).copied().unwrap_or(0)).unwrap_or(usize::MAX);
            // What is missing then is the checker's to name.
            drop(client.wait_for(chat, head, Duration::from_secs(5)).await);
        }
    }
}

/// The processes' logs go beside the history.
fn keep_logs(rig: &Rig, history: &Path) {
    let to = history.with_extension("logs");
    let logs = std::fs::read_dir(rig.logs()).into_iter().flatten().flatten().map(|entry| entry.path());
    let kept = std::fs::create_dir_all(&to).and_then(|()| {
        for log in logs.filter(|log| log.extension().is_some_and(|extension| extension == "jsonl")) {
            std::fs::copy(&log, to.join(log.file_name().unwrap_or_default()))?;
        }
        Ok(())
    });
    if let Err(error) = kept {
        tracing::warn!("the logs of a failed run were not kept: {error}");
    }
}

/// Tables and topics of a run are its own.
fn unique() -> String {
    let id = crate::client::new_uuid().simple().to_string();
    id[..6].to_owned()
}
