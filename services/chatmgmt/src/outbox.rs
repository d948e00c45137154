//! Publishes what happened to chats, from the outbox to the log, each chat's events in order (D4.6).
//!
//! Who commits a change publishes it at once; a poll finds what a process that died left behind. A
//! shard has one publisher at a time, by a lease that is held only while there is something to do, so
//! that whoever commits next can have it.

mod record;

use std::{collections::HashSet, sync::Arc, time::Duration};

use domain::{
    Clock, Error, Ids,
    ids::ChatId,
    ports::{
        EventPublisher, Outbox, PublishFailure,
        outbox::{Entry, SHARDS, Shard},
    },
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use platform::{Process, retry::Backoff, wire};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;

/// Entries of one read.
const PAGE: u16 = 100;
/// Chats that are published at the same time.
const CHATS_AT_ONCE: usize = 16;
/// Waits for a shard that another process is publishing.
const CONTENDED: Backoff = Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(200) };
/// Tries to get such a shard before it is left to the poll.
const TRIES: u32 = 8;
/// Wait for room in the producer's queue.
const NO_ROOM: Duration = Duration::from_millis(10);

/// Wakes the publisher of a chat's shard after a commit.
#[derive(Clone)]
pub struct Wake(Arc<[Notify]>);

impl Wake {
    fn new() -> Self {
        Self((0..SHARDS).map(|_| Notify::new()).collect())
    }

    /// Something happened to that chat.
    pub fn chat(&self, chat: ChatId) {
        self.shard(Shard::of(chat)).notify_one();
    }

    fn shard(&self, shard: Shard) -> &Notify {
        &self.0[usize::from(shard.0)]
    }
}

/// How the publication of an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Ending {
    /// On the log.
    Published,
    /// Not confirmed; it stays in the outbox.
    Failed,
}

/// The label of the counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Published {
    /// How it ended.
    pub ending: Ending,
}

/// What the outbox's publisher measures.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    events: Family<Published, Counter>,
    leases_lost: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let chatmgmt = registry.sub_registry_with_prefix("chatmgmt");
        chatmgmt.register("lifecycle_events", "Events of the outbox, by how publishing ended", metrics.events.clone());
        let help = "Shards that another process took while this one was publishing";
        chatmgmt.register("outbox_leases_lost", help, metrics.leases_lost.clone());
        metrics
    }

    fn count(&self, ending: Ending) {
        self.events.get_or_create(&Published { ending }).inc();
    }
}

/// Starts to publish; ends with the process. What is not confirmed by then stays in the outbox.
pub fn start(
    outbox: Arc<dyn Outbox>,
    log: Arc<dyn EventPublisher>,
    limits: &Limits,
    metrics: Metrics,
    process: &Process,
) -> Wake {
    let wake = Wake::new();
    let publisher = Arc::new(Publisher {
        outbox,
        log,
        wake: wake.clone(),
        holder: format!("chatmgmt-{}", process.ids().ulid()),
        lease: limits.outbox_lease,
        poll: Backoff { base: limits.outbox_poll, cap: limits.outbox_poll },
        clock: process.clock(),
        ids: process.ids(),
        metrics,
        stop: process.stop_token(),
    });
    for shard in Shard::all() {
        process.spawn("outbox", publisher.clone().serve(shard));
    }
    wake
}

struct Publisher {
    outbox: Arc<dyn Outbox>,
    log: Arc<dyn EventPublisher>,
    wake: Wake,
    holder: String,
    lease: Duration,
    poll: Backoff,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Publisher {
    async fn serve(self: Arc<Self>, shard: Shard) -> anyhow::Result<()> {
        let mut is_away = false;
        loop {
            let commit = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = self.wake.shard(shard).notified() => true,
                () = tokio::time::sleep(self.poll.delay(0, self.ids.as_ref())) => false,
            };
            let result = tokio::select! {
                () = self.stop.cancelled() => Ok(()),
                result = self.empty(shard, commit) => result,
            };
            if self.stop.is_cancelled() {
                // Whoever goes on need not wait for the lease to expire.
                drop(self.outbox.release(shard, &self.holder).await);
                return Ok(());
            }
            match result {
                Ok(()) => is_away = false,
                Err(error) if !is_away => {
                    is_away = true;
                    tracing::warn!(
                        event = "outbox.away",
                        error.code = wire::code(&error),
                        error.message = %error,
                        "shard {} of the outbox can't be published now", shard.0
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// Publishes what is in the shard, unless another process does so already.
    async fn empty(&self, shard: Shard, has_commit: bool) -> Result<(), Error> {
        for attempt in 0..TRIES {
            // After a local commit there is something for sure, the first time.
            let is_sure = has_commit && attempt == 0;
            if !is_sure && self.outbox.entries(shard, None, 1).await?.is_empty() {
                return Ok(());
            }
            if self.take(shard).await? {
                let published = tokio::select! {
                    published = self.publish_shard(shard) => published,
                    () = self.keep(shard) => {
                        self.metrics.leases_lost.inc();
                        return Ok(());
                    }
                };
                self.outbox.release(shard, &self.holder).await?;
                return published;
            }
            if !has_commit {
                return Ok(());
            }
            tokio::time::sleep(CONTENDED.delay(attempt, self.ids.as_ref())).await;
        }
        Ok(())
    }

    async fn take(&self, shard: Shard) -> Result<bool, Error> {
        let now = self.clock.now();
        self.outbox.lease(shard, &self.holder, now, now + self.lease).await
    }

    /// Renews the lease; ends when it is lost.
    async fn keep(&self, shard: Shard) {
        let mut renewed = self.clock.now();
        loop {
            tokio::time::sleep(self.lease / 3).await;
            let now = self.clock.now();
            match self.outbox.lease(shard, &self.holder, now, now + self.lease).await {
                Ok(true) => renewed = now,
                Ok(false) => return,
                Err(_) if self.clock.now().since(renewed) >= self.lease => return,
                Err(_) => {}
            }
        }
    }

    async fn publish_shard(&self, shard: Shard) -> Result<(), Error> {
        let mut stuck: HashSet<ChatId> = HashSet::new();
        let mut last: Option<Entry> = None;
        let mut failure = None;
        loop {
            let page = self.outbox.entries(shard, last.as_ref(), PAGE).await?;
            let Some(end) = page.last().cloned() else { break };
            last = Some(end);
            let mut publishing: Vec<BoxFuture<'_, (ChatId, Result<(), Error>)>> = Vec::new();
            for entries in page.chunk_by(|one, next| one.event.chat == next.event.chat) {
                let chat = entries[0].event.chat;
                if !stuck.contains(&chat) {
                    publishing.push(self.publish_chat(entries).map(move |result| (chat, result)).boxed());
                }
            }
            let results: Vec<_> = stream::iter(publishing).buffer_unordered(CHATS_AT_ONCE).collect().await;
            for (chat, result) in results {
                if let Err(error) = result {
                    stuck.insert(chat);
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Publishes entries of one chat, one after the other.
    async fn publish_chat(&self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            let is_whole = entry.pending.is_empty();
            while !is_whole && !self.outbox.complete(entry.event.chat).await? {}
            if let Err(failure) = self.publish(entry).await {
                self.metrics.count(Ending::Failed);
                tracing::error!(
                    event = "outbox.publish_failed",
                    chat.id = %entry.event.chat,
                    event.id = %entry.event.id,
                    error.message = %failure,
                    "event {} of chat {} is not published", entry.event.id, entry.event.chat,
                );
                return Err(Error::unavailable("the log did not take an event", failure));
            }
            self.metrics.count(Ending::Published);
            self.outbox.delete(entry).await?;
        }
        Ok(())
    }

    async fn publish(&self, entry: &Entry) -> Result<(), PublishFailure> {
        let (first, rest) = record::records(&entry.event, &self.holder);
        // Who hears of the members has heard of the chat.
        self.confirmed(first).await?;
        let mut following: Vec<BoxFuture<'_, Result<(), PublishFailure>>> = Vec::with_capacity(rest.len());
        for record in rest {
            following.push(self.confirmed(record).boxed());
        }
        let rest: Vec<_> = stream::iter(following).buffered(PAGE.into()).collect().await;
        rest.into_iter().collect()
    }

    async fn confirmed(&self, record: domain::ports::Publication) -> Result<(), PublishFailure> {
        loop {
            match self.log.publish(record.clone()) {
                Ok(confirmation) => return confirmation.await,
                Err(PublishFailure::QueueFull) => tokio::time::sleep(NO_ROOM).await,
                Err(failure) => return Err(failure),
            }
        }
    }
}
