//! Publishes what dead incarnations left behind: finds their leases, claims one, searches its marks (D4.3, D4.4).
//!
//! A claimed lease is searched again for a while, because the index lags and a last batch may arrive late.
//! It is closed when everything found is on the log. The same search brings back chats of this process that
//! were too many to remember.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{
    Clock, Error,
    ids::ChatId,
    message::Sequence,
    ports::{Incarnations, MessageLog},
    publisher::{Claim, Incarnation, Lease, PublisherMark, Slot},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use platform::{Process, wire};
use tokio::time::{Instant, sleep, timeout};

use crate::{Limits, incarnation::Tenure, metrics::Metrics, publish::Publish};

/// Reads of one search that may be under way at a time.
const SEARCHES_AT_ONCE: usize = 16;

/// Looks for abandoned leases and takes them over.
pub struct Republish {
    incarnations: Arc<dyn Incarnations>,
    log: Arc<dyn MessageLog>,
    publish: Arc<Publish>,
    tenure: Arc<Tenure>,
    process: Process,
    clock: Arc<dyn Clock>,
    limits: Limits,
    metrics: Metrics,
}

/// Others' leases as they were when they last changed, and since when, by this process's own clock. Clocks of other
/// machines may be wrong, so that the times in a lease tell nothing here.
type Watched = HashMap<Incarnation, (Lease, Instant)>;

/// What a search has found so far: up to where each chat is to be on the log.
type Found = Mutex<HashMap<ChatId, Sequence>>;

impl Republish {
    /// Makes it; its tasks belong to the process.
    pub fn new(
        incarnations: Arc<dyn Incarnations>,
        log: Arc<dyn MessageLog>,
        publish: Arc<Publish>,
        tenure: Arc<Tenure>,
        process: &Process,
        limits: Limits,
        metrics: Metrics,
    ) -> Arc<Self> {
        let (process, clock) = (process.clone(), process.clock());
        Arc::new(Self { incarnations, log, publish, tenure, process, clock, limits, metrics })
    }

    /// Looks around until the process stops.
    pub async fn run(self: Arc<Self>) {
        let mut failures = 0_u32;
        let mut remembering = None;
        let mut watched = Watched::new();
        loop {
            tokio::select! {
                () = sleep(self.limits.takeover_interval) => {}
                () = self.process.stopping() => return,
            }
            let Some(own) = self.tenure.current() else { continue };
            let looked = async {
                self.look_around(own, &mut watched).await?;
                self.remember(own, &mut remembering).await
            };
            match looked.await {
                Ok(()) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(
                            event = "takeover.look_failed",
                            error.code = wire::code(&error),
                            error.message = %error,
                            "failed to look for abandoned leases, trying on"
                        );
                    }
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    async fn look_around(self: &Arc<Self>, own: Incarnation, watched: &mut Watched) -> Result<(), Error> {
        let leases = self.bounded(self.incarnations.list()).await?;
        let seen_at = Instant::now();
        watched.retain(|incarnation, _| leases.iter().any(|lease| lease.incarnation == *incarnation));
        for lease in leases.into_iter().filter(|lease| !self.tenure.is_own(lease.incarnation)) {
            let (known, since) = watched.entry(lease.incarnation).or_insert_with(|| (lease.clone(), seen_at));
            if *known != lease {
                (*known, *since) = (lease.clone(), seen_at);
            }
            if !lease.is_given_back() && seen_at.duration_since(*since) < self.limits.lease_ttl {
                continue;
            }
            let claim = Claim { by: own, until: self.clock.now() + self.limits.lease_ttl };
            if self.bounded(self.incarnations.claim(&lease, claim)).await? {
                let claimed = Lease { claim: Some(claim), ..lease };
                drop(self.process.spawn_child(self.clone().take_over(claimed)));
            }
        }
        Ok(())
    }

    /// Finds chats of this process that were too many to remember. What a search without enough room has
    /// found is kept for the next.
    async fn remember(&self, own: Incarnation, remembering: &mut Option<(Slot, Found)>) -> Result<(), Error> {
        let Some((slot, last)) = self.publish.forgotten() else { return Ok(()) };
        let (_, found) = match remembering.take() {
            Some(kept) if kept.0 == slot => remembering.insert(kept),
            _ => remembering.insert((slot, Found::default())),
        };
        let began = Instant::now();
        self.search(own, slot, slot, found).await?;
        // Late entries of the index are found by a later search.
        if began.duration_since(last) > self.limits.takeover_watch && self.are_published(found) {
            self.publish.remembered(slot, last);
            *remembering = None;
        }
        Ok(())
    }

    /// Publishes what the incarnation left behind, as long as the claim holds.
    async fn take_over(self: Arc<Self>, lease: Lease) {
        let dead = lease.incarnation;
        tracing::info!(event = "takeover.began", incarnation.id = %dead, "taking over what incarnation {dead} left behind");
        tokio::select! {
            () = self.publish_all(&lease) => {
                if let Err(error) = self.bounded(self.incarnations.close(&lease)).await {
                    tracing::warn!(
                        event = "takeover.close_failed",
                        incarnation.id = %dead,
                        error.code = wire::code(&error),
                        error.message = %error,
                        "failed to close the lease of {dead}"
                    );
                }
            }
            () = self.keep_claim(lease.clone()) => {
                tracing::warn!(
                    event = "takeover.claim_lost",
                    incarnation.id = %dead,
                    "lost the claim on what incarnation {dead} left behind"
                );
            }
            () = self.process.stopping() => {}
        }
    }

    /// Renews the claim; ends when it is lost.
    async fn keep_claim(&self, mut lease: Lease) {
        let mut valid_until = Instant::now() + self.limits.lease_ttl;
        loop {
            sleep(self.limits.lease_renewal).await;
            let Some(by) = lease.claim.map(|claim| claim.by) else { return };
            let asked = Instant::now();
            let claim = Claim { by, until: self.clock.now() + self.limits.lease_ttl };
            match self.bounded(self.incarnations.claim(&lease, claim)).await {
                Ok(true) => {
                    lease.claim = Some(claim);
                    valid_until = asked + self.limits.lease_ttl;
                }
                // An answer may have been lost: then the next try fails and the claim lapses for another to take.
                Err(_) if Instant::now() < valid_until => {}
                Ok(false) | Err(_) => return,
            }
        }
    }

    async fn publish_all(&self, lease: &Lease) {
        let began = Instant::now();
        // A clock may have stepped back a little before the end.
        let newest = Slot(Slot::of(lease.expires_at).0 + 1);
        let found = Found::default();
        let mut failures = 0_u32;
        loop {
            let searched = Instant::now();
            match self.search(lease.incarnation, lease.oldest_slot, newest, &found).await {
                Ok(()) => {
                    failures = 0;
                    let is_late_enough = searched.duration_since(began) >= self.limits.takeover_watch;
                    if is_late_enough && self.are_published(&found) {
                        return;
                    }
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(
                            event = "takeover.search_failed",
                            error.code = wire::code(&error),
                            error.message = %error,
                            "failed to search for unpublished chats, trying on"
                        );
                    }
                    failures = failures.saturating_add(1);
                }
            }
            sleep(self.limits.takeover_interval).await;
        }
    }

    /// Hands every chat that carries a mark of these slots and is behind to [`Publish`].
    async fn search(&self, incarnation: Incarnation, oldest: Slot, newest: Slot, found: &Found) -> Result<(), Error> {
        let marks = (oldest.0..=newest.0).flat_map(|slot| PublisherMark::all(incarnation, Slot(slot)));
        let marked = stream::iter(marks)
            .map(|mark| async move { self.bounded(self.log.marked(mark)).await.map(|chats| (mark, chats)) })
            .buffer_unordered(SEARCHES_AT_ONCE);
        marked
            .map_ok(|(mark, chats)| stream::iter(chats.into_iter().map(move |chat| Ok((mark, chat)))))
            .try_flatten()
            .try_for_each_concurrent(SEARCHES_AT_ONCE, |(mark, chat)| self.look_at(mark, chat, found))
            .await
    }

    async fn look_at(&self, mark: PublisherMark, chat: ChatId, found: &Found) -> Result<(), Error> {
        let Some(head) = self.bounded(self.log.head(chat)).await? else { return Ok(()) };
        // Whoever stored something since has taken over the duty.
        let is_left = head.publisher == Some(mark) && head.published_through < head.sequence;
        let is_known = |known: &HashMap<ChatId, Sequence>| known.get(&chat).is_some_and(|end| *end >= head.sequence);
        if !is_left || is_known(&found.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        if !self.publish.adopt(chat, head.published_through, head.sequence) {
            return Err(Error::unavailable("no room", "too many chats are behind on the log"));
        }
        self.metrics.taken_over.inc();
        found.lock().unwrap_or_else(PoisonError::into_inner).insert(chat, head.sequence);
        Ok(())
    }

    fn are_published(&self, found: &Found) -> bool {
        let found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().all(|(chat, end)| self.publish.is_published(*chat, *end))
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match timeout(self.limits.store_timeout, call).await {
            Ok(result) => result,
            Err(elapsed) => Err(Error::unavailable("the store does not answer", elapsed)),
        }
    }
}
