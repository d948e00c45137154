//! What ends a connection by time: its token, its silence, its age, and a revocation that nobody can look up.

use std::time::Duration;

use domain::{Error, Millis};
use tokio::time::Instant;

use crate::{Gateway, closing::Reason};

/// A close after lost contact to the revocations is spread over this part of the grace period.
const SPREAD: u32 = 10;

/// The times of one connection.
#[derive(Debug)]
pub struct Clocks {
    expires_at: Instant,
    too_old_at: Instant,
    check_at: Instant,
    /// Since when nobody could say whether the session was revoked.
    unknown_since: Option<Instant>,
    /// How long that is bearable.
    grace: Duration,
    /// When a stopping gateway waits no longer for answers.
    stop_by: Option<Instant>,
}

impl Clocks {
    /// They begin now; the token is good until `expires_at`.
    pub fn start(gateway: &Gateway, expires_at: Millis) -> Self {
        let (limits, now) = (&gateway.limits, Instant::now());
        let left = expires_at.since(gateway.clock.now());
        Self {
            expires_at: now + left,
            too_old_at: now + limits.connection_age - gateway.part_of(limits.connection_age / 10),
            check_at: now + limits.revocation_check,
            unknown_since: None,
            grace: limits.revocation_grace + gateway.part_of(limits.revocation_grace / SPREAD),
            stop_by: None,
        }
    }

    /// When to look next.
    pub fn next(&self, gateway: &Gateway, last_heartbeat: Instant) -> Instant {
        let always = [self.expires_at, self.too_old_at, self.check_at].into_iter();
        let sometimes = self.stop_by.into_iter().chain(self.unknown_since.map(|since| since + self.grace));
        always.chain(sometimes).fold(idle_at(gateway, last_heartbeat), Instant::min)
    }

    /// Whether the session is to be looked up among the revoked now; then not again for a while.
    pub fn takes_check(&mut self, gateway: &Gateway, now: Instant) -> bool {
        let is_due = self.check_at <= now;
        if is_due {
            self.check_at = now + gateway.limits.revocation_check;
        }
        is_due
    }

    /// What the look said. Returns the reason to end, if it is one.
    pub fn checked(&mut self, known: &Result<bool, Error>, now: Instant) -> Option<Reason> {
        match known {
            Ok(false) => self.unknown_since = None,
            Ok(true) => return Some(Reason::SessionRevoked),
            Err(_) => {
                self.unknown_since.get_or_insert(now);
            }
        }
        None
    }

    /// The gateway stops: answers are waited for until then.
    pub fn stop_by(&mut self, at: Instant) {
        self.stop_by = Some(at);
    }

    /// Whether the gateway stops.
    pub fn is_stopping(&self) -> bool {
        self.stop_by.is_some()
    }

    /// Why the connection has to end now, if it has.
    pub fn reason(&self, gateway: &Gateway, last_heartbeat: Instant, now: Instant) -> Option<Reason> {
        if self.stop_by.is_some_and(|stop_by| stop_by <= now) {
            Some(Reason::ServerShutdown)
        } else if self.expires_at <= now {
            Some(Reason::TokenExpired)
        } else if idle_at(gateway, last_heartbeat) <= now {
            Some(Reason::IdleTimeout)
        } else if self.too_old_at <= now {
            Some(Reason::MaximumAge)
        } else if self.unknown_since.is_some_and(|since| since + self.grace <= now) {
            Some(Reason::RevocationUnknown)
        } else {
            None
        }
    }
}

fn idle_at(gateway: &Gateway, last_heartbeat: Instant) -> Instant {
    last_heartbeat + gateway.limits.heartbeat_interval * 2
}
