//! Which of several operators acts: a Lease, and a fence that falls by the local clock.
//!
//! The constants are those of Kubernetes' own controllers: a lease of 15 s, which its holder renews every 2 s and gives up
//! 10 s after the last renewal that succeeded. So a holder that is cut off has stopped 5 s before another may begin.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a lease holds after its last renewal, as others see it.
const DURATION: Duration = Duration::from_secs(15);
/// How long its holder believes in it after its last renewal.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between attempts.
const RETRY: Duration = Duration::from_secs(2);
/// How long one attempt may take: far below the deadline, or one slow call would lose the lease.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Says whether this process may still change anything. Asked before every write outside the API server.
#[derive(Clone, Debug)]
pub struct Fence {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    begun: Instant,
    /// Milliseconds since `begun` until which this process holds the lease; 0 when it does not.
    until: AtomicU64,
}

/// This process does not hold the lease, or can't be sure that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this operator does not hold the lease")]
pub struct NotLeader;

impl Fence {
    /// A fence that is down.
    pub fn new() -> Self {
        Self { inner: Arc::new(Inner { begun: Instant::now(), until: AtomicU64::new(0) }) }
    }

    /// Whether this process may write now.
    ///
    /// # Errors
    /// [`NotLeader`] when it may not.
    pub fn check(&self) -> Result<(), NotLeader> {
        let now = self.millis(Instant::now());
        if now < self.inner.until.load(Ordering::Acquire) { Ok(()) } else { Err(NotLeader) }
    }

    /// Lets this process write until an instant.
    pub fn hold_until(&self, instant: Instant) {
        self.inner.until.store(self.millis(instant), Ordering::Release);
    }

    /// Lets it write no longer.
    pub fn fall(&self) {
        self.inner.until.store(0, Ordering::Release);
    }

    fn millis(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.inner.begun).as_millis()).unwrap_or(u64::MAX)
    }
}

impl crate::engine::Fence for Fence {
    fn check(&self) -> Result<(), NotLeader> {
        Self::check(self)
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::new()
    }
}

/// One candidate.
pub struct Election {
    leases: Api<Lease>,
    name: String,
    holder: String,
    fence: Fence,
    /// The lease as it was seen last, and since when it has looked like that by the local clock.
    seen: Option<(String, Instant)>,
}

impl Election {
    /// A candidate that isn't elected yet. `client` must not retry by itself.
    pub fn new(client: Client, namespace: &str, name: &str, holder: String, fence: Fence) -> Self {
        Self { leases: Api::namespaced(client, namespace), name: name.to_owned(), holder, fence, seen: None }
    }

    /// Waits until this process holds the lease, or `stop`.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        loop {
            if self.attempt().await {
                return true;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Renews the lease until it is lost (an error) or `stop`; it is given back then.
    ///
    /// # Errors
    /// [`NotLeader`] when the deadline passed without a renewal, or another holds the lease.
    pub async fn keep(&mut self, stop: &CancellationToken) -> Result<(), NotLeader> {
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
                () = tokio::time::sleep(RETRY) => {}
            }
            if !self.attempt().await && self.fence.check().is_err() {
                return Err(NotLeader);
            }
        }
    }

    /// Tries once to take or renew the lease.
    async fn attempt(&mut self) -> bool {
        let begun = Instant::now();
        match tokio::time::timeout(ATTEMPT, self.write(begun)).await {
            Ok(Ok(true)) => {
                self.fence.hold_until(begun + RENEW_DEADLINE);
                true
            }
            Ok(Ok(false)) => {
                self.fence.fall();
                false
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease could not be written: {error}");
                false
            }
            Err(_) => {
                tracing::warn!("the lease could not be written within {ATTEMPT:?}");
                false
            }
        }
    }

    /// Takes or renews the lease; `false` when another holds it.
    async fn write(&mut self, now: Instant) -> kube::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return lost_race(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.holder && !holder.is_empty() {
            // Clocks of other machines say nothing: what counts is how long the lease has looked the same from here.
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            let since = match &self.seen {
                Some((seen, since)) if *seen == version => *since,
                Some(_) | None => now,
            };
            self.seen = Some((version, since));
            let lasts = Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().unsigned_abs().into());
            if now.duration_since(since) <= lasts.max(Duration::from_secs(1)) {
                return Ok(false);
            }
        }
        lease.spec = Some(self.spec(Some(&spec)));
        lost_race(self.leases.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_renewal = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.holder));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: match before {
                Some(spec) if is_renewal => spec.acquire_time.clone(),
                Some(_) | None => Some(now.clone()),
            },
            renew_time: Some(now),
            lease_transitions: Some(if is_renewal || before.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that another need not wait.
    async fn release(&mut self) {
        self.fence.fall();
        let given_back = async {
            let mut lease = self.leases.get(&self.name).await?;
            let mut spec = lease.spec.take().unwrap_or_default();
            if spec.holder_identity.as_deref() == Some(&self.holder) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                lease.spec = Some(spec);
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(ATTEMPT, given_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not given back: {error}"),
            Err(_) => tracing::warn!("the lease was not given back within {ATTEMPT:?}"),
        }
    }
}

/// A write that another one forestalled is no error: the lease is theirs.
fn lost_race<T>(written: kube::Result<T>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fence_falls_by_itself_when_nothing_is_heard() {
        let fence = Fence::new();
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(fence.check(), Err(NotLeader));
        fence.hold_until(Instant::now() + RENEW_DEADLINE);
        assert_eq!(fence.check(), Ok(()));
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(fence.check(), Ok(()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(fence.check(), Err(NotLeader));
        fence.hold_until(Instant::now() + RENEW_DEADLINE);
        fence.fall();
        assert_eq!(fence.check(), Err(NotLeader));
    }
}
