//! Where a journey takes place: the embedded platform, or separate processes on real systems; and what is there in the end.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use tests::{
    client::{Client, Options},
    faults::{store::StoreProxy, truth},
    history::{
        line::{Line, Run, What},
        recorder::Recorder,
    },
    raw::Raw,
    world::{
        World,
        cluster::{Cluster, Plan},
        ground::{Ground, OwnGround, Systems},
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
    /// Systems of this stage alone, which end after its processes.
    _own: Option<OwnGround>,
}

/// How far a user is in a chat, as the store has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) acknowledged: u64,
    pub(crate) read: u64,
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
        Ok(Self { on: On::Embedded(Box::new(world)), store, tables: "local-messaging-".to_owned(), log, _own: None })
    }

    pub(crate) async fn real(name: &str) -> anyhow::Result<Self> {
        let ground = Ground::shared().await?;
        Self::planned(Plan::new(name, ground), &ground.store).await
    }

    /// On real systems, with a proxy between the services and the store.
    pub(crate) async fn before_a_proxy(name: &str) -> anyhow::Result<(Self, StoreProxy)> {
        Self::proxied(name, Ground::shared().await?).await
    }

    /// Separate processes as well, on embedded systems.
    pub(crate) async fn before_a_proxy_embedded(name: &str) -> anyhow::Result<(Self, StoreProxy)> {
        let own = OwnGround::start_with(Systems::Embedded { cluster: name }).await?;
        let (stage, store) = Self::proxied(name, &own.ground).await?;
        Ok((Self { _own: Some(own), ..stage }, store))
    }

    async fn proxied(name: &str, ground: &Ground) -> anyhow::Result<(Self, StoreProxy)> {
        let store = StoreProxy::start(&ground.store, 1).await?;
        let plan = Plan::new(name, ground).with("STORE_ENDPOINT", format!("http://{}", store.address()));
        Ok((Self::planned(plan, &ground.store).await?, store))
    }

    /// The store is at that address, whatever the services are told.
    async fn planned(plan: Plan, store: &str) -> anyhow::Result<Self> {
        let variable = |name: &str| plan.variables().get(name).cloned().context("not in the plan");
        let log = truth::Log { brokers: variable("LOG_BROKERS")?, prefix: variable("LOG_PREFIX")? };
        let (store, tables) = (store.to_owned(), variable("STORE_TABLE_PREFIX")?);
        Ok(Self { on: On::Real(Box::new(Cluster::start(&plan).await?)), store, tables, log, _own: None })
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

    /// A plain socket of a client's user, on another device.
    pub(crate) async fn socket_of(&self, door: usize, client: &Client, device: &str) -> anyhow::Result<Raw> {
        let bearer = format!("Bearer {}", client.rest().tokens()?.access_token);
        self.socket(door, &bearer, device).await
    }

    /// A plain socket of that device; a client of the same device must have stopped.
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

    /// The row of a chat at that place, if it is there at this moment.
    pub(crate) async fn row(&self, chat: &str, sequence: u64) -> anyhow::Result<Option<Value>> {
        self.item("messages", json!({"chat_id": {"S": chat}, "sequence": {"N": sequence.to_string()}})).await
    }

    /// How far a user is in a chat at this moment.
    pub(crate) async fn marks(&self, chat: &str, user: &str) -> anyhow::Result<Marks> {
        let item = self.item("delivery-state", json!({"user_id": {"S": user}, "chat_id": {"S": chat}})).await?;
        let Some(item) = item else { return Ok(Marks::default()) };
        let mark = |name: &str| item[name]["N"].as_str().map_or(Ok(0), str::parse::<u64>);
        Ok(Marks { acknowledged: mark("last_acked_sequence")?, read: mark("last_read_sequence")? })
    }

    async fn item(&self, table: &str, key: Value) -> anyhow::Result<Option<Value>> {
        truth::item(&self.store, &format!("{}{table}", self.tables), key).await
    }

    /// Events of a chat, in the order of its partition, once that message's is there: `MessagePersisted` each.
    pub(crate) async fn events(&self, chat: &str, last: &str) -> anyhow::Result<Vec<Line>> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let folder = tempfile::tempdir()?;
            let recorder = Recorder::create(&folder.path().join("truth.jsonl"), Run::default())?;
            let (log, to) = (self.log.clone(), recorder.clone());
            tokio::task::spawn_blocking(move || log.dump(&to)).await??;
            let events: Vec<Line> = of(chat, What::Log, recorder.lines()?).collect();
            if events.iter().any(|event| event.message_id.as_deref() == Some(last)) {
                return Ok(events);
            }
            anyhow::ensure!(Instant::now() < deadline, "{} events, none of {last}", events.len());
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
