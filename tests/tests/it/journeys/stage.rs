//! Where a journey takes place: the embedded platform, or separate processes on real systems; and what is there in the end.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context as _;
use tests::{
    client::{Client, Options},
    faults::truth,
    history::{
        line::{Line, Run, What},
        recorder::Recorder,
    },
    raw::Raw,
    world::{
        World,
        cluster::{Cluster, Plan},
        ground::Ground,
    },
};
use tokio::time::{Instant, sleep};

const WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A platform to travel through.
pub(crate) struct Stage {
    on: On,
    store: String,
    tables: String,
    log: truth::Log,
}

enum On {
    Embedded(Box<World>),
    Real(Box<Cluster>),
}

impl Stage {
    pub(crate) async fn embedded() -> anyhow::Result<Self> {
        let world = World::start().await?;
        let store = world.address("store_endpoint")?;
        let store = store.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let log = truth::Log { brokers: world.address("log_brokers")?, prefix: "local.messaging.".to_owned() };
        Ok(Self { on: On::Embedded(Box::new(world)), store, tables: "local-messaging-".to_owned(), log })
    }

    pub(crate) async fn real(name: &str) -> anyhow::Result<Self> {
        let ground = Ground::shared().await?;
        Self::planned(Plan::new(name, ground), &ground.store).await
    }

    /// On real systems, the store of which is at that address although the services may be told another.
    pub(crate) async fn planned(plan: Plan, store: &str) -> anyhow::Result<Self> {
        let variable = |name: &str| plan.variables().get(name).cloned().context("not in the plan");
        let log = truth::Log { brokers: variable("LOG_BROKERS")?, prefix: variable("LOG_PREFIX")? };
        let (store, tables) = (store.to_owned(), variable("STORE_TABLE_PREFIX")?);
        Ok(Self { on: On::Real(Box::new(Cluster::start(&plan).await?)), store, tables, log })
    }

    /// Where clients connect; two doors may lead to two gateways.
    pub(crate) fn server(&self, door: usize) -> &str {
        match &self.on {
            On::Embedded(world) => world.server(),
            On::Real(cluster) => cluster.server(door % 2),
        }
    }

    pub(crate) async fn client(&self, door: usize, phone: &str) -> anyhow::Result<Client> {
        self.client_with(door, phone, Options::quick(self.server(door))).await
    }

    pub(crate) async fn client_with(&self, door: usize, phone: &str, options: Options) -> anyhow::Result<Client> {
        match &self.on {
            On::Embedded(world) => world.client_with(phone, options).await,
            On::Real(cluster) => cluster.client_with(door % 2, phone, options).await,
        }
    }

    /// A plain socket of the same user and device, which must have stopped.
    pub(crate) async fn socket(&self, door: usize, bearer: &str, device: &str) -> anyhow::Result<Raw> {
        let headers = [("authorization", bearer), ("x-device-id", device)];
        let connected = Raw::connect(self.server(door), "/v1/ws", &headers).await?;
        let mut socket = connected.map_err(|(status, body)| anyhow::anyhow!("refused with {status}: {body}"))?;
        socket.next_of("connection_established").await?;
        Ok(socket)
    }

    /// Rows of a chat, by sequence.
    pub(crate) async fn rows(&self, chat: &str) -> anyhow::Result<BTreeMap<u64, Line>> {
        let folder = tempfile::tempdir()?;
        let recorder = Recorder::create(&folder.path().join("truth.jsonl"), Run::default())?;
        truth::scan(&self.store, &self.tables, &recorder).await?;
        Ok(of(chat, What::Row, recorder.lines()?).map(|row| (row.sequence.unwrap_or(0), row)).collect())
    }

    /// The head of a chat.
    pub(crate) async fn head(&self, chat: &str) -> anyhow::Result<u64> {
        Ok(truth::heads(&self.store, &self.tables).await?.get(chat).copied().unwrap_or(0))
    }

    /// Events of a chat, in the order of its partition, once there are that many: `MessagePersisted` each.
    pub(crate) async fn events(&self, chat: &str, count: usize) -> anyhow::Result<Vec<Line>> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let folder = tempfile::tempdir()?;
            let recorder = Recorder::create(&folder.path().join("truth.jsonl"), Run::default())?;
            let (log, to) = (self.log.clone(), recorder.clone());
            tokio::task::spawn_blocking(move || log.dump(&to)).await??;
            let events: Vec<Line> = of(chat, What::Log, recorder.lines()?).collect();
            if events.len() >= count {
                return Ok(events);
            }
            anyhow::ensure!(Instant::now() < deadline, "{} of {count} events", events.len());
            sleep(LOOK_EVERY).await;
        }
    }
}

fn of(chat: &str, what: What, lines: Vec<Line>) -> impl Iterator<Item = Line> {
    lines.into_iter().filter(move |line| line.what == what && line.chat.as_deref() == Some(chat))
}

/// Options with a history, and a folder for what the client keeps.
pub(crate) fn recorded(server: &str, folder: &Path, recorder: &Recorder, name: &str) -> Options {
    Options {
        data: Some(folder.join(name)),
        recorder: Some((recorder.clone(), name.to_owned())),
        ..Options::quick(server)
    }
}
