//! Contract of `MembershipCache`: whole sets, and no fill that is older than an invalidation.

use std::time::{Duration, Instant};

use domain::{
    Ids as _,
    ids::{ChatId, UserId},
    ports::membership_cache::{Cached, Fill, Generation, MembershipCache},
};
use platform::clock::SystemIds;

use crate::redis::{Cache, Config, membership_cache::RedisMembershipCache};

const TTL: Duration = Duration::from_mins(5);

async fn start() -> (embedded::Cache, RedisMembershipCache) {
    let server = embedded::Cache::start().await.expect("a redis-server");
    let config = Config::new(&server.url, "test.");
    let cache = Cache::new(&config).expect("connected");
    (server, RedisMembershipCache::new(cache))
}

fn users(count: usize) -> Vec<UserId> {
    let mut users: Vec<_> = (0..count).map(|_| UserId(SystemIds.ulid())).collect();
    users.sort_unstable();
    users
}

async fn known(cache: &RedisMembershipCache, chat: ChatId) -> Cached {
    match cache.members(&[chat]).await.expect("answered").remove(0) {
        Cached::Members(mut members) => {
            members.sort_unstable();
            Cached::Members(members)
        }
        nothing @ Cached::Nothing(_) => nothing,
    }
}

#[tokio::test]
async fn what_was_filled_is_found_whole_and_in_the_order_asked() {
    let (_server, cache) = start().await;
    let (small, large, empty) = (ChatId(SystemIds.ulid()), ChatId(SystemIds.ulid()), ChatId(SystemIds.ulid()));
    let (two, many) = (users(2), users(2_500));
    for (chat, members) in [(small, &two), (large, &many), (empty, &Vec::new())] {
        assert_eq!(cache.fill(chat, Generation(0), members, TTL).await.expect("answered"), Fill::Taken);
    }
    assert_eq!(known(&cache, small).await, Cached::Members(two.clone()));
    assert_eq!(known(&cache, large).await, Cached::Members(many));
    let found = cache.members(&[empty, small]).await.expect("answered");
    assert_eq!(found[0], Cached::Nothing(Generation(0)));
    assert!(matches!(&found[1], Cached::Members(members) if members.len() == 2));
    assert_eq!(cache.members(&[]).await.expect("answered"), []);
}

#[tokio::test]
async fn a_fill_replaces_what_was_there() {
    let (_server, cache) = start().await;
    let chat = ChatId(SystemIds.ulid());
    let all = users(3);
    cache.fill(chat, Generation(0), &all, TTL).await.expect("answered");
    cache.fill(chat, Generation(0), &all[..2], TTL).await.expect("answered");
    assert_eq!(known(&cache, chat).await, Cached::Members(all[..2].to_vec()));
}

#[tokio::test]
async fn a_fill_that_began_before_an_invalidation_is_discarded() {
    let (_server, cache) = start().await;
    let chat = ChatId(SystemIds.ulid());
    let members = users(2);
    cache.fill(chat, Generation(0), &members, TTL).await.expect("answered");
    cache.invalidate(&[chat], TTL).await.expect("answered");
    assert_eq!(known(&cache, chat).await, Cached::Nothing(Generation(1)));
    assert_eq!(cache.fill(chat, Generation(0), &members, TTL).await.expect("answered"), Fill::Stale);
    assert_eq!(known(&cache, chat).await, Cached::Nothing(Generation(1)));
    assert_eq!(cache.fill(chat, Generation(1), &members[..1], TTL).await.expect("answered"), Fill::Taken);
    assert_eq!(known(&cache, chat).await, Cached::Members(members[..1].to_vec()));
}

#[tokio::test]
async fn what_was_filled_lapses() {
    let (_server, cache) = start().await;
    let chat = ChatId(SystemIds.ulid());
    cache.fill(chat, Generation(0), &users(1), Duration::from_millis(30)).await.expect("answered");
    let deadline = Instant::now() + Duration::from_secs(5);
    while known(&cache, chat).await != Cached::Nothing(Generation(0)) {
        assert!(Instant::now() < deadline, "it did not lapse");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_absent_cache_is_an_error_never_an_empty_answer() {
    let (server, cache) = start().await;
    drop(server);
    let chat = ChatId(SystemIds.ulid());
    let deadline = Instant::now() + Duration::from_secs(10);
    while cache.members(&[chat]).await.is_ok() {
        assert!(Instant::now() < deadline, "it still answers");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = cache.members(&[chat]).await.expect_err("gone");
    assert_eq!(error.kind(), domain::ErrorKind::Unavailable);
}
