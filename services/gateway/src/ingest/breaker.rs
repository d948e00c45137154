//! When one ingest is not asked: from its failures on, until a single request shows that it is well.
//!
//! The wait before that request doubles each time it fails. Other pods serve the chats meanwhile; when there is none,
//! nobody is spared by waiting longer, so the first wait is all there is.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::{config::Limits, limits::Window};

/// The breaker of one kind of request to one pod.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<State>,
    failures: usize,
    within: Duration,
    first: Duration,
    longest: Duration,
    open: Gauge,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open(Wait),
    /// One request is let through, to see; the wait that follows should it fail.
    Probing(Wait),
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    length: Duration,
}

/// Who else could be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Perhaps another pod.
    Unknown,
    /// Nobody.
    None,
}

/// How a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As any other.
    Free,
    /// Alone, to see whether the pod is well.
    Probe,
}

/// What a request showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// An answer or a refusal: it is well.
    Well,
    /// It did not answer in time, or could not serve.
    Failing,
    /// There is nobody at its address.
    Dead,
    /// Nothing: whoever asked has left.
    Nothing,
}

impl Breaker {
    pub(super) fn new(limits: &Limits, open: Gauge) -> Self {
        let (failures, within) = (limits.breaker_failures, limits.breaker_within);
        let state = Mutex::new(State::Closed(Window::new(failures, within)));
        Self { state, failures, within, first: limits.breaker_first, longest: limits.breaker_open, open }
    }

    /// Whether requests go as they come.
    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.state(), State::Closed(_))
    }

    /// Lets a request through, or not; what it showed is to be told by [`Breaker::saw`].
    pub(super) fn pass(&self, now: Instant, others: Others) -> Option<Way> {
        let mut state = self.state();
        let wait = match &*state {
            State::Closed(_) => return Some(Way::Free),
            State::Probing(_) => return None,
            State::Open(wait) => *wait,
        };
        if now < self.due(wait, others) {
            return None;
        }
        *state = State::Probing(wait);
        Some(Way::Probe)
    }

    /// When the pod is asked again, if nobody else is there; `None` when it may be asked now, or is being asked.
    pub(super) fn asked_again(&self) -> Option<Instant> {
        match &*self.state() {
            State::Open(wait) => Some(self.due(*wait, Others::None)),
            State::Closed(_) | State::Probing(_) => None,
        }
    }

    /// Takes into account what a request showed that was let through that way. Returns whether that opened it.
    pub(super) fn saw(&self, way: Way, shown: Shown, now: Instant) -> bool {
        let mut state = self.state();
        let next = match (&mut *state, way, shown) {
            (State::Probing(_), Way::Probe, Shown::Well) => {
                self.open.dec();
                State::Closed(Window::new(self.failures, self.within))
            }
            (State::Probing(wait), Way::Probe, Shown::Failing | Shown::Dead) => {
                State::Open(Wait { since: now, length: (wait.length * 2).min(self.longest) })
            }
            (State::Probing(wait), Way::Probe, Shown::Nothing) => State::Open(Wait { since: now, ..*wait }),
            (State::Closed(window), Way::Free, Shown::Failing | Shown::Dead) => {
                if shown == Shown::Failing && !window.is_reached_by(now) {
                    return false;
                }
                self.open.inc();
                *state = State::Open(Wait { since: now, length: self.first });
                return true;
            }
            // What began before it opened says nothing new.
            (State::Closed(_) | State::Open(_) | State::Probing(_), Way::Free | Way::Probe, _) => return false,
        };
        *state = next;
        false
    }

    fn due(&self, wait: Wait, others: Others) -> Instant {
        match others {
            Others::Unknown => wait.since + wait.length,
            Others::None => wait.since + wait.length.min(self.first),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        if !self.is_closed() {
            self.open.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(gauge: &Gauge) -> Breaker {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        let limits = Limits { breaker_failures: 2, breaker_first: first, breaker_open: longest, ..Limits::default() };
        Breaker::new(&limits, gauge.clone())
    }

    #[test]
    fn it_opens_after_failures_and_closes_after_one_request_that_went_well() {
        let (gauge, start) = (Gauge::default(), Instant::now());
        let breaker = breaker(&gauge);
        let after = |millis| start + Duration::from_millis(millis);
        assert!(!breaker.saw(Way::Free, Shown::Failing, start));
        assert!(breaker.saw(Way::Free, Shown::Failing, start));
        assert_eq!(gauge.get(), 1);
        assert_eq!(breaker.pass(after(999), Others::Unknown), None);
        assert_eq!(breaker.pass(after(1000), Others::Unknown), Some(Way::Probe));
        assert_eq!(breaker.pass(after(9000), Others::None), None, "one at a time");
        assert!(!breaker.saw(Way::Free, Shown::Failing, after(1001)), "it went before");
        breaker.saw(Way::Probe, Shown::Well, after(1100));
        assert!(breaker.is_closed());
        assert_eq!((gauge.get(), breaker.pass(after(1101), Others::Unknown)), (0, Some(Way::Free)));
    }

    #[test]
    fn the_wait_doubles_to_its_longest_and_is_the_first_where_nobody_else_is_asked() {
        let (gauge, mut now) = (Gauge::default(), Instant::now());
        let breaker = breaker(&gauge);
        assert!(breaker.saw(Way::Free, Shown::Dead, now), "nobody at the address: once is enough");
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let almost = now + Duration::from_secs(seconds) - Duration::from_millis(1);
            assert_eq!(breaker.pass(almost, Others::Unknown), None, "{seconds}");
            now += Duration::from_secs(seconds);
            assert_eq!(breaker.pass(now, Others::Unknown), Some(Way::Probe), "{seconds}");
            breaker.saw(Way::Probe, Shown::Failing, now);
        }
        assert_eq!(breaker.asked_again(), Some(now + Duration::from_secs(1)));
        assert_eq!(breaker.pass(now + Duration::from_secs(1), Others::Unknown), None);
        assert_eq!(breaker.pass(now + Duration::from_secs(1), Others::None), Some(Way::Probe));
        drop(breaker);
        assert_eq!(gauge.get(), 0, "a pod that is gone has no breaker");
    }

    #[test]
    fn a_probe_that_was_given_up_proves_nothing() {
        let (gauge, start) = (Gauge::default(), Instant::now());
        let breaker = breaker(&gauge);
        breaker.saw(Way::Free, Shown::Dead, start);
        let second = start + Duration::from_secs(1);
        assert_eq!(breaker.pass(second, Others::Unknown), Some(Way::Probe));
        breaker.saw(Way::Probe, Shown::Nothing, second);
        assert_eq!(breaker.pass(second + Duration::from_millis(999), Others::Unknown), None);
        assert_eq!(breaker.pass(second + Duration::from_secs(1), Others::Unknown), Some(Way::Probe), "no longer wait");
    }
}
