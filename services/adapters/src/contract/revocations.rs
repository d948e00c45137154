//! Revocations: both kinds count, each for its time, and silence of the cache is an error.

use std::time::Duration;

use domain::{ErrorKind, ids::SessionId, ports::Revocations as _};
use platform::clock::SystemIds;
use tokio::time::{Instant, sleep};

use crate::redis::{Cache, Config, revocations::Revocations};

fn connect(cache: &embedded::Cache) -> Revocations {
    let config = Config::new(cache.url.clone(), "test.");
    Revocations::new(Cache::new(&config).expect("connected"))
}

#[tokio::test]
async fn a_token_is_revoked_by_itself_or_by_its_session_until_it_lapses() {
    let cache = embedded::Cache::start().await.expect("a cache");
    let revocations = connect(&cache);
    let (one, other) = (SessionId::new(&SystemIds), SessionId::new(&SystemIds));
    assert!(!revocations.is_revoked("token", one).await.expect("read"));

    revocations.revoke_token("token", Duration::from_mins(1)).await.expect("written");
    assert!(revocations.is_revoked("token", one).await.expect("read"));
    assert!(!revocations.is_revoked("another", one).await.expect("read"));

    revocations.revoke_session(other, Duration::from_secs(1)).await.expect("written");
    assert!(revocations.is_revoked("another", other).await.expect("read"));
    let deadline = Instant::now() + Duration::from_secs(5);
    while revocations.is_revoked("another", other).await.expect("read") {
        assert!(Instant::now() < deadline, "it does not lapse");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_the_cache_nobody_knows() {
    let cache = embedded::Cache::start().await.expect("a cache");
    let revocations = connect(&cache);
    drop(cache);
    let deadline = Instant::now() + Duration::from_secs(10);
    let session = SessionId::new(&SystemIds);
    loop {
        match revocations.is_revoked("token", session).await {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                break;
            }
            Ok(_) => assert!(Instant::now() < deadline, "the cache does not end"),
        }
    }
}
