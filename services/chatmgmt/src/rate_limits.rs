//! How often a caller may do something: counted in the cache, refused with the time to wait.

use std::{sync::Arc, time::Duration};

use domain::{
    Error, ErrorKind,
    error::Detail,
    ports::{AuthLimits, auth_limits::Counter},
};

use platform::wire;

use crate::metrics::{AuthEvent, Metrics};

/// What a limit means while the cache is away (D6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// Nobody may.
    Deny,
    /// Everybody may, and it is counted.
    Allow,
}

/// One limit: how often within which time.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// How often.
    pub times: u32,
    /// Within that time.
    pub within: Duration,
    /// And without the cache.
    pub when_away: WhenAway,
}

/// Counts and refuses.
#[derive(Clone)]
pub struct RateLimits {
    counters: Arc<dyn AuthLimits>,
    metrics: Metrics,
}

impl RateLimits {
    /// With those counters.
    pub fn new(counters: Arc<dyn AuthLimits>, metrics: Metrics) -> Self {
        Self { counters, metrics }
    }

    /// Counts one more, and refuses it above the limit.
    ///
    /// # Errors
    /// `RateLimited` with the time to wait; `Unavailable` without the cache when the limit then denies.
    pub async fn admit(&self, counter: Counter, limit: Limit) -> Result<(), Error> {
        let count = match self.counters.count(counter, limit.within).await {
            Ok(count) => count,
            Err(error) if limit.when_away == WhenAway::Allow => {
                tracing::warn!(
                    event = "limit.not_checked",
                    error.code = wire::code(&error),
                    error.message = %error,
                    "a rate limit was not checked"
                );
                self.metrics.auth(AuthEvent::LimitSkipped);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if count.used <= limit.times {
            return Ok(());
        }
        self.metrics.auth(AuthEvent::RateLimited);
        Err(too_often(count.resets_in)
            .with_number("limit", limit.times.into())
            .with_number("window_seconds", limit.within.as_secs()))
    }

    /// Forgets a count, because what it guards against did not happen.
    ///
    /// # Errors
    /// `Unavailable` without the cache.
    pub async fn forget(&self, counter: Counter) -> Result<(), Error> {
        self.counters.forget(counter).await
    }
}

/// The refusal of whoever must wait.
pub fn too_often(wait: Duration) -> Error {
    let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    Error::new(ErrorKind::RateLimited, "slow down and try again later").with(Detail::RetryAfterSeconds(seconds))
}
