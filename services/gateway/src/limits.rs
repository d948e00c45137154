//! How often a client may do something: buckets and windows, in this process's memory.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use domain::{Error, ErrorKind, error::Detail};
use tokio::time::Instant;

/// Keys are looked through for idle ones when their number has doubled, but not before this many.
const SWEEP_FROM: usize = 4096;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_second: f64,
    burst: f64,
}

impl Rate {
    /// So many a second, and so many at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: f64::from(per_second), burst: f64::from(burst) }
    }

    /// So many in that time, and so many at once.
    pub fn within(count: u32, time: Duration, burst: u32) -> Self {
        Self { per_second: f64::from(count) / time.as_secs_f64().max(f64::MIN_POSITIVE), burst: f64::from(burst) }
    }

    fn full(self, now: Instant) -> Bucket {
        Bucket { tokens: self.burst, at: now }
    }

    fn filled(self, bucket: Bucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        (bucket.tokens + gained).min(self.burst)
    }

    /// Takes a token, or says how long until there is one.
    fn take(self, bucket: &mut Bucket, now: Instant) -> Result<(), Duration> {
        let tokens = self.filled(*bucket, now);
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / self.per_second));
        }
        *bucket = Bucket { tokens: tokens - 1.0, at: now };
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// One bucket of its own.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    bucket: Bucket,
    refusal: &'static str,
}

impl Pace {
    /// A full bucket; `refusal` is what a client is told when it is empty.
    pub fn new(rate: Rate, now: Instant, refusal: &'static str) -> Self {
        Self { rate, bucket: rate.full(now), refusal }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// `RateLimited` with the seconds until there is one again.
    pub fn take(&mut self, now: Instant) -> Result<(), Error> {
        self.rate.take(&mut self.bucket, now).map_err(|wait| limited(self.refusal, wait))
    }
}

/// Something for each key, as long as it is not idle.
#[derive(Debug)]
struct Kept<K, V> {
    /// By key, and the number at which to look for idle ones.
    by_key: Mutex<(HashMap<K, V>, usize)>,
}

impl<K: Eq + Hash, V> Kept<K, V> {
    fn new() -> Self {
        Self { by_key: Mutex::new((HashMap::new(), SWEEP_FROM)) }
    }

    /// What `ask` says of the key's own, which `fresh` makes; `is_idle` says whose may be forgotten.
    fn with<T>(
        &self,
        key: K,
        mut is_idle: impl FnMut(&mut V) -> bool,
        fresh: impl FnOnce() -> V,
        ask: impl FnOnce(&mut V) -> T,
    ) -> T {
        let mut guard = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, sweep_at) = &mut *guard;
        if all.len() >= *sweep_at {
            all.retain(|_, own| !is_idle(own));
            *sweep_at = (all.len() * 2).max(SWEEP_FROM);
        }
        ask(all.entry(key).or_insert_with(fresh))
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.by_key.lock().expect("whole").0.len()
    }
}

/// Token buckets, one a key.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    refusal: &'static str,
    kept: Kept<K, Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Full buckets; `refusal` is what a client is told when its own is empty.
    pub fn new(rate: Rate, refusal: &'static str) -> Self {
        Self { rate, refusal, kept: Kept::new() }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// `RateLimited` with the seconds until there is one again.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Error> {
        let is_idle = |bucket: &mut Bucket| self.rate.filled(*bucket, now) >= self.rate.burst;
        let taken = self.kept.with(key, is_idle, || self.rate.full(now), |bucket| self.rate.take(bucket, now));
        taken.map_err(|wait| limited(self.refusal, wait))
    }
}

/// Events that count for a while.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    within: Duration,
    times: VecDeque<Instant>,
}

impl Window {
    /// At most `limit` events `within` that time.
    pub fn new(limit: usize, within: Duration) -> Self {
        Self { limit, within, times: VecDeque::new() }
    }

    /// Counts an event. Returns whether there were `limit` of them, this one included.
    pub fn is_reached_by(&mut self, now: Instant) -> bool {
        self.forget(now);
        if self.times.len() < self.limit {
            self.times.push_back(now);
        }
        self.times.len() >= self.limit
    }

    /// Counts an event unless there were `limit` already; then says how long to wait.
    fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        self.forget(now);
        match self.times.front() {
            Some(oldest) if self.times.len() >= self.limit => {
                Err((*oldest + self.within).saturating_duration_since(now))
            }
            _ => {
                self.times.push_back(now);
                Ok(())
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.times.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.within) {
            self.times.pop_front();
        }
    }
}

/// Windows, one a key.
#[derive(Debug)]
pub struct Windows<K> {
    limit: usize,
    within: Duration,
    refusal: &'static str,
    kept: Kept<K, Window>,
}

impl<K: Eq + Hash> Windows<K> {
    /// At most `limit` events of a key `within` that time; `refusal` is what a client is told above it.
    pub fn new(limit: usize, within: Duration, refusal: &'static str) -> Self {
        Self { limit, within, refusal, kept: Kept::new() }
    }

    /// Counts an event.
    ///
    /// # Errors
    /// `RateLimited` with the seconds until there is room again.
    pub fn admit(&self, key: K, now: Instant) -> Result<(), Error> {
        let is_idle = |window: &mut Window| {
            window.forget(now);
            window.times.is_empty()
        };
        let fresh = || Window::new(self.limit, self.within);
        let admitted = self.kept.with(key, is_idle, fresh, |window| window.admit(now));
        admitted.map_err(|wait| limited(self.refusal, wait))
    }
}

/// Events of one key in a span of time and in the one before it.
#[derive(Clone, Copy, Debug)]
struct Tally {
    since: Instant,
    before: u32,
    now: u32,
}

impl Tally {
    /// Comes to the span in which `now` is, and returns which part of it is over.
    fn turn(&mut self, now: Instant, within: Duration) -> f64 {
        let gone = now.saturating_duration_since(self.since);
        if gone >= within * 2 {
            *self = Self { since: now, before: 0, now: 0 };
        } else if gone >= within {
            *self = Self { since: self.since + within, before: self.now, now: 0 };
        }
        let gone = now.saturating_duration_since(self.since);
        gone.as_secs_f64() / within.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Counts an event unless there were `limit` already; then says how long to wait.
    fn admit(&mut self, now: Instant, within: Duration, limit: u32) -> Result<(), Duration> {
        let gone = self.turn(now, within);
        // With one more, there must not be more than the limit.
        let most = f64::from(limit) - 1.0;
        let (before, current) = (f64::from(self.before), f64::from(self.now));
        if before * (1.0 - gone) + current <= most {
            self.now += 1;
            return Ok(());
        }
        // In this span, or, when it alone has all there may be, in the next one.
        let part = if current <= most { 1.0 - (most - current) / before } else { 2.0 - most / current };
        Err(within.mul_f64((part - gone).max(0.0)))
    }

    fn is_over(&self, now: Instant, within: Duration) -> bool {
        now.saturating_duration_since(self.since) >= within * 2
    }
}

/// Sliding windows, one a key, which take the same memory however many events there are: the events of the span before
/// count as much as that span still reaches into the window, as if they had come evenly.
#[derive(Debug)]
pub struct Tallies<K> {
    limit: u32,
    within: Duration,
    refusal: &'static str,
    kept: Kept<K, Tally>,
}

impl<K: Eq + Hash> Tallies<K> {
    /// At most `limit` events of a key `within` that time; `refusal` is what a client is told above it.
    pub fn new(limit: u32, within: Duration, refusal: &'static str) -> Self {
        Self { limit, within, refusal, kept: Kept::new() }
    }

    /// Counts an event.
    ///
    /// # Errors
    /// `RateLimited` with the seconds until there is room again.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Error> {
        let is_idle = |tally: &mut Tally| tally.is_over(now, self.within);
        let fresh = || Tally { since: now, before: 0, now: 0 };
        let admitted = self.kept.with(key, is_idle, fresh, |tally| tally.admit(now, self.within, self.limit));
        admitted.map_err(|wait| limited(self.refusal, wait))
    }
}

/// `RateLimited`, with whole seconds to wait, at least one.
pub fn limited(message: &'static str, wait: Duration) -> Error {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let seconds = u32::try_from(seconds.max(1)).unwrap_or(u32::MAX);
    Error::new(ErrorKind::RateLimited, message).with(Detail::RetryAfterSeconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let buckets = Buckets::new(Rate::new(10, 20), "too fast");
        let start = Instant::now();
        for _ in 0..20 {
            assert!(buckets.take("a", start).is_ok());
        }
        let error = buckets.take("a", start).expect_err("empty");
        assert_eq!((error.kind(), error.retry_after_seconds()), (ErrorKind::RateLimited, Some(1)));
        assert!(buckets.take("b", start).is_ok(), "keys don't share");
        assert!(buckets.take("a", start + Duration::from_millis(100)).is_ok());
        assert!(buckets.take("a", start + Duration::from_millis(150)).is_err());
        for _ in 0..20 {
            assert!(buckets.take("a", start + Duration::from_mins(1)).is_ok());
        }
        assert!(buckets.take("a", start + Duration::from_mins(1)).is_err(), "never above the burst");
    }

    #[test]
    fn a_pace_is_a_bucket_of_its_own() {
        let start = Instant::now();
        let mut pace = Pace::new(Rate::within(2, Duration::from_secs(30), 1), start, "too fast");
        assert!(pace.take(start).is_ok());
        assert_eq!(pace.take(start).expect_err("empty").retry_after_seconds(), Some(15));
        assert!(pace.take(start + Duration::from_secs(15)).is_ok());
    }

    #[test]
    fn idle_buckets_are_forgotten() {
        let buckets = Buckets::new(Rate::new(1, 1), "too fast");
        let start = Instant::now();
        for key in 0..SWEEP_FROM {
            assert!(buckets.take(key, start).is_ok());
        }
        assert!(buckets.take(SWEEP_FROM, start + Duration::from_mins(1)).is_ok());
        assert_eq!(buckets.kept.count(), 1);
    }

    #[test]
    fn a_tally_slides_from_one_hour_into_the_next() {
        let tallies = Tallies::new(1000, Duration::from_hours(1), "too many");
        let start = Instant::now();
        let taken = |minutes: u64, tries: u32| {
            let now = start + Duration::from_mins(minutes);
            (0..tries).filter(|_| tallies.take("a", now).is_ok()).count()
        };
        // Whoever never stops has a thousand in the first hour, at once if they like, …
        assert_eq!((taken(0, 600), taken(30, 600), taken(59, 600)), (600, 400, 0));
        // … and a thousand in the next, as the first one slides out of the window.
        let next: usize = (60..120).map(|minute| taken(minute, 600)).sum();
        assert!((950..=1000).contains(&next), "{next}");
        assert!(tallies.take("b", start).is_ok(), "keys don't share");
        assert_eq!(taken(300, 2000), 1000, "nothing is left of it after two hours");
    }

    #[test]
    fn a_tally_says_when_there_is_room_again() {
        let tallies = Tallies::new(4, Duration::from_secs(100), "too many");
        let start = Instant::now();
        let at = |seconds| tallies.take("a", start + Duration::from_secs(seconds));
        let wait = |seconds| at(seconds).expect_err("full").retry_after_seconds();
        for _ in 0..4 {
            assert!(at(0).is_ok());
        }
        // All four are of the first span: a quarter of the next must be over.
        assert_eq!((wait(0), wait(90)), (Some(125), Some(35)));
        assert_eq!(wait(110), Some(15));
        assert!(at(125).is_ok());
        assert_eq!(wait(125), Some(25));
        assert!(at(150).is_ok());
    }

    #[test]
    fn tallies_of_who_has_gone_are_forgotten() {
        let tallies = Tallies::new(1, Duration::from_secs(1), "too many");
        let start = Instant::now();
        for key in 0..SWEEP_FROM {
            assert!(tallies.take(key, start).is_ok());
        }
        assert!(tallies.take(SWEEP_FROM, start + Duration::from_secs(2)).is_ok());
        assert_eq!(tallies.kept.count(), 1);
    }

    #[test]
    fn a_window_forgets_what_is_old() {
        let windows = Windows::new(2, Duration::from_secs(10), "too often");
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(windows.admit(1, start).is_ok());
        assert!(windows.admit(1, after(4)).is_ok());
        let error = windows.admit(1, after(5)).expect_err("two within ten seconds");
        assert_eq!(error.retry_after_seconds(), Some(5));
        assert!(windows.admit(1, after(10)).is_ok());
        let mut window = Window::new(3, Duration::from_mins(1));
        assert!(!window.is_reached_by(start));
        assert!(!window.is_reached_by(after(1)));
        assert!(window.is_reached_by(after(2)));
        assert!(!window.is_reached_by(after(61)));
    }
}
