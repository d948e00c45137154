//! Tokens and sessions that no longer count: one key each, which lapses when no such token can be valid any more (D6.4).

use std::time::Duration;

use async_trait::async_trait;
use domain::{Error, ids::SessionId, ports};
use redis::AsyncCommands as _;

use super::Cache;

/// Revocations in Redis.
#[derive(Clone)]
pub struct Revocations {
    cache: Cache,
}

impl Revocations {
    /// On that cache.
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    fn token_key(&self, token_id: &str) -> String {
        self.cache.key(format_args!("revoked_jti:{token_id}"))
    }

    fn session_key(&self, session: SessionId) -> String {
        self.cache.key(format_args!("revoked_sid:{session}"))
    }

    async fn revoke(&self, key: String, ttl: Duration) -> Result<(), Error> {
        let seconds = ttl.as_secs().max(1);
        let set: Result<(), _> = self.cache.connection().set_ex(key, "1", seconds).await;
        set.map_err(|cause| Error::unavailable("the revocation could not be written", cause))
    }
}

#[async_trait]
impl ports::Revocations for Revocations {
    async fn is_revoked(&self, token_id: &str, session: SessionId) -> Result<bool, Error> {
        let keys = [self.token_key(token_id), self.session_key(session)];
        let found: Result<u32, _> = self.cache.connection().exists(&keys[..]).await;
        found.map(|found| found > 0).map_err(|cause| Error::unavailable("revocations can't be read", cause))
    }

    async fn revoke_token(&self, token_id: &str, ttl: Duration) -> Result<(), Error> {
        self.revoke(self.token_key(token_id), ttl).await
    }

    async fn revoke_session(&self, session: SessionId, ttl: Duration) -> Result<(), Error> {
        self.revoke(self.session_key(session), ttl).await
    }
}
