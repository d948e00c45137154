//! The four services as separate processes over real systems, discovered and connected as pods are.

use std::{
    collections::BTreeMap,
    net::TcpListener as StdListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    CODE_WITHIN, LOOK_EVERY, RAISED, READY_WITHIN, binary, codes_in,
    ground::{Ground, log_prefix},
    service::Service,
};
use crate::client::{Client, Options, new_uuid, rest::Rest};

/// Two gateways, two ingests, a fanout and a chatmgmt that belong to one test.
#[derive(Debug)]
pub struct Cluster {
    /// Each is a door for clients: two of them lead to different gateways.
    pub gateways: Vec<Service>,
    /// They share the chats.
    pub ingests: Vec<Service>,
    /// Brings messages to gateways.
    pub fanout: Service,
    /// Login, chats and history.
    pub chatmgmt: Service,
    doors: Vec<Door>,
    folder: PathBuf,
    _temporary: tempfile::TempDir,
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Plan {
    variables: BTreeMap<String, String>,
    has_topics: bool,
}

impl Plan {
    /// A cluster of that name on these systems; names of topics, tables and keys begin with its own.
    pub fn new(name: &str, ground: &Ground) -> Self {
        let variables = [
            ("LOG_BROKERS", ground.kafka.clone()),
            ("LOG_PREFIX", log_prefix(name)),
            ("STORE_ENDPOINT", format!("http://{}", ground.store)),
            ("STORE_TABLE_PREFIX", format!("test-{name}-")),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("REDIS_URL", format!("redis://{}", ground.redis)),
            ("REDIS_PREFIX", format!("test.{name}.")),
            ("LOG", "info,librdkafka=off".to_owned()),
            ("LOG_FORMAT", "json".to_owned()),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("LISTEN", "127.0.0.1:0".to_owned()),
            ("GRPC_LISTEN", "127.0.0.1:0".to_owned()),
            ("DRAIN_DELAY", "200ms".to_owned()),
        ];
        let raised = RAISED.iter().filter_map(|flag| flag.trim_start_matches('-').split_once('='));
        let raised = raised.map(|(name, value)| (name.replace('-', "_").to_uppercase(), value.to_owned()));
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(raised).collect();
        Self { variables, has_topics: ground.has_topics }
    }

    /// The same with another value of a variable.
    #[must_use]
    pub fn with(mut self, variable: &str, value: impl Into<String>) -> Self {
        self.variables.insert(variable.to_owned(), value.into());
        self
    }

    /// What every process gets.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }
}

/// The order in which the processes start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each after what it calls.
    Inward,
    /// Each before what it calls, and all before there are tables and topics.
    Outward,
}

impl Cluster {
    /// Makes tables, topics and keys, starts every process, and waits until all are ready.
    ///
    /// # Errors
    /// When one does not become ready: with why, and its log.
    pub async fn start(plan: &Plan) -> anyhow::Result<Self> {
        Self::start_in(plan, Order::Inward).await
    }

    /// The same in that order.
    ///
    /// # Errors
    /// See [`Cluster::start`].
    pub async fn start_in(plan: &Plan, order: Order) -> anyhow::Result<Self> {
        let temporary = tempfile::tempdir()?;
        let folder = temporary.path().to_owned();
        let mut plan = plan.clone().with("AUTH_DIR", path(&folder.join("auth")));
        plan = plan.with("INTERNAL_TOKEN_FILE", path(&folder.join("auth/internal-token")));
        // A service's name and port are known before its pods are: so are these.
        let ports = [free_port()?, free_port()?];
        plan = plan.with("INGEST", ports.map(|port| format!("127.0.0.1:{port}")).join(","));
        let start = |program, name: &str, more: &[(&str, String)]| {
            let mut variables = plan.variables.clone();
            variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
            Service::start(program, name, &folder, &variables)
        };
        let ingest = |number: usize| {
            let listen = format!("127.0.0.1:{}", ports[number]);
            start("ingest", &format!("ingest-{number}"), &[("GRPC_LISTEN", listen)])
        };
        let gateway = |number: usize| start("gateway", &format!("gateway-{number}"), &[]);
        provision(&plan, Part::Keys).await?;
        if order == Order::Inward {
            provision(&plan, Part::Systems).await?;
        }
        let (gateways, ingests, fanout, chatmgmt) = match order {
            Order::Inward => {
                let ingests = vec![ingest(0)?, ingest(1)?];
                let (chatmgmt, fanout) = (start("chatmgmt", "chatmgmt", &[])?, start("fanout", "fanout", &[])?);
                (vec![gateway(0)?, gateway(1)?], ingests, fanout, chatmgmt)
            }
            Order::Outward => {
                let gateways = vec![gateway(0)?, gateway(1)?];
                let (fanout, chatmgmt) = (start("fanout", "fanout", &[])?, start("chatmgmt", "chatmgmt", &[])?);
                // Nothing that they need is there: they wait, and say for what.
                chatmgmt.unready_with("store (").await?;
                let ingests = vec![ingest(0)?, ingest(1)?];
                ingests[0].unready_with("ingest lease").await?;
                provision(&plan, Part::Systems).await?;
                (gateways, ingests, fanout, chatmgmt)
            }
        };
        let mut cluster =
            Self { gateways, ingests, fanout, chatmgmt, doors: Vec::new(), folder, _temporary: temporary };
        for service in cluster.services() {
            service.ready().await?;
        }
        cluster.open_doors().await?;
        Ok(cluster)
    }

    async fn open_doors(&mut self) -> anyhow::Result<()> {
        let rest = self.chatmgmt.address("--listen").await?;
        for gateway in &self.gateways {
            let sockets = gateway.address("--listen").await?;
            self.doors.push(Door::open(Behind { rest: rest.clone(), sockets }).await?);
        }
        Ok(())
    }

    /// Leads a gateway's door to where its process listens now, after it was started again.
    ///
    /// # Errors
    /// When it does not say where.
    pub async fn reopen(&self, gateway: usize) -> anyhow::Result<()> {
        let (rest, sockets) =
            (self.chatmgmt.address("--listen").await?, self.gateways[gateway].address("--listen").await?);
        self.doors[gateway].lead_to(Behind { rest, sockets });
        Ok(())
    }

    /// Every process.
    pub fn services(&mut self) -> Vec<&mut Service> {
        let rest = [&mut self.fanout, &mut self.chatmgmt];
        self.ingests.iter_mut().chain(&mut self.gateways).chain(rest).collect()
    }

    /// Where clients of that gateway connect, for REST and WebSocket.
    pub fn server(&self, gateway: usize) -> &str {
        &self.doors[gateway].server
    }

    /// Where this cluster keeps everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Logs in on a new device at that gateway, and waits until the connection is ready.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn client(&self, gateway: usize, phone: &str) -> anyhow::Result<Client> {
        self.client_with(gateway, phone, Options::quick(self.server(gateway))).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn client_with(&self, gateway: usize, phone: &str, options: Options) -> anyhow::Result<Client> {
        let seen = codes_in(&self.chatmgmt.log(), phone).len();
        let client = Client::login(options, phone, || self.code(phone, seen)).await?;
        client.ready(READY_WITHIN).await.with_context(|| self.gateways[gateway].log())?;
        Ok(client)
    }

    /// Logs in on a new device at that gateway, for REST alone.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn login(&self, gateway: usize, phone: &str) -> anyhow::Result<Rest> {
        let seen = codes_in(&self.chatmgmt.log(), phone).len();
        let rest = Rest::new(self.server(gateway), new_uuid())?;
        rest.request_otp(phone).await?;
        rest.use_tokens(rest.verify_otp(phone, &self.code(phone, seen).await?).await?);
        Ok(rest)
    }

    async fn code(&self, phone: &str, seen: usize) -> anyhow::Result<String> {
        let deadline = Instant::now() + CODE_WITHIN;
        loop {
            let log = self.chatmgmt.log();
            if let Some(code) = codes_in(&log, phone).into_iter().nth(seen) {
                return Ok(code);
            }
            anyhow::ensure!(Instant::now() < deadline, "no code in the log:\n{log}");
            sleep(LOOK_EVERY).await;
        }
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn free_port() -> anyhow::Result<u16> {
    Ok(StdListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A part of what is there before a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Keys and tokens.
    Keys,
    /// Tables, and topics where the log has none yet.
    Systems,
}

/// Makes it.
pub(crate) async fn provision(plan: &Plan, part: Part) -> anyhow::Result<()> {
    let only = match part {
        Part::Keys => "keys",
        Part::Systems if plan.has_topics => "tables",
        Part::Systems => "systems",
    };
    let mut command = Command::new(binary("provision")?);
    let known = ["LOG_", "STORE_", "AWS_", "AUTH_DIR", "REPLICAS"];
    let variables = plan.variables.iter().filter(|(name, _)| known.iter().any(|start| name.starts_with(start)));
    let output = command.args(["--only", only]).env_clear().envs(variables).output().await?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// One address for REST and WebSocket, as an Ingress gives.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) server: String,
    behind: watch::Sender<Behind>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
pub(crate) struct Behind {
    pub(crate) rest: String,
    pub(crate) sockets: String,
}

impl Door {
    pub(crate) async fn open(behind: Behind) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = format!("http://{}", listener.local_addr()?);
        let (behind, current) = watch::channel(behind);
        #[expect(clippy::disallowed_methods, reason = "the door owns this task and ends it")]
        let task = tokio::spawn(lead(listener, current));
        Ok(Self { server, behind, task })
    }

    /// New connections go there.
    pub(crate) fn lead_to(&self, behind: Behind) {
        self.behind.send_replace(behind);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Leads each connection by its first request's path.
async fn lead(listener: TcpListener, current: watch::Receiver<Behind>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let behind = current.borrow().clone();
        connections.spawn(async move {
            drop(pass(client, &behind).await); // either side may end it
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(mut client: TcpStream, behind: &Behind) -> anyhow::Result<()> {
    let mut begun = Vec::new();
    while !begun.contains(&b'\n') {
        let read = timeout(Duration::from_mins(1), client.read_buf(&mut begun)).await??;
        anyhow::ensure!(read > 0, "it said nothing");
    }
    let is_socket = begun.starts_with(b"GET /v1/ws");
    let mut server = TcpStream::connect(if is_socket { &behind.sockets } else { &behind.rest }).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    server.write_all(&begun).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
