//! What chatmgmt measures.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// How a REST call ended, by the first digit of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Ending {
    /// 2xx.
    Succeeded,
    /// 4xx.
    Refused,
    /// 5xx.
    Failed,
}

/// The label of [`Metrics::calls`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// How it ended.
    pub ending: Ending,
}

/// One step of a login or of a session's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum AuthEvent {
    /// A code was asked for and given to the provider.
    OtpRequested,
    /// The provider did not take a code.
    OtpNotDelivered,
    /// A right code.
    OtpVerified,
    /// A wrong, old or used code.
    OtpRefused,
    /// A phone was locked out.
    LockedOut,
    /// Refused by a rate limit.
    RateLimited,
    /// A limit that was not asked, because the cache is away.
    LimitSkipped,
    /// Tokens were rotated.
    Refreshed,
    /// An old refresh token came again; its session ended.
    RefreshReused,
    /// A session ended by its owner.
    LoggedOut,
    /// A session ended for a newer one.
    SessionReplaced,
    /// A revocation that could not be written.
    RevocationLost,
}

/// The label of [`Metrics::auth`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Auth {
    /// What happened.
    pub event: AuthEvent,
}

/// What chatmgmt measures.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<Call, Counter>,
    duration: Histogram,
    auth: Family<Auth, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            calls: Family::default(),
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            auth: Family::default(),
        };
        let chatmgmt = registry.sub_registry_with_prefix("chatmgmt");
        chatmgmt.register("rest_calls", "REST calls answered", metrics.calls.clone());
        let help = "Time from a REST call's headers to its answer";
        chatmgmt.register_with_unit("rest_duration", help, Unit::Seconds, metrics.duration.clone());
        chatmgmt.register("auth_events", "Steps of logins and sessions", metrics.auth.clone());
        metrics
    }

    /// One REST call was answered.
    pub fn called(&self, status: http::StatusCode, took: Duration) {
        let ending = match status.as_u16() {
            0..400 => Ending::Succeeded,
            400..500 => Ending::Refused,
            _ => Ending::Failed,
        };
        self.calls.get_or_create(&Call { ending }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// One step of a login or of a session's life.
    pub fn auth(&self, event: AuthEvent) {
        self.auth.get_or_create(&Auth { event }).inc();
    }
}
