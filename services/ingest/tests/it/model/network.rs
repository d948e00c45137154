//! The machines of the model and what lies between them: a network that carries numbers, a producer, clocks and dice.

use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Clock, Ids, Millis,
    message::Draft,
    ports::{EventPublisher, Publication, PublishFailure, event_publisher::Confirmation},
};
use platform::Process;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use turmoil::net::UdpSocket;
use ulid::Ulid;

use crate::{
    log::Log,
    store::{Call, Job, Store, Way},
};

pub(super) const STORE: &str = "store";
pub(super) const LOG: &str = "log";
pub(super) const PORT: u16 = 9;
/// Records a producer holds.
const QUEUE: usize = 6;

type Done = Box<dyn Any + Send>;

/// What the network carries only the numbers of.
#[derive(Default)]
pub(super) struct Desk {
    next: AtomicU64,
    jobs: Mutex<HashMap<u64, Box<dyn FnOnce() -> Done + Send>>>,
    pub(super) drafts: Mutex<HashMap<u64, Draft>>,
    pub(super) done: Mutex<HashMap<u64, Done>>,
}

impl Desk {
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn done(&self, number: u64) -> Option<Done> {
        self.done.lock().expect("whole").remove(&number)
    }

    pub(super) fn take<T: 'static>(&self, number: u64) -> Option<T> {
        Some(*self.done(number)?.downcast().expect("as it was put there"))
    }
}

/// Sends a number and waits for it to come back; for how long is the caller's to say.
pub(super) async fn carry(number: u64, to: &str) -> Option<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    socket.send_to(&number.to_be_bytes(), (to, PORT)).await.ok()?;
    let mut answer = [0; 8];
    loop {
        socket.recv_from(&mut answer).await.ok()?;
        if u64::from_be_bytes(answer) == number {
            return Some(());
        }
    }
}

/// Answers every number, after whatever it stands for is done.
pub(super) async fn serve(desk: Arc<Desk>) -> turmoil::Result {
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).await?;
    let mut number = [0; 8];
    loop {
        let (_, from) = socket.recv_from(&mut number).await?;
        let job = desk.jobs.lock().expect("whole").remove(&u64::from_be_bytes(number));
        if let Some(job) = job {
            let done = job();
            desk.done.lock().expect("whole").insert(u64::from_be_bytes(number), done);
        }
        // Whoever asked may be gone.
        drop(socket.send_to(&number, from).await);
    }
}

/// The way to the store over the network. What was held up on it arrives late, as it does in life.
pub(super) struct Over(pub(super) Arc<Desk>);

#[async_trait]
impl Way for Over {
    async fn go(&self, store: &Arc<Store>, _: Call, job: Job<Done>) -> Option<Done> {
        let (number, store) = (self.0.number(), store.clone());
        let job = Box::new(move || job(&mut store.state()));
        self.0.jobs.lock().expect("whole").insert(number, job);
        carry(number, STORE).await?;
        self.0.done(number)
    }
}

/// A producer: one record after the other, again and again until the log has it; now and then it fails for good.
pub(super) struct Producer {
    queue: mpsc::Sender<(Publication, oneshot::Sender<Result<(), PublishFailure>>)>,
    unseen: Arc<AtomicUsize>,
    /// Counted up by each failure; records are taken only while nobody has one to look at.
    is_replaced: Arc<AtomicUsize>,
}

impl Producer {
    pub(super) fn start(process: &Process, desk: Arc<Desk>, log: Arc<Log>, lives: u64) -> Arc<Self> {
        let (queue, mut waiting) = mpsc::channel::<(Publication, oneshot::Sender<_>)>(QUEUE);
        let (unseen, is_replaced) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (failing, still_unseen) = (is_replaced.clone(), unseen.clone());
        drop(process.spawn_child(async move {
            let mut left = lives;
            while let Some((record, confirm)) = waiting.recv().await {
                left -= 1;
                if left == 0 {
                    // What it holds is lost, and a new one begins when everybody has seen that.
                    failing.store(1, Ordering::SeqCst);
                    confirm.send(Err(PublishFailure::Fatal)).unwrap_or(());
                    while let Ok((_, confirm)) = waiting.try_recv() {
                        confirm.send(Err(PublishFailure::Fatal)).unwrap_or(());
                    }
                    while still_unseen.load(Ordering::SeqCst) > 0 {
                        sleep(Duration::from_millis(5)).await;
                    }
                    failing.store(0, Ordering::SeqCst);
                    left = lives;
                    continue;
                }
                let number = desk.number();
                let written = Arc::new(Mutex::new(Some(record)));
                loop {
                    // The log has a record of an idempotent producer once, however often it comes.
                    let (log, written) = (log.clone(), written.clone());
                    let job = Box::new(move || {
                        if let Some(record) = written.lock().expect("whole").take() {
                            log.write(record);
                        }
                        Box::new(()) as Done
                    });
                    desk.jobs.lock().expect("whole").insert(number, job);
                    if timeout(Duration::from_millis(400), carry(number, LOG)).await == Ok(Some(())) {
                        break;
                    }
                }
                desk.take::<()>(number).expect("done");
                confirm.send(Ok(())).unwrap_or(());
            }
        }));
        Arc::new(Self { queue, unseen, is_replaced })
    }
}

/// Counts as seen when it is looked at or dropped.
struct Unseen(Arc<AtomicUsize>);

impl Drop for Unseen {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl EventPublisher for Producer {
    fn publish(&self, record: Publication) -> Result<Confirmation, PublishFailure> {
        if self.is_replaced.load(Ordering::SeqCst) > 0 {
            return Err(PublishFailure::Fatal);
        }
        self.unseen.fetch_add(1, Ordering::SeqCst);
        let unseen = Unseen(self.unseen.clone());
        let (confirm, confirmed) = oneshot::channel();
        self.queue.try_send((record, confirm)).map_err(|_| PublishFailure::QueueFull)?;
        Ok(Box::pin(async move {
            let answer = confirmed.await.unwrap_or(Err(PublishFailure::Fatal));
            drop(unseen);
            answer
        }))
    }

    fn is_connected(&self) -> bool {
        self.is_replaced.load(Ordering::SeqCst) == 0
    }
}

/// Randomness from a seed.
#[derive(Debug)]
pub(super) struct Seeded(Mutex<u64>);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// The next number (splitmix64).
    pub(super) fn next(&self) -> u64 {
        let mut state = self.0.lock().expect("whole");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn place(&self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("small")
    }
}

impl Ids for Seeded {
    fn ulid(&self) -> Ulid {
        Ulid::from((u128::from(self.next()) << 64) | u128::from(self.next()))
    }

    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next().to_le_bytes()[0];
        }
    }
}

/// The simulation's clock, a little off on each machine.
#[derive(Debug)]
pub(super) struct SimulatedClock(pub(super) i64);

impl Clock for SimulatedClock {
    fn now(&self) -> Millis {
        let since = turmoil::since_epoch().unwrap_or_default();
        Millis(i64::try_from(since.as_millis()).expect("this age") + self.0)
    }
}
