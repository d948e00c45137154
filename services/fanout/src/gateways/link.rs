//! The delivery stream to one address: connected when needed, frames out, answers in, and what is owed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::ids::UserId;
use platform::{grpc::InternalToken, retry::Backoff};
use proto::messaging::v1::{DeliveryAnswer, DeliveryFrame, delivery_answer::Outcome, delivery_client::DeliveryClient};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Endpoint};

use super::Gateways;
use crate::config::Limits;

/// Waits between attempts to connect.
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(1) };
/// How often a silent connection is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A frame for the stream, and who waits for its answer.
pub(super) struct Outgoing {
    pub(super) frame: DeliveryFrame,
    /// Who was owed when it was sent.
    pub(super) owed: Owed,
    pub(super) reply: oneshot::Sender<DeliveryAnswer>,
}

/// Who missed a frame.
#[derive(Debug, Default)]
pub(super) struct Owed {
    users: BTreeSet<UserId>,
    /// They are more than are remembered.
    is_everybody: bool,
}

impl Owed {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && !self.is_everybody
    }

    /// Adds others; when all are more than the limit, it is everybody.
    fn add(&mut self, more: Self, limit: usize) {
        self.users.extend(more.users);
        self.is_everybody |= more.is_everybody || self.users.len() > limit;
        if self.is_everybody {
            self.users = BTreeSet::new();
        }
    }
}

impl From<&[UserId]> for Owed {
    fn from(users: &[UserId]) -> Self {
        Self { users: users.iter().copied().collect(), is_everybody: false }
    }
}

/// The stream as its users see it.
pub(super) struct Link {
    queue: mpsc::Sender<Outgoing>,
    /// It does not answer: nothing is sent until it does.
    is_stalled: AtomicBool,
    has_ended: AtomicBool,
    /// By run of the gateway.
    owed: Mutex<BTreeMap<String, Owed>>,
    owed_limit: usize,
    owes: Notify,
}

impl Link {
    /// `false`: the gateway is skipped.
    pub(super) fn send(&self, outgoing: Outgoing) -> bool {
        !self.is_stalled.load(Ordering::Acquire) && self.queue.try_send(outgoing).is_ok()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    pub(super) fn owe(&self, gateway: &str, more: Owed) {
        if more.is_empty() {
            return;
        }
        let mut all = self.owed();
        let owed = all.entry(gateway.to_owned()).or_default();
        let was_everybody = owed.is_everybody;
        owed.add(more, self.owed_limit);
        if owed.is_everybody && !was_everybody {
            tracing::warn!(
                event = "owed.overflowed",
                gateway,
                "more users of {gateway} are owed a frame than are remembered: all of them sync"
            );
        }
        drop(all);
        self.owes.notify_one();
    }

    pub(super) fn forget(&self, gateway: &str) {
        self.owed().remove(gateway);
    }

    pub(super) fn end_if_unused(&self) -> bool {
        let is_unused = self.queue.capacity() == self.queue.max_capacity() && self.owed().is_empty();
        self.has_ended.store(is_unused, Ordering::Release);
        is_unused
    }

    fn take_owed(&self, gateway: &str) -> Owed {
        self.owed().remove(gateway).unwrap_or_default()
    }

    /// Forgets what is owed; returns to whose users it was.
    fn give_up(&self) -> Vec<String> {
        std::mem::take(&mut *self.owed()).into_keys().collect()
    }

    fn any_owed(&self) -> Option<String> {
        self.owed().keys().next().cloned()
    }

    fn owed(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a stream to that address; it connects when there is something to send.
pub(super) fn start(gateways: Arc<Gateways>, address: &str) -> Arc<Link> {
    let in_flight = gateways.limits.delivery_in_flight as usize;
    let (queue, outgoing) = mpsc::channel(in_flight);
    let link = Arc::new(Link {
        queue,
        is_stalled: AtomicBool::new(false),
        has_ended: AtomicBool::new(false),
        owed: Mutex::new(BTreeMap::new()),
        owed_limit: gateways.limits.owed_users as usize,
        owes: Notify::new(),
    });
    let (process, limits, token) = (gateways.process.clone(), gateways.limits.clone(), gateways.token.clone());
    let (kept, address) = (link.clone(), address.to_owned());
    // A stopping process finishes the records that it has begun: their frames need the stream.
    process.spawn_last("delivery stream", |stop| async move {
        let task = Task { link: kept, outgoing, address, limits, token, stop, frames: 0 };
        task.run(&gateways).await;
        Ok(())
    });
    link
}

/// The stream's own task.
struct Task {
    link: Arc<Link>,
    outgoing: mpsc::Receiver<Outgoing>,
    address: String,
    limits: Limits,
    token: InternalToken,
    stop: CancellationToken,
    frames: u64,
}

/// A frame that waits for its answer.
struct Pending {
    frame_id: u64,
    gateway: String,
    owed: Owed,
    reply: oneshot::Sender<DeliveryAnswer>,
    put: Instant,
}

impl Task {
    async fn run(mut self, gateways: &Gateways) {
        let mut failures = 0;
        let mut failing_since = Instant::now();
        while let Some(first) = self.first(gateways).await {
            let failed = match self.connect().await {
                Ok((frames, answers)) => {
                    self.link.is_stalled.store(false, Ordering::Release);
                    let (ended, heard) = self.serve(first, frames, answers).await;
                    if heard {
                        (failures, failing_since) = (0, Instant::now());
                    }
                    ended
                }
                Err(error) => {
                    self.link.owe(&first.frame.gateway_id, first.owed);
                    error
                }
            };
            if self.stop.is_cancelled() {
                break;
            }
            let address = &self.address;
            tracing::info!(
                event = "gateway.unreachable",
                gateway = %address,
                error.message = %failed,
                "no delivery stream to {address}"
            );
            // Nobody answers: skip it at once for a while.
            self.link.is_stalled.store(true, Ordering::Release);
            while self.outgoing.try_recv().is_ok() {}
            if failing_since.elapsed() > self.limits.gateway_idle {
                failing_since = Instant::now();
                gateways.leave_to_themselves(self.link.give_up()).await;
            }
            let until = Instant::now() + RECONNECT.delay(failures, gateways.process.ids().as_ref());
            failures += 1;
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.stop.cancelled() => break,
            }
            self.link.is_stalled.store(false, Ordering::Release);
        }
        self.link.has_ended.store(true, Ordering::Release);
        gateways.leave_to_themselves(self.link.give_up()).await;
    }

    /// Waits for something to send: a frame, or the name of somebody who is owed one.
    async fn first(&mut self, gateways: &Gateways) -> Option<Outgoing> {
        loop {
            tokio::select! {
                outgoing = self.outgoing.recv() => return outgoing,
                () = self.link.owes.notified() => {
                    if let Some(reminder) = self.reminder() {
                        return Some(reminder);
                    }
                }
                () = tokio::time::sleep(self.limits.gateway_idle) => {
                    if gateways.end_if_unused(&self.address, &self.link) {
                        return None;
                    }
                }
                () = self.stop.cancelled() => return None,
            }
        }
    }

    async fn connect(&self) -> Result<(mpsc::Sender<DeliveryFrame>, Streaming<DeliveryAnswer>), String> {
        let within = self.limits.delivery_timeout;
        let connecting = async {
            let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(|e| e.to_string())?;
            let channel = endpoint
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(within)
                .keep_alive_while_idle(true)
                .connect()
                .await
                .map_err(|error| format!("{error:?}"))?;
            let (frames, stream) = mpsc::channel(self.limits.delivery_in_flight as usize);
            let mut client = DeliveryClient::with_interceptor(channel, self.token.attach());
            let answers = client.deliver(ReceiverStream::new(stream)).await.map_err(|status| status.to_string())?;
            Ok((frames, answers.into_inner()))
        };
        timeout(within, connecting).await.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
    }

    /// Sends and hears until the stream ends; says why it did, and whether the gateway answered at all.
    async fn serve(
        &mut self,
        first: Outgoing,
        frames: mpsc::Sender<DeliveryFrame>,
        mut answers: Streaming<DeliveryAnswer>,
    ) -> (String, bool) {
        let limit = self.limits.delivery_in_flight as usize;
        let mut pending: VecDeque<Pending> = VecDeque::new();
        let mut next = Some(first);
        // A gateway with much to do answers late, frame after frame: only one that says nothing is stalled.
        let mut heard: Option<Instant> = None;
        let ended = loop {
            if let Some(outgoing) = next.take()
                && !self.put(outgoing, &frames, &mut pending)
            {
                break "the gateway closed it".to_owned();
            }
            let late = pending.front().map_or_else(
                || Instant::now() + KEEP_ALIVE,
                |oldest| heard.map_or(oldest.put, |heard| heard.max(oldest.put)) + self.limits.delivery_timeout,
            );
            let is_stalled = self.link.is_stalled.load(Ordering::Acquire);
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Some(wrong) = self.hear(answer, &mut pending) {
                            break wrong;
                        }
                        heard = Some(Instant::now());
                        self.link.is_stalled.store(false, Ordering::Release);
                        if self.link.any_owed().is_some() {
                            self.link.owes.notify_one();
                        }
                    }
                    Ok(None) => break "the gateway ended it".to_owned(),
                    Err(status) => break status.to_string(),
                },
                outgoing = self.outgoing.recv(), if pending.len() < limit => match outgoing {
                    Some(outgoing) => next = Some(outgoing),
                    None => break "nobody uses it".to_owned(),
                },
                () = self.link.owes.notified(), if pending.len() < limit && !is_stalled => next = self.reminder(),
                () = sleep_until(late), if !pending.is_empty() && !is_stalled => {
                    self.link.is_stalled.store(true, Ordering::Release);
                }
                () = self.stop.cancelled(), if pending.is_empty() => break "the process stops".to_owned(),
            }
        };
        for lost in pending {
            self.link.owe(&lost.gateway, lost.owed);
        }
        (ended, heard.is_some())
    }

    /// `false`: the stream takes no more.
    fn put(
        &mut self,
        mut outgoing: Outgoing,
        frames: &mpsc::Sender<DeliveryFrame>,
        pending: &mut VecDeque<Pending>,
    ) -> bool {
        self.frames += 1;
        let gateway = outgoing.frame.gateway_id.clone();
        outgoing.owed.add(self.link.take_owed(&gateway), self.link.owed_limit);
        outgoing.frame.frame_id = self.frames;
        outgoing.frame.owed_user_ids = outgoing.owed.users.iter().map(UserId::to_string).collect();
        outgoing.frame.is_everybody_owed = outgoing.owed.is_everybody;
        let is_taken = frames.try_send(outgoing.frame).is_ok();
        pending.push_back(Pending {
            frame_id: self.frames,
            gateway,
            owed: outgoing.owed,
            reply: outgoing.reply,
            put: Instant::now(),
        });
        is_taken
    }

    /// Passes an answer on; says what is wrong with it, if anything.
    fn hear(&self, answer: DeliveryAnswer, pending: &mut VecDeque<Pending>) -> Option<String> {
        let Some(asked) = pending.pop_front() else { return Some("an answer without a frame".to_owned()) };
        if asked.frame_id != answer.frame_id {
            let wrong = format!("frame {} was answered as {}", asked.frame_id, answer.frame_id);
            pending.push_front(asked);
            return Some(wrong);
        }
        if answer.outcome() == Outcome::Unknown {
            self.link.forget(&asked.gateway);
        }
        if asked.reply.send(answer).is_err() {
            tracing::trace!("an answer came after its deadline");
        }
        None
    }

    /// A frame that only names who is owed.
    fn reminder(&self) -> Option<Outgoing> {
        let gateway = self.link.any_owed()?;
        let frame = DeliveryFrame { gateway_id: gateway, ..DeliveryFrame::default() };
        Some(Outgoing { frame, owed: Owed::default(), reply: oneshot::channel().0 })
    }
}
