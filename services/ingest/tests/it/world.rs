//! Nodes of ingest on one store and one log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{
    Clock, Error, ErrorKind, Millis,
    ids::{ChatId, ClientMessageId, ConnectionId, UserId},
    message::{Content, Draft},
};
use ingest::{
    Limits,
    api::Api,
    commit::Stored,
    wire_up::{self, Ports},
};
use platform::{
    Process,
    clock::{SystemClock, SystemIds},
};
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use ulid::Ulid;
use uuid::Uuid;

use crate::{
    log::{Log, Producer},
    store::{Cut, Link, Store},
};

/// A store and a log, on which nodes start.
pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) log: Arc<Log>,
    pub(crate) limits: Limits,
    ids: AtomicU64,
}

/// A clock that goes as it should, so many milliseconds elsewhere in time.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) AtomicI64);

impl Clock for Wrong {
    fn now(&self) -> Millis {
        Millis(SystemClock.now().0 + self.0.load(Ordering::Relaxed))
    }
}

/// One running ingest.
pub(crate) struct Node {
    pub(crate) api: Api,
    pub(crate) process: Process,
    cut: watch::Sender<bool>,
}

impl World {
    pub(crate) fn new() -> Self {
        let limits = Limits {
            persist_deadline: Duration::from_secs(20),
            retry_base: Duration::from_millis(2),
            retry_cap: Duration::from_millis(10),
            lease_ttl: Duration::from_secs(2),
            lease_renewal: Duration::from_millis(200),
            takeover_interval: Duration::from_millis(50),
            takeover_watch: Duration::from_millis(300),
            drain: Duration::from_millis(500),
            ..Limits::default()
        };
        Self { store: Store::new(), log: Arc::default(), limits, ids: AtomicU64::new(1) }
    }

    pub(crate) fn number(&self) -> u128 {
        u128::from(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn user(&self) -> UserId {
        UserId(Ulid(self.number()))
    }

    /// A chat with that many members.
    pub(crate) fn chat(&self, members: usize) -> (ChatId, Vec<UserId>) {
        let chat = ChatId(Ulid(self.number()));
        let members: Vec<_> = (0..members).map(|_| self.user()).collect();
        self.store.add_chat(chat, &members);
        (chat, members)
    }

    pub(crate) fn draft(&self, chat: ChatId, sender: UserId, text: &str) -> Draft {
        draft(self.number(), chat, sender, text)
    }

    /// A node that has its lease.
    pub(crate) async fn node(&self) -> Node {
        self.node_in(Process::new()).await
    }

    /// The same with a clock that is wrong by so many milliseconds.
    pub(crate) async fn node_off_by(&self, millis: i64) -> Node {
        self.node_by(Arc::new(Wrong(AtomicI64::new(millis)))).await
    }

    /// The same with that clock.
    pub(crate) async fn node_by(&self, clock: Arc<Wrong>) -> Node {
        self.node_in(Process::with(clock, Arc::new(SystemIds))).await
    }

    async fn node_in(&self, process: Process) -> Node {
        let (cut, is_cut) = watch::channel(false);
        let link = Arc::new(Link { store: self.store.clone(), way: Box::new(Cut(is_cut.clone())) });
        let ports = Ports {
            log: link.clone(),
            history: link.clone(),
            members: link.clone(),
            incarnations: link.clone(),
            heads: link.clone(),
            delivery: link,
            publisher: Arc::new(Producer { log: self.log.clone(), cut: is_cut }),
            holes: Counter::default(),
        };
        let api = wire_up::join(ports, &self.limits, &process);
        eventually("the node has a lease", || process.not_ready().is_empty()).await;
        Node { api, process, cut }
    }
}

impl Node {
    pub(crate) async fn send(&self, draft: Draft) -> Result<Stored, Error> {
        self.api.persist.persist(draft, None, Duration::MAX).await
    }

    /// Sends without waiting for the answer. Returns when the message is queued.
    pub(crate) async fn post(&self, draft: Draft) -> JoinHandle<Result<Stored, Error>> {
        let persist = self.api.persist.clone();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let task = self.process.spawn_child(async move {
            let mut sending = Box::pin(persist.persist(draft, None, Duration::MAX));
            let mut begun = Some(begun);
            std::future::poll_fn(move |ctx| {
                let polled = sending.as_mut().poll(ctx);
                if let Some(begun) = begun.take() {
                    begun.send(()).expect("the test waits");
                }
                polled
            })
            .await
        });
        has_begun.await.expect("the task runs");
        task
    }

    /// Ends it as a kill does: nothing it does reaches anybody any more.
    pub(crate) fn kill(&self) {
        self.cut.send_replace(true);
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.process.metrics_text();
        let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().expect("a number"))
    }
}

/// A send; the number becomes the client's id of it.
pub(crate) fn draft(number: u128, chat: ChatId, sender: UserId, text: &str) -> Draft {
    Draft {
        chat,
        sender,
        client_id: ClientMessageId(Uuid::from_u128(number)),
        content: Content::new("", text).expect("valid"),
        origin: Some(ConnectionId(Ulid(7))),
    }
}

/// Waits until it holds, at most 15 s.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn sequence(result: Result<Stored, Error>) -> u64 {
    result.expect("stored").original.sequence.0
}

pub(crate) fn kind(result: Result<Stored, Error>) -> ErrorKind {
    result.expect_err("refused").kind()
}
