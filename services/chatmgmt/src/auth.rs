//! Login: one-time codes, sessions, and the rotation of their tokens (auth-security §3 to §5, D6).

mod codes;
mod deliver;
mod login;
mod refresh;
mod tokens;

use std::{sync::Arc, time::Duration};

use domain::{
    Clock, Error, ErrorKind, Ids,
    error::Detail,
    ids::{DeviceId, SessionId},
    ports::{OtpRequests, Revocations, Sessions, Users, auth_limits::Counter},
    session::{Session, TokenPair},
    user::Phone,
};
use http::StatusCode;
use platform::telemetry::SECURITY;
use proto::messaging::v1 as pb;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    caller::{self, Callers, answer, refuse},
    config::Limits,
    metrics::{AuthEvent, Metrics},
    rate_limits::{Limit, RateLimits, WhenAway},
    secrets::Secrets,
};
use codes::Codes;
pub(crate) use codes::phone_hash;
pub use deliver::Deliveries;
use tokens::{Minter, RefreshToken};

/// Seconds after which a client may offer to ask for a code again.
const RESEND_AFTER_SECONDS: u32 = 60;
/// How much longer than the longest-lived token a revocation is kept (D6.4).
const REVOKED_LONGER: Duration = Duration::from_mins(1);

/// What login needs from the outside.
pub struct Needs {
    /// Who calls.
    pub callers: Callers,
    /// Codes.
    pub otp_requests: Arc<dyn OtpRequests>,
    /// People.
    pub users: Arc<dyn Users>,
    /// Logins.
    pub sessions: Arc<dyn Sessions>,
    /// What no longer counts.
    pub revocations: Arc<dyn Revocations>,
    /// Bars on phones that were guessed at.
    pub bars: Arc<dyn domain::ports::AuthLimits>,
    /// Limits on all callers.
    pub rate_limits: RateLimits,
    /// Text messages.
    pub deliveries: Deliveries,
    /// What is measured.
    pub metrics: Metrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids and randomness.
    pub ids: Arc<dyn Ids>,
}

/// The service `messaging.v1.Auth`.
pub struct Auth {
    needs: Needs,
    codes: Codes,
    minter: Minter,
    limits: Limits,
}

impl Auth {
    /// With those secrets and limits.
    ///
    /// # Errors
    /// When a secret is of no use.
    pub fn new(needs: Needs, secrets: &Secrets, limits: Limits) -> anyhow::Result<Self> {
        let codes = Codes::new(secrets, needs.ids.clone())?;
        let minter = Minter::new(secrets, limits.access_token_lifetime);
        Ok(Self { needs, codes, minter, limits })
    }

    async fn request_code(
        &self,
        metadata: &MetadataMap,
        asked: &pb::RequestOtpRequest,
    ) -> Result<pb::RequestOtpResponse, Error> {
        let phone = read_phone(&asked.phone_number)?;
        let hash = phone_hash(&phone);
        let within = self.limits.otp_within;
        let of_phone = Limit { times: self.limits.otp_per_phone, within, when_away: WhenAway::Deny };
        self.needs.rate_limits.admit(Counter::OtpOfPhone(hash), of_phone).await?;
        if let Some(ip) = caller::client_ip(metadata) {
            let of_address = Limit { times: self.limits.otp_per_ip, within, when_away: WhenAway::Allow };
            let counter = Counter::OtpOfAddress(self.codes.address_hash(ip));
            self.needs.rate_limits.admit(counter, of_address).await?;
        }
        let now = self.needs.clock.now();
        let code = self.codes.draw();
        let request = self.codes.request(&code, hash, now, now + self.limits.otp_validity)?;
        let (code, expires_at) = match self.needs.otp_requests.issue(&request).await? {
            domain::ports::otp_requests::Issued::New => (Some(code), request.expires_at),
            // The same code goes out again, with the time it has left.
            domain::ports::otp_requests::Issued::Pending(good) => (self.codes.decrypt(&good), good.expires_at),
        };
        if let Some(code) = code {
            self.needs.deliveries.deliver(phone, code);
        } else {
            tracing::warn!(event = "auth.otp_delivery_failed", "a code could not be read again, none was sent");
        }
        tracing::info!(target: SECURITY, event = "auth.otp_requested", phone_hash = %hash, "a code was requested for {hash}");
        self.needs.metrics.auth(AuthEvent::OtpRequested);
        Ok(pb::RequestOtpResponse {
            phone_number: asked.phone_number.clone(),
            expires_at: Some(pb::Timestamp { millis: expires_at.0 }),
            retry_after_seconds: RESEND_AFTER_SECONDS,
        })
    }

    async fn end_session(&self, metadata: &MetadataMap, asked: &pb::LogoutRequest) -> Result<(), Error> {
        let holder = self.needs.callers.authenticate(metadata).await?;
        let presented = read_refresh_token(&asked.refresh_token)?;
        let session = self.needs.sessions.session(holder.session).await?;
        let Some(session) = session.filter(|session| session.user == holder.user) else {
            return Err(invalid_refresh_token());
        };
        if session.tokens.refresh != presented.hash() {
            return Err(invalid_refresh_token());
        }
        self.revoke(session.id, &holder.token_id).await?;
        self.needs.sessions.close(session.id).await?;
        self.needs.metrics.auth(AuthEvent::LoggedOut);
        let (user, session) = (holder.user, session.id);
        tracing::info!(
            target: SECURITY,
            event = "auth.logout",
            user_id = %user,
            session_id = %session,
            "{user} ended session {session}"
        );
        Ok(())
    }

    /// Makes every token of a session useless, and the one that was shown.
    async fn revoke(&self, session: SessionId, token_id: &str) -> Result<(), Error> {
        let ttl = self.revoked_for();
        let revoked = match self.needs.revocations.revoke_session(session, ttl).await {
            Ok(()) => self.needs.revocations.revoke_token(token_id, ttl).await,
            Err(error) => Err(error),
        };
        if revoked.is_err() {
            self.needs.metrics.auth(AuthEvent::RevocationLost);
        }
        revoked
    }

    fn revoked_for(&self) -> Duration {
        self.limits.access_token_lifetime + REVOKED_LONGER
    }

    fn show_tokens(&self, session: &Session, pair: &TokenPair, refresh: &RefreshToken) -> Result<pb::Tokens, Error> {
        Ok(pb::Tokens {
            access_token: self.minter.access(session.user, session.id, pair)?,
            refresh_token: refresh.text(),
            token_type: "Bearer".to_owned(),
            expires_in: u32::try_from(self.minter.lifetime().as_secs()).unwrap_or(u32::MAX),
        })
    }
}

fn read_phone(text: &str) -> Result<Phone, Error> {
    if text.is_empty() {
        return Err(Error::field("phone_number", "REQUIRED", "a phone number is needed"));
    }
    Phone::new(text)
}

fn read_refresh_token(text: &str) -> Result<RefreshToken, Error> {
    if text.is_empty() {
        return Err(Error::field("refresh_token", "REQUIRED", "the refresh token is needed"));
    }
    RefreshToken::read(text).ok_or_else(invalid_refresh_token)
}

fn invalid_refresh_token() -> Error {
    Error::new(ErrorKind::InvalidRefreshToken, "the refresh token does not hold")
}

/// The header and the body must name one device.
fn read_device(metadata: &MetadataMap, named: &str) -> Result<DeviceId, Error> {
    let shown = caller::device(metadata)?;
    if named.is_empty() {
        return Err(Error::field("device_id", "REQUIRED", "the device is needed"));
    }
    let named: DeviceId = named.parse().map_err(|_| Error::field("device_id", "INVALID", "a device id is a UUID"))?;
    if shown == named {
        Ok(named)
    } else {
        let message = "the header X-Device-ID names another device";
        Err(Error::new(ErrorKind::InvalidArgument, message).with(Detail::Field(
            "device_id".into(),
            "MISMATCH".into(),
            message.into(),
        )))
    }
}

#[tonic::async_trait]
impl pb::auth_server::Auth for Auth {
    async fn request_otp(
        &self,
        call: Request<pb::RequestOtpRequest>,
    ) -> Result<Response<pb::RequestOtpResponse>, Status> {
        let answered = self.request_code(call.metadata(), call.get_ref()).await;
        answered.map(Response::new).map_err(|error| refuse("request-otp", &error))
    }

    async fn verify_otp(&self, call: Request<pb::VerifyOtpRequest>) -> Result<Response<pb::VerifyOtpResponse>, Status> {
        let body = self.log_in(call.metadata(), call.get_ref()).await.map_err(|error| refuse("verify-otp", &error))?;
        let status = if body.is_new_user { StatusCode::CREATED } else { StatusCode::OK };
        Ok(answer(body, status))
    }

    async fn refresh_tokens(
        &self,
        call: Request<pb::RefreshTokensRequest>,
    ) -> Result<Response<pb::RefreshTokensResponse>, Status> {
        let answered = self.rotate_tokens(call.metadata(), call.get_ref()).await;
        answered.map(Response::new).map_err(|error| refuse("refresh", &error))
    }

    async fn logout(&self, call: Request<pb::LogoutRequest>) -> Result<Response<pb::LogoutResponse>, Status> {
        let ended = self.end_session(call.metadata(), call.get_ref()).await;
        ended.map_err(|error| refuse("logout", &error))?;
        Ok(answer(pb::LogoutResponse {}, StatusCode::NO_CONTENT))
    }
}
