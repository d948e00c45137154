//! Tokens are rotated; an identical refresh gets the same again for a moment, an old token ends its session (D6.3).

use domain::{
    Error, ErrorKind,
    ports::auth_limits::Counter,
    session::{Session, TokenPair},
};
use platform::{broken, telemetry::SECURITY, tokens::Holder, wire};
use proto::messaging::v1 as pb;
use std::time::Duration;
use tonic::metadata::MetadataMap;

use super::{Auth, invalid_refresh_token, read_refresh_token, tokens::RefreshToken};
use crate::{
    caller,
    metrics::AuthEvent,
    rate_limits::{Limit, WhenAway},
};

impl Auth {
    pub(super) async fn rotate_tokens(
        &self,
        metadata: &MetadataMap,
        asked: &pb::RefreshTokensRequest,
    ) -> Result<pb::RefreshTokensResponse, Error> {
        let holder = self.needs.callers.authenticate_expired(metadata).await?;
        let limit =
            Limit { times: self.limits.refresh_per_minute, within: Duration::from_mins(1), when_away: WhenAway::Allow };
        self.needs.rate_limits.admit(Counter::RefreshOfUser(holder.user), limit).await?;
        let device = caller::device(metadata)?;
        let presented = read_refresh_token(&asked.refresh_token)?;

        let session = self.session_of(&holder).await?;
        if session.device != device {
            return Err(Error::new(ErrorKind::DeviceMismatch, "the session belongs to another device"));
        }
        if (session.tokens.refresh == presented.hash() || broken::is("double_refresh"))
            && let Some(tokens) = self.rotate(&session, &presented).await?
        {
            tracing::info!(
                target: SECURITY,
                event = "auth.token_refreshed",
                session_id = %session.id,
                "session {} was refreshed", session.id
            );
            self.needs.metrics.auth(AuthEvent::Refreshed);
            return Ok(pb::RefreshTokensResponse { tokens: Some(tokens) });
        }
        // The token was not the current one, or ceased to be so in a race: look at the session as it is now.
        let session = self.session_of(&holder).await?;
        self.repeat_or_revoke(&holder, &session, &presented).await
    }

    async fn session_of(&self, holder: &Holder) -> Result<Session, Error> {
        let session = self.needs.sessions.session(holder.session).await?;
        let now = self.needs.clock.now();
        session.filter(|found| found.user == holder.user && found.expires_at > now).ok_or_else(invalid_refresh_token)
    }

    /// The next pair; `None` when another refresh came first.
    async fn rotate(&self, session: &Session, presented: &RefreshToken) -> Result<Option<pb::Tokens>, Error> {
        let generation = session.tokens.generation + 1;
        let refresh = self.minter.next(session.id, generation, presented);
        let (access_id, made_at) = (self.needs.ids.ulid(), self.needs.clock.now());
        let pair = TokenPair { generation, refresh: refresh.hash(), access_id, made_at };
        let tokens = self.show_tokens(session, &pair, &refresh)?;
        let is_first = self.needs.sessions.rotate(session.id, session.tokens.refresh, &pair).await?;
        Ok(is_first.then_some(tokens))
    }

    async fn repeat_or_revoke(
        &self,
        holder: &Holder,
        session: &Session,
        presented: &RefreshToken,
    ) -> Result<pb::RefreshTokensResponse, Error> {
        if session.previous != Some(presented.hash()) {
            return Err(invalid_refresh_token());
        }
        let pair = &session.tokens;
        let refresh = self.minter.next(session.id, pair.generation, presented);
        let is_repetition = self.needs.clock.now().since(pair.made_at) <= self.limits.refresh_grace;
        if is_repetition && refresh.hash() == pair.refresh {
            return Ok(pb::RefreshTokensResponse { tokens: Some(self.show_tokens(session, pair, &refresh)?) });
        }
        let id = session.id;
        tracing::warn!(
            target: SECURITY,
            event = "auth.refresh_token_reuse",
            session_id = %id,
            "an old refresh token of {id} came again"
        );
        self.needs.metrics.auth(AuthEvent::RefreshReused);
        // The session ends even when its tokens can't be revoked now.
        let revoked = self.revoke(id, &holder.token_id).await;
        self.needs.sessions.close(id).await?;
        if let Err(error) = revoked {
            tracing::error!(
                target: SECURITY,
                event = "auth.revocation_lost",
                session_id = %id,
                error.code = wire::code(&error),
                error.message = %error,
                "tokens of {id} live until they expire"
            );
        }
        Err(invalid_refresh_token())
    }
}
