//! The whole system as separate processes over real or embedded systems, with a proxy on every edge between them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::{proxy::Proxy, random::Random, store::StoreProxy, truth};
use crate::{
    client::{Client, Options},
    history::{
        line::{Kind, Line, What},
        recorder::Recorder,
    },
    world::{
        cluster::{Behind, Door, Part, Plan, provision},
        codes_in,
        ground::OwnGround,
        service::Service,
    },
};

const READY_WITHIN: Duration = Duration::from_mins(1);
const CODE_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where the binaries with failpoints lie, beside the others: `make faulty` puts them there.
const FOLDER: &str = "faulty";

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";

/// What a process gets besides what all get.
pub type Extra = Vec<(&'static str, &'static str, String)>;

/// Two of each service that a message passes, and one chatmgmt.
pub struct Rig {
    /// Each behind a door of its own.
    pub gateways: Vec<Service>,
    /// They share the chats.
    pub ingests: Vec<Service>,
    /// They share the partitions.
    pub fanouts: Vec<Service>,
    /// Login, chats and history.
    pub chatmgmt: Service,
    /// The edges.
    pub edges: Edges,
    /// The cluster's part of the store.
    pub tables: String,
    /// The cluster's part of the log.
    pub log: truth::Log,
    /// Where the store is without a proxy.
    pub store: String,
    /// Where Redis is without a proxy.
    pub redis: String,
    doors: Vec<Door>,
    folder: tempfile::TempDir,
}

/// A proxy for each pair that talks.
pub struct Edges {
    /// Gateways to each ingest.
    pub ingest: Vec<Proxy>,
    /// Fanouts to each gateway.
    pub gateway: Vec<Proxy>,
    /// Each ingest to the store.
    pub store_of_ingest: Vec<StoreProxy>,
    /// Everybody else to the store.
    pub store_of_others: StoreProxy,
    /// Ingests to the log.
    pub log_of_ingest: Proxy,
    /// Fanouts to the log.
    pub log_of_fanout: Proxy,
    /// Gateways to Redis.
    pub redis_of_gateway: Proxy,
    /// Fanouts to Redis.
    pub redis_of_fanout: Proxy,
    /// Everybody else to Redis.
    pub redis_of_others: Proxy,
}

impl Edges {
    /// All that lead to Redis.
    pub fn redis(&self) -> [&Proxy; 3] {
        [&self.redis_of_gateway, &self.redis_of_fanout, &self.redis_of_others]
    }

    async fn start(own: &OwnGround, random: &mut Random) -> anyhow::Result<Self> {
        let ground = &own.ground;
        let (mut ingest, mut gateway, mut store_of_ingest) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            // Where they lead is known when the processes say where they listen.
            ingest.push(Proxy::start(NOWHERE, random.next()).await?);
            gateway.push(Proxy::start(NOWHERE, random.next()).await?);
            store_of_ingest.push(StoreProxy::start(&ground.store, random.next()).await?);
        }
        Ok(Self {
            ingest,
            gateway,
            store_of_ingest,
            store_of_others: StoreProxy::start(&ground.store, random.next()).await?,
            log_of_ingest: Proxy::before_kafka(first(&ground.kafka), random.next()).await?,
            log_of_fanout: Proxy::before_kafka(first(&ground.kafka), random.next()).await?,
            redis_of_gateway: Proxy::start(&ground.redis, random.next()).await?,
            redis_of_fanout: Proxy::start(&ground.redis, random.next()).await?,
            redis_of_others: Proxy::start(&ground.redis, random.next()).await?,
        })
    }
}

impl Rig {
    /// Starts everything, with more variables for some: process, variable, value.
    ///
    /// # Errors
    /// When a process does not become ready: with why, and its log.
    pub async fn start(own: &OwnGround, name: &str, extra: &Extra, random: &mut Random) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let edges = Edges::start(own, random).await?;
        let auth = folder.path().join("auth");
        let plan = Plan::new(name, &own.ground)
            .with("AUTH_DIR", auth.display().to_string())
            .with("INTERNAL_TOKEN_FILE", auth.join("internal-token").display().to_string())
            // The group waits as briefly as a broker allows.
            .with("LOG_SESSION_TIMEOUT", "6s")
            .with("BREAKER_OPEN", "2s")
            .with("LOG", "info,gateway=debug,ingest=debug,fanout=debug,librdkafka=off");
        let has_brokers = own.ground.kafka.contains(',');
        let plan = plan.with("REPLICAS", if has_brokers { "3" } else { "1" });
        provision(&plan, Part::Keys).await?;
        provision(&plan, Part::Systems).await?;
        let of_edge = |name: &str, number: usize| -> Vec<(&str, String)> {
            let endpoint = |proxy: &StoreProxy| format!("http://{}", proxy.address());
            let redis = |proxy: &Proxy| format!("redis://{}", proxy.address());
            // Between several brokers there is no proxy: each tells its clients of the others.
            let log = |proxy: &Proxy| if has_brokers { own.ground.kafka.clone() } else { proxy.address().to_owned() };
            match name {
                "ingest" => vec![
                    ("STORE_ENDPOINT", endpoint(&edges.store_of_ingest[number])),
                    ("LOG_BROKERS", log(&edges.log_of_ingest)),
                ],
                "gateway" => vec![
                    ("ADVERTISE", edges.gateway[number].address().to_owned()),
                    ("INGEST", edges.ingest.iter().map(Proxy::address).collect::<Vec<_>>().join(",")),
                    ("REDIS_URL", redis(&edges.redis_of_gateway)),
                ],
                "fanout" => vec![
                    ("STORE_ENDPOINT", endpoint(&edges.store_of_others)),
                    ("LOG_BROKERS", log(&edges.log_of_fanout)),
                    ("REDIS_URL", redis(&edges.redis_of_fanout)),
                ],
                _ => vec![
                    ("STORE_ENDPOINT", endpoint(&edges.store_of_others)),
                    ("INGEST", edges.ingest[0].address().to_owned()),
                    ("REDIS_URL", redis(&edges.redis_of_others)),
                ],
            }
        };
        let start = |program: &'static str, number: usize| {
            let kind = program.rsplit('/').next().unwrap_or_default();
            let name = format!("{kind}-{number}");
            let mut variables: BTreeMap<String, String> = plan.variables().clone();
            let more = extra.iter().filter(|(process, _, _)| *process == kind || *process == name);
            let more = more.map(|(_, variable, value)| (*variable, value.clone()));
            let all = of_edge(kind, number).into_iter().chain(more);
            variables.extend(all.map(|(variable, value)| (variable.to_owned(), value)));
            Service::start(program, &name, folder.path(), &variables)
        };
        let ingests = vec![start("faulty/ingest", 0)?, start("faulty/ingest", 1)?];
        let chatmgmt = start("faulty/chatmgmt", 0)?;
        let fanouts = vec![start("faulty/fanout", 0)?, start("faulty/fanout", 1)?];
        let gateways = vec![start("faulty/gateway", 0)?, start("faulty/gateway", 1)?];
        let (store, redis) = (own.ground.store.clone(), own.ground.redis.clone());
        let tables = plan.variables().get("STORE_TABLE_PREFIX").cloned().unwrap_or_default();
        let prefix = plan.variables().get("LOG_PREFIX").cloned().unwrap_or_default();
        let log = truth::Log { brokers: own.ground.kafka.clone(), prefix };
        let doors = Vec::new();
        let mut rig = Self { gateways, ingests, fanouts, chatmgmt, edges, tables, log, store, redis, doors, folder };
        rig.lead_edges().await.with_context(|| format!("{FOLDER}/ comes from make faulty"))?;
        rig.all_ready().await?;
        let rest = rig.chatmgmt.address("--listen").await?;
        for gateway in &rig.gateways {
            let sockets = gateway.address("--listen").await?;
            rig.doors.push(Door::open(Behind { rest: rest.clone(), sockets }).await?);
        }
        Ok(rig)
    }

    /// Every process.
    pub fn services(&mut self) -> Vec<&mut Service> {
        let all = self.ingests.iter_mut().chain(&mut self.gateways).chain(&mut self.fanouts);
        all.chain([&mut self.chatmgmt]).collect()
    }

    /// Waits until every process is ready.
    ///
    /// # Errors
    /// When one is not in time: with its log.
    pub async fn all_ready(&mut self) -> anyhow::Result<()> {
        for service in self.services() {
            service.ready().await?;
        }
        Ok(())
    }

    /// Starts those again that have ended, without what they were armed with, and waits until all are ready.
    ///
    /// # Errors
    /// When one is not ready in time.
    pub async fn repair(&mut self) -> anyhow::Result<()> {
        for service in self.services() {
            if !service.is_running()? {
                service.unset("FAILPOINTS");
                service.start_again()?;
            }
        }
        self.lead_edges().await?;
        self.all_ready().await?;
        self.lead_doors().await
    }

    /// Leads the edges to where ingests and gateways listen now, after one was started again.
    ///
    /// # Errors
    /// When one does not say where.
    pub async fn lead_edges(&self) -> anyhow::Result<()> {
        for (edges, services) in [(&self.edges.ingest, &self.ingests), (&self.edges.gateway, &self.gateways)] {
            for (edge, service) in edges.iter().zip(services) {
                edge.lead_to(&service.address("--grpc-listen").await?);
            }
        }
        Ok(())
    }

    async fn lead_doors(&self) -> anyhow::Result<()> {
        let rest = self.chatmgmt.address("--listen").await?;
        for (door, gateway) in self.doors.iter().zip(&self.gateways) {
            let sockets = gateway.address("--listen").await?;
            door.lead_to(Behind { rest: rest.clone(), sockets });
        }
        Ok(())
    }

    /// Leads the clients of one gateway to another, as a load balancer does; connections stay where they are.
    ///
    /// # Errors
    /// When the other does not say where it listens.
    pub async fn redirect(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let rest = self.chatmgmt.address("--listen").await?;
        let sockets = self.gateways[to].address("--listen").await?;
        self.doors[from].lead_to(Behind { rest, sockets });
        Ok(())
    }

    /// Where clients of that gateway connect, for REST and WebSocket.
    pub fn server(&self, gateway: usize) -> &str {
        self.doors[gateway].server.as_str()
    }

    /// Logs in on a new device at that gateway, and waits until the connection is ready. Its history has that name.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn client(
        &self,
        gateway: usize,
        phone: &str,
        window: usize,
        name: &str,
        recorder: &Recorder,
    ) -> anyhow::Result<Client> {
        let seen = codes_in(&self.chatmgmt.log(), phone).len();
        let recorder = Some((recorder.clone(), name.to_owned()));
        let options = Options { window, recorder, ..Options::quick(self.server(gateway)) };
        let client = Client::login(options, phone, || self.code(phone, seen)).await?;
        client.ready(READY_WITHIN).await.with_context(|| self.gateways[gateway].log())?;
        Ok(client)
    }

    async fn code(&self, phone: &str, seen: usize) -> anyhow::Result<String> {
        let deadline = Instant::now() + CODE_WITHIN;
        loop {
            if let Some(code) = codes_in(&self.chatmgmt.log(), phone).into_iter().nth(seen) {
                return Ok(code);
            }
            anyhow::ensure!(Instant::now() < deadline, "no code for {phone} in the log");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Writes down what each process uses.
    pub fn measure(&mut self, recorder: &Recorder) {
        for service in self.services() {
            let files = service.pid().and_then(|pid| Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()));
            recorder.write(Line {
                what: What::Resource,
                kind: Kind::Ok,
                session: service.name().to_owned(),
                files: files.map(|files| files as u64),
                memory: Some(service.memory_kilobytes()),
                ..Line::default()
            });
        }
    }

    /// Where the logs of the processes are.
    pub fn logs(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// The first of a list of brokers.
fn first(brokers: &str) -> &str {
    brokers.split(',').next().unwrap_or(brokers)
}
