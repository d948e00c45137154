//! Tokens and sessions that no longer count.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, ids::SessionId};

/// Tokens and sessions that no longer count (D6.4). An error means that nobody knows: deny.
#[async_trait]
pub trait Revocations: Send + Sync {
    /// Whether the token or its session was revoked.
    async fn is_revoked(&self, token_id: &str, session: SessionId) -> Result<bool, Error>;

    /// Revokes one token for as long as it could be used.
    async fn revoke_token(&self, token_id: &str, ttl: Duration) -> Result<(), Error>;

    /// Revokes every token of a session for as long as one could be used.
    async fn revoke_session(&self, session: SessionId, ttl: Duration) -> Result<(), Error>;
}
