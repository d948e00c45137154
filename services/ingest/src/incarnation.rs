//! This process's lease: while it runs, the process may store messages (D4.3).

use std::sync::{Arc, Mutex, PoisonError};

use domain::{
    Clock, Error, Ids, Millis,
    ports::Incarnations,
    publisher::{Claim, Incarnation, Lease},
};
use platform::{Gate, Liveness, failpoint, retry::Backoff, wire};
use tokio::time::{Instant, sleep, timeout};

use crate::{Limits, metrics::Metrics, slots::Slots};

/// The lease of this process, renewed until it ends; a lost one is followed by a new incarnation.
pub struct Tenure {
    incarnations: Arc<dyn Incarnations>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    slots: Slots,
    limits: Limits,
    metrics: Metrics,
    held: Mutex<Option<Held>>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    incarnation: Incarnation,
    /// As it stands in the store, if every renewal was answered.
    expires_at: Millis,
    /// Measured from before the renewal was sent, so that nobody else sees the lease expired earlier.
    until: Instant,
}

impl Tenure {
    /// A process without a lease yet: [`Tenure::keep`] takes one.
    pub fn new(
        incarnations: Arc<dyn Incarnations>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        slots: Slots,
        limits: Limits,
        metrics: Metrics,
    ) -> Self {
        Self { incarnations, clock, ids, slots, limits, metrics, held: Mutex::new(None) }
    }

    /// As whom this process may store messages at this moment; `None` while its lease has expired.
    pub fn current(&self) -> Option<Incarnation> {
        let held = *self.held();
        held.filter(|held| Instant::now() < held.until).map(|held| held.incarnation)
    }

    /// Whether this is the lease of this process, expired or not.
    pub fn is_own(&self, incarnation: Incarnation) -> bool {
        self.held().is_some_and(|held| held.incarnation == incarnation)
    }

    /// Takes a lease, renews it, and takes another when it is lost. Never ends; the gate is open while there is a
    /// lease, and each call to the store, answered or not, is a beat.
    pub async fn keep(&self, gate: &Gate, alive: &Liveness) {
        loop {
            let incarnation = self.open(gate, alive).await;
            gate.open();
            self.renew_until_lost(incarnation, gate, alive).await;
            gate.close_for("the lease was lost");
            *self.held() = None;
            self.metrics.leases_lost.inc();
            tracing::error!(
                event = "lease.lost",
                incarnation.id = %incarnation,
                "incarnation {incarnation} lost its lease, so a new one begins"
            );
        }
    }

    /// Ends the lease: whoever looks for something to take over finds nothing, or at once what is left.
    pub async fn end(&self, is_left: Left) {
        let Some(held) = self.held().take() else { return };
        let oldest_slot = self.slots.oldest(self.clock.now());
        let lease = Lease { incarnation: held.incarnation, expires_at: held.expires_at, oldest_slot, claim: None };
        let ended = match is_left {
            Left::Nothing => self.bounded(self.incarnations.close(&lease)).await,
            Left::Unpublished => {
                let given_back = Claim::given_back(held.incarnation);
                // Refused: somebody has claimed it, or it lapses for another to claim.
                self.bounded(self.incarnations.claim(&lease, given_back)).await.map(|_| ())
            }
        };
        if let Err(error) = ended {
            tracing::warn!(
                event = "lease.end_failed",
                error.code = wire::code(&error),
                error.message = %error,
                "failed to end the lease, so others wait for it to expire"
            );
        }
    }

    async fn open(&self, gate: &Gate, alive: &Liveness) -> Incarnation {
        let incarnation = Incarnation::new(self.ids.as_ref());
        let backoff = Backoff { base: self.limits.retry_base, cap: self.limits.lease_renewal };
        let mut attempt = 0;
        loop {
            let (asked, now) = (Instant::now(), self.clock.now());
            let expires_at = self.expires_at(now);
            let lease = Lease { incarnation, expires_at, oldest_slot: self.slots.oldest(now), claim: None };
            match self.bounded(self.incarnations.open(&lease)).await {
                Ok(()) => {
                    self.metrics.store_available.set(1);
                    *self.held() = Some(Held { incarnation, expires_at, until: asked + self.limits.lease_ttl });
                    tracing::info!(event = "lease.taken", incarnation.id = %incarnation, "incarnation {incarnation} begins");
                    return incarnation;
                }
                Err(error) => {
                    self.metrics.store_available.set(0);
                    gate.close_for(error.to_string());
                    if attempt == 0 {
                        tracing::warn!(
                            event = "lease.take_failed",
                            error.code = wire::code(&error),
                            error.message = %error,
                            "failed to take a lease, trying on"
                        );
                    }
                }
            }
            alive.beat();
            sleep(backoff.delay(attempt, self.ids.as_ref())).await;
            attempt += 1;
        }
    }

    /// What a lease says of its end. By it whoever takes over knows the newest slot, and that it is renewed: so it covers
    /// every slot, and rises also while the clock stands behind them.
    fn expires_at(&self, now: Millis) -> Millis {
        let covers_all = self.slots.no_earlier(now) + self.limits.lease_ttl;
        let held = *self.held();
        held.map_or(covers_all, |held| covers_all.max(Millis(held.expires_at.0 + 1)))
    }

    async fn renew_until_lost(&self, incarnation: Incarnation, gate: &Gate, alive: &Liveness) {
        let mut failures = 0_u32;
        loop {
            sleep(self.limits.lease_renewal).await;
            alive.beat();
            let (asked, now) = (Instant::now(), self.clock.now());
            let expires_at = self.expires_at(now);
            failpoint::reached("lease.renew");
            let renewal = self.incarnations.renew(incarnation, expires_at, self.slots.oldest(now));
            match self.bounded(renewal).await {
                Ok(true) => {
                    self.metrics.store_available.set(1);
                    // An expired lease that nobody claimed is as good as a new one: whoever would have
                    // claimed it after this renewal fails, for it is not what they saw.
                    *self.held() = Some(Held { incarnation, expires_at, until: asked + self.limits.lease_ttl });
                    if failures > 0 {
                        gate.open();
                    }
                    failures = 0;
                }
                Ok(false) => return,
                Err(error) => {
                    self.metrics.store_available.set(0);
                    if failures == 0 {
                        tracing::warn!(
                            event = "lease.renew_failed",
                            error.code = wire::code(&error),
                            error.message = %error,
                            "failed to renew the lease, trying on"
                        );
                    }
                    failures = failures.saturating_add(1);
                    if self.current().is_none() {
                        gate.close_for(error.to_string());
                    }
                }
            }
        }
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match timeout(self.limits.store_timeout, call).await {
            Ok(result) => result,
            Err(elapsed) => Err(Error::unavailable("the store does not answer", elapsed)),
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process leaves behind when it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// All it stored is on the log.
    Nothing,
    /// Somebody must publish the rest.
    Unpublished,
}
