//! Hop 3 of 6: publish. Puts what is stored on the log, each chat in the order of its sequences (D4.2).
//!
//! Each chat that is behind has a tail: what is confirmed, what the producer has taken, what is stored.
//! One task a tail feeds the producer and removes the tail when it is empty. Bodies wait in memory while
//! the window has room, and are read back from the store otherwise, so a log outage costs no memory.
//!
//! The next hop is `fanout/src/consume.rs`.

mod record;
mod tail;

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{
    Clock, Ids,
    ids::{ChatId, ConnectionId},
    message::{Sequence, StoredMessage},
    ports::{EventPublisher, MessageHistory, PublishFailure, event_publisher::Confirmation},
    publisher::Slot,
};
use platform::{Process, failpoint, retry::Backoff, trace};
use proto::topics::Topic;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::tail::{Held, Tail};
use crate::{Limits, metrics::Metrics, slots::SlotHold};

/// A stored message with what the request said beside it.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The message.
    pub message: StoredMessage,
    /// The connection that sent it; unknown for what is read back from the store.
    pub origin: Option<ConnectionId>,
    /// Trace context of the request.
    pub traceparent: Option<String>,
}

impl Outgoing {
    fn from_store(message: StoredMessage) -> Self {
        Self { message, origin: None, traceparent: None }
    }
}

/// Up to where a chat is on the log, as far as its writer knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// What the counter item said when it was read.
    pub stored: Sequence,
    /// The end of what was handed to [`Publish`]; without a tail, all of that is confirmed.
    pub handed: Sequence,
}

/// Whether a batch will be published by this task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// Yes.
    Taken,
    /// There are too many tails: the mark in the store is all that remembers it, until it is searched for.
    Forgotten,
}

/// Puts what is stored on the log.
pub struct Publish {
    publisher: Arc<dyn EventPublisher>,
    history: Arc<dyn MessageHistory>,
    process: Process,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    /// This process, as its events name it.
    producer: String,
    limits: Limits,
    metrics: Metrics,
    /// One permit a message in memory or in the producer.
    window: Arc<Semaphore>,
    /// Cancelled when a stopping process waits no longer.
    abandon: CancellationToken,
    tails: Mutex<Tails>,
}

#[derive(Default)]
struct Tails {
    by_chat: HashMap<ChatId, Tail>,
    forgotten: BTreeMap<Slot, Forgotten>,
}

/// A slot with chats that have no tail here although they are behind.
struct Forgotten {
    _hold: SlotHold,
    last: Instant,
}

struct Unconfirmed {
    sequence: Sequence,
    handed_over: Instant,
    confirmation: Confirmation,
    _permit: OwnedSemaphorePermit,
}

/// What the task of a tail does next.
enum Step {
    Send(Held),
    Read(Sequence),
    Wait,
    Done,
}

impl Publish {
    /// Makes it; its tasks belong to the process, and end when `abandon` is cancelled.
    pub fn new(
        publisher: Arc<dyn EventPublisher>,
        history: Arc<dyn MessageHistory>,
        process: &Process,
        limits: Limits,
        metrics: Metrics,
        abandon: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            publisher,
            history,
            process: process.clone(),
            clock: process.clock(),
            producer: format!("ingest-{}", process.ids().ulid()),
            ids: process.ids(),
            window: Arc::new(Semaphore::new(limits.publish_window as usize)),
            limits,
            metrics,
            abandon,
            tails: Mutex::default(),
        })
    }

    /// Takes over the duty to publish a batch that was just stored, and all below it. Batches of one chat
    /// come in order, none is empty. `hold` keeps the slot of the mark that the batch carries.
    pub fn committed(self: &Arc<Self>, chat: ChatId, floor: Floor, batch: Vec<Outgoing>, hold: SlotHold) -> Handed {
        let Some(target) = batch.last().map(|outgoing| outgoing.message.sequence) else { return Handed::Taken };
        let mut tails = self.tails();
        let is_full = tails.by_chat.len() >= self.limits.publish_chats as usize;
        let (tail, is_new) = match tails.by_chat.entry(chat) {
            Entry::Occupied(known) => (known.into_mut(), false),
            Entry::Vacant(_) if is_full => {
                tails.forgotten.insert(hold.slot(), Forgotten { _hold: hold, last: Instant::now() });
                return Handed::Forgotten;
            }
            // Without a tail all that was handed over is confirmed.
            Entry::Vacant(place) => (place.insert(Tail::new(floor.stored.max(floor.handed))), true),
        };
        tail.raise(floor.stored);
        tail.target = tail.target.max(target);
        tail.hold = Some(hold);
        for outgoing in batch {
            if tail.held_through().next() != outgoing.message.sequence {
                continue;
            }
            // Without room this and all after it are read back from the store.
            let Ok(permit) = self.window.clone().try_acquire_owned() else { break };
            tail.held.push_back(Held { outgoing, permit });
        }
        tail.wake.notify_one();
        if is_new {
            self.start(chat, tail);
        }
        Handed::Taken
    }

    /// Publishes what another incarnation left behind. `false` when there are too many tails: come again.
    pub fn adopt(self: &Arc<Self>, chat: ChatId, published_through: Sequence, target: Sequence) -> bool {
        let mut tails = self.tails();
        let is_full = tails.by_chat.len() >= self.limits.publish_chats as usize;
        let (tail, is_new) = match tails.by_chat.entry(chat) {
            Entry::Occupied(known) => (known.into_mut(), false),
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(place) => (place.insert(Tail::new(published_through)), true),
        };
        tail.raise(published_through);
        tail.target = tail.target.max(target);
        tail.wake.notify_one();
        if is_new {
            self.start(chat, tail);
        }
        true
    }

    /// All of the chat up to here is on the log.
    pub fn published_through(&self, chat: ChatId, floor: Floor) -> Sequence {
        let tails = self.tails();
        tails.by_chat.get(&chat).map_or(floor.stored.max(floor.handed), |tail| tail.confirmed.max(floor.stored))
    }

    /// Whether all of an adopted chat up to there is on the log.
    pub fn is_published(&self, chat: ChatId, through: Sequence) -> bool {
        self.tails().by_chat.get(&chat).is_none_or(|tail| tail.confirmed >= through)
    }

    /// Whether all that was stored is on the log.
    pub fn is_idle(&self) -> bool {
        let tails = self.tails();
        tails.by_chat.is_empty() && tails.forgotten.is_empty()
    }

    /// Whether some chats of the slot are behind without a tail.
    pub fn has_forgotten(&self, slot: Slot) -> bool {
        self.tails().forgotten.contains_key(&slot)
    }

    /// The oldest slot that must be searched for chats without a tail, and since when nothing was added to it;
    /// `None` also while there is no room for them.
    pub fn forgotten(&self) -> Option<(Slot, Instant)> {
        let tails = self.tails();
        if tails.by_chat.len() > self.limits.publish_chats as usize / 2 {
            return None;
        }
        tails.forgotten.first_key_value().map(|(slot, forgotten)| (*slot, forgotten.last))
    }

    /// A slot was searched and all found in it was adopted and published; nothing was added since `last`.
    pub fn remembered(&self, slot: Slot, last: Instant) {
        let mut tails = self.tails();
        if tails.forgotten.get(&slot).is_some_and(|forgotten| forgotten.last == last) {
            tails.forgotten.remove(&slot);
        }
    }

    fn start(self: &Arc<Self>, chat: ChatId, tail: &Tail) {
        self.metrics.chats_behind.inc();
        drop(self.process.spawn_child(self.clone().drain(chat, tail.wake.clone())));
    }

    /// Feeds the producer with one chat's tail until it is empty.
    async fn drain(self: Arc<Self>, chat: ChatId, wake: Arc<Notify>) {
        let mut unconfirmed = VecDeque::new();
        let mut failures = 0;
        loop {
            match self.step(chat, unconfirmed.is_empty()) {
                Step::Done => return,
                Step::Send(held) => match self.send(&held) {
                    Ok(confirmation) => unconfirmed.push_back(Unconfirmed {
                        sequence: held.outgoing.message.sequence,
                        handed_over: Instant::now(),
                        confirmation,
                        _permit: held.permit,
                    }),
                    Err(PublishFailure::QueueFull) => {
                        self.put_back(chat, held);
                        self.wait(chat, &mut unconfirmed, &wake, &mut failures, self.limits.retry_base).await;
                    }
                    Err(failure @ (PublishFailure::Refused | PublishFailure::Fatal)) => {
                        self.start_over(chat, &mut unconfirmed, failure, &mut failures).await;
                    }
                },
                Step::Read(after) => self.read(chat, after, &mut failures).await,
                Step::Wait => self.wait(chat, &mut unconfirmed, &wake, &mut failures, Duration::MAX).await,
            }
            if self.abandon.is_cancelled() {
                return;
            }
        }
    }

    fn step(&self, chat: ChatId, is_nothing_unconfirmed: bool) -> Step {
        let mut tails = self.tails();
        let Some(tail) = tails.by_chat.get_mut(&chat) else { return Step::Done };
        if tail.is_empty() {
            tails.by_chat.remove(&chat);
            self.metrics.chats_behind.dec();
            return Step::Done;
        }
        if let Some(held) = tail.held.pop_front() {
            tail.sent = held.outgoing.message.sequence;
            return Step::Send(held);
        }
        // Reading waits for room in the window, so this chat must hold none of it meanwhile.
        if tail.sent < tail.target && is_nothing_unconfirmed { Step::Read(tail.sent) } else { Step::Wait }
    }

    fn send(&self, held: &Held) -> Result<Confirmation, PublishFailure> {
        let message = &held.outgoing.message;
        let span = tracing::info_span!(
            parent: None,
            "durability.publish",
            trace_id = tracing::field::Empty,
            // Which partition, the producer decides: the next hop says it.
            messaging.destination.name = Topic::MessagesPersisted.name(),
            chat.id = %message.chat,
            message.sequence = message.sequence.0,
        );
        let span = trace::follow(span, held.outgoing.traceparent.as_deref());
        let traceparent = trace::carry(&span).or_else(|| held.outgoing.traceparent.clone());
        let record = record::encode(&held.outgoing, traceparent, &self.producer, self.clock.now(), self.ids.as_ref());
        failpoint::reached("publish.before");
        span.in_scope(|| self.publisher.publish(record))
    }

    fn put_back(&self, chat: ChatId, held: Held) {
        if let Some(tail) = self.tails().by_chat.get_mut(&chat) {
            tail.sent = Sequence(held.outgoing.message.sequence.0 - 1).max(tail.confirmed);
            tail.held.push_front(held);
        }
    }

    /// Waits for the first confirmation, for more to send, or for `at_most`.
    async fn wait(
        &self,
        chat: ChatId,
        unconfirmed: &mut VecDeque<Unconfirmed>,
        wake: &Notify,
        failures: &mut u32,
        at_most: Duration,
    ) {
        let confirmed = async {
            match unconfirmed.front_mut() {
                Some(first) => (&mut first.confirmation).await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = confirmed => result,
            () = wake.notified(), if at_most == Duration::MAX => return,
            () = sleep(at_most), if at_most != Duration::MAX => return,
            () = self.abandon.cancelled() => return,
        };
        match result {
            Ok(()) => {
                failpoint::reached("publish.after");
                *failures = 0;
                self.metrics.published.inc();
                if let Some(first) = unconfirmed.pop_front() {
                    self.metrics.produce_seconds.observe(first.handed_over.elapsed().as_secs_f64());
                    if let Some(tail) = self.tails().by_chat.get_mut(&chat) {
                        tail.raise(first.sequence);
                    }
                }
            }
            Err(failure) => self.start_over(chat, unconfirmed, failure, failures).await,
        }
    }

    /// Goes back to the confirmed point: what is above it is sent again, in order.
    async fn start_over(
        &self,
        chat: ChatId,
        unconfirmed: &mut VecDeque<Unconfirmed>,
        failure: PublishFailure,
        failures: &mut u32,
    ) {
        unconfirmed.clear();
        if let Some(tail) = self.tails().by_chat.get_mut(&chat) {
            tail.sent = tail.confirmed;
            tail.held.clear();
        }
        self.metrics.publish_restarts.inc();
        if *failures == 0 {
            tracing::warn!(
                event = "publish.failed",
                chat.id = %chat,
                error.message = %failure,
                "chat {chat} is published again from its confirmed point"
            );
        }
        self.pause(failures).await;
    }

    /// Reads what follows `after` back from the store.
    async fn read(&self, chat: ChatId, after: Sequence, failures: &mut u32) {
        let page = self.limits.publish_page.min(self.limits.publish_window);
        let mut room = tokio::select! {
            room = self.window.clone().acquire_many_owned(page) => match room {
                Ok(room) => room,
                Err(_) => return, // the window is never closed
            },
            () = self.abandon.cancelled() => return,
        };
        // A hole is watched for two seconds before it is passed over.
        let found = match timeout(2 * self.limits.store_timeout, self.history.after(chat, after, page)).await {
            Ok(Ok(found)) if found.through <= after => {
                complain(chat, "the store has less than its counter says", *failures);
                return self.pause(failures).await;
            }
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                complain(chat, &error, *failures);
                return self.pause(failures).await;
            }
            Err(elapsed) => {
                complain(chat, elapsed, *failures);
                return self.pause(failures).await;
            }
        };
        let mut tails = self.tails();
        let Some(tail) = tails.by_chat.get_mut(&chat) else { return };
        for message in found.messages {
            // What is above the target belongs to a batch that its writer has not handed over yet.
            if message.sequence > tail.target {
                break;
            }
            if message.sequence > tail.held_through()
                && let Some(permit) = room.split(1)
            {
                tail.held.push_back(Held { outgoing: Outgoing::from_store(message), permit });
            }
        }
        if tail.held.is_empty() {
            // Nothing up to the target, or to where the page ends: a gap, or a hole that the history has reported.
            let through = tail.target.min(found.through);
            tail.raise(through);
        }
    }

    async fn pause(&self, failures: &mut u32) {
        let backoff = Backoff { base: self.limits.retry_base, cap: self.limits.retry_cap };
        let delay = backoff.delay(*failures, self.ids.as_ref());
        *failures = failures.saturating_add(1);
        tokio::select! {
            () = sleep(delay) => {}
            () = self.abandon.cancelled() => {}
        }
    }

    fn tails(&self) -> MutexGuard<'_, Tails> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn complain(chat: ChatId, cause: impl std::fmt::Display, failures: u32) {
    if failures == 0 {
        tracing::warn!(
            event = "publish.read_failed",
            chat.id = %chat,
            error.message = %cause,
            "failed to read chat {chat} back for the log, trying on"
        );
    }
}
