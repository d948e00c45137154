//! One-time codes: one a phone counts, and no attempt goes uncounted.

use domain::{
    Millis,
    ports::{
        OtpRequests as _,
        otp_requests::{Attempt, Issued},
    },
    session::OtpRequest,
    user::PhoneHash,
};

use super::{On, World};
use crate::dynamodb::otp_requests::OtpRequests;

const PHONE: PhoneHash = PhoneHash([7; 32]);

/// A code that is good from that time for 300 s.
pub(crate) fn request(mac: u8, at: i64) -> OtpRequest {
    OtpRequest {
        phone: PHONE,
        mac: [mac; 32],
        ciphertext: vec![mac; 5],
        created_at: Millis(at),
        expires_at: Millis(at + 300_000),
    }
}

/// Times before the store's own clock would end an item by its TTL.
pub(crate) fn now() -> i64 {
    use domain::Clock as _;
    platform::clock::SystemClock.now().0
}

async fn a_code_counts_until_it_expires(on: On) {
    let world = World::start(on).await;
    let codes = OtpRequests::new(world.store.clone());
    let now = now();
    let first = request(1, now);
    assert_eq!(codes.issue(&first).await.expect("issued"), Issued::New);
    assert_eq!(codes.issue(&request(2, now + 299_999)).await.expect("issued"), Issued::Pending(first.clone()));

    let tried = codes.count_attempt(PHONE, Millis(now + 299_999), 5).await.expect("counted");
    assert_eq!(tried, Attempt::Counted(first, 1));
    assert_eq!(codes.count_attempt(PHONE, Millis(now + 300_000), 5).await.expect("looked"), Attempt::NoneGood);

    let second = request(3, now + 300_000);
    assert_eq!(codes.issue(&second).await.expect("issued"), Issued::New);
    let tried = codes.count_attempt(PHONE, Millis(now + 300_001), 5).await.expect("counted");
    assert_eq!(tried, Attempt::Counted(second, 1), "a new code begins at no attempts");
}

async fn attempts_at_once_are_each_counted_up_to_the_limit(on: On) {
    let world = World::start(on).await;
    let codes = OtpRequests::new(world.store.clone());
    let now = now();
    codes.issue(&request(1, now)).await.expect("issued");
    let tries = (0..20).map(|_| codes.count_attempt(PHONE, Millis(now), 5));
    let mut counted = Vec::new();
    for tried in futures_util::future::join_all(tries).await {
        match tried.expect("an outcome") {
            Attempt::Counted(_, attempt) => counted.push(attempt),
            other @ (Attempt::Spent | Attempt::NoneGood) => assert_eq!(other, Attempt::Spent),
        }
    }
    counted.sort_unstable();
    assert_eq!(counted, [1, 2, 3, 4, 5]);
}

async fn a_phone_without_a_code_has_none_that_is_good(on: On) {
    let world = World::start(on).await;
    let codes = OtpRequests::new(world.store.clone());
    assert_eq!(codes.count_attempt(PHONE, Millis(now()), 5).await.expect("looked"), Attempt::NoneGood);
}

on_all_systems! {
    a_code_counts_until_it_expires,
    attempts_at_once_are_each_counted_up_to_the_limit,
    a_phone_without_a_code_has_none_that_is_good,
}
