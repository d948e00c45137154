//! Limits: nothing is lost between callers, windows end by themselves, bars lapse.

use std::time::Duration;

use domain::{
    ErrorKind,
    ports::{AuthLimits as _, auth_limits::Counter},
    user::PhoneHash,
};
use tokio::time::{Instant, sleep};

use crate::redis::{Cache, Config, auth_limits::AuthLimits};

const PHONE: PhoneHash = PhoneHash([7; 32]);

fn connect(cache: &embedded::Cache) -> AuthLimits {
    let config = Config::new(cache.url.clone(), "test.");
    AuthLimits::new(Cache::new(&config).expect("connected"))
}

#[tokio::test]
async fn callers_at_once_are_all_counted_and_counters_are_apart() {
    let cache = embedded::Cache::start().await.expect("a cache");
    let limits = connect(&cache);
    let window = Duration::from_mins(1);
    let counts = (0..20).map(|_| limits.count(Counter::OtpOfPhone(PHONE), window));
    let mut used: Vec<u32> =
        futures_util::future::join_all(counts).await.into_iter().map(|count| count.expect("counted").used).collect();
    used.sort_unstable();
    assert_eq!(used, (1..=20).collect::<Vec<_>>());
    let next = limits.count(Counter::OtpOfPhone(PHONE), window).await.expect("counted");
    assert!(next.resets_in <= window && next.resets_in > Duration::from_secs(30), "{next:?}");

    assert_eq!(limits.count(Counter::VerifyOfPhone(PHONE), window).await.expect("counted").used, 1);
    assert_eq!(limits.count(Counter::OtpOfAddress([7; 16]), window).await.expect("counted").used, 1);
    limits.forget(Counter::OtpOfPhone(PHONE)).await.expect("forgotten");
    assert_eq!(limits.count(Counter::OtpOfPhone(PHONE), window).await.expect("counted").used, 1);
}

#[tokio::test]
async fn a_window_begins_with_the_first_and_ends_by_itself() {
    let cache = embedded::Cache::start().await.expect("a cache");
    let limits = connect(&cache);
    let window = Duration::from_millis(400);
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut highest = 0;
    loop {
        let count = limits.count(Counter::OtpOfPhone(PHONE), window).await.expect("counted");
        if count.used < highest {
            break;
        }
        highest = count.used;
        assert!(Instant::now() < deadline, "further uses keep the window open");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_bar_lapses() {
    let cache = embedded::Cache::start().await.expect("a cache");
    let limits = connect(&cache);
    assert_eq!(limits.locked_out(PHONE).await.expect("read"), None);
    limits.lock_out(PHONE, Duration::from_millis(300)).await.expect("written");
    let left = limits.locked_out(PHONE).await.expect("read").expect("barred");
    assert!(left <= Duration::from_millis(300), "{left:?}");
    let deadline = Instant::now() + Duration::from_secs(5);
    while limits.locked_out(PHONE).await.expect("read").is_some() {
        assert!(Instant::now() < deadline, "it does not lapse");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_the_cache_nobody_knows() {
    let cache = embedded::Cache::start().await.expect("a cache");
    let limits = connect(&cache);
    drop(cache);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match limits.count(Counter::OtpOfPhone(PHONE), Duration::from_mins(1)).await {
            Ok(_) => assert!(Instant::now() < deadline, "the cache does not end"),
            Err(error) => return assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    }
}
