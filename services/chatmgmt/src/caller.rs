//! Who calls: the bearer token, the device and the address that a call carries, the same for gRPC and REST.

use std::{net::IpAddr, sync::Arc};

use domain::{Clock, Error, ErrorKind, ids::DeviceId, ports::Revocations};
use platform::{
    tokens::{Expiry, Holder, Verifier},
    wire,
};
use tonic::{Status, metadata::MetadataMap};

/// Metadata key of the access token, as `Bearer <token>`.
pub const AUTHORIZATION: &str = "authorization";
/// Metadata key of the installation.
pub const DEVICE_ID: &str = "x-device-id";
/// Metadata key under which a repeated write is known again.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Metadata key of the request's id, for logs.
pub const REQUEST_ID: &str = "x-request-id";
/// Metadata key of the client's address; REST sets it, whatever the client says.
pub const CLIENT_IP: &str = "x-client-ip";
/// Metadata key of an answer: the HTTP status of a success other than 200.
pub const HTTP_STATUS: &str = "x-http-status";
/// Metadata key of an answer that repeats an earlier outcome.
pub const IDEMPOTENT_REPLAY: &str = "x-idempotent-replay";

/// What a token of the ordinary kind is good for.
pub const SCOPE: &str = "messaging";

/// Tells who calls.
#[derive(Clone)]
pub struct Callers {
    verifier: Arc<Verifier>,
    revocations: Arc<dyn Revocations>,
    clock: Arc<dyn Clock>,
}

impl Callers {
    /// By those keys and those revocations.
    pub fn new(verifier: Arc<Verifier>, revocations: Arc<dyn Revocations>, clock: Arc<dyn Clock>) -> Self {
        Self { verifier, revocations, clock }
    }

    /// Who calls, by an access token that holds.
    ///
    /// # Errors
    /// `Unauthorized` for a token that is missing, false, expired or revoked; `Unavailable` when nobody can
    /// tell whether it was revoked (D6.5).
    pub async fn authenticate(&self, metadata: &MetadataMap) -> Result<Holder, Error> {
        self.check(metadata, Expiry::Checked).await
    }

    /// The same, and the token may have expired: for a refresh.
    ///
    /// # Errors
    /// As [`Callers::authenticate`].
    pub async fn authenticate_expired(&self, metadata: &MetadataMap) -> Result<Holder, Error> {
        self.check(metadata, Expiry::Waived).await
    }

    async fn check(&self, metadata: &MetadataMap, expiry: Expiry) -> Result<Holder, Error> {
        let refuse = |reason| {
            Error::new(ErrorKind::Unauthorized, "the access token is missing or does not hold")
                .with_text("reason", reason)
        };
        let header = text(metadata, AUTHORIZATION).ok_or_else(|| refuse("missing_token"))?;
        let (scheme, token) = header.split_once(' ').ok_or_else(|| refuse("missing_token"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refuse("missing_token"));
        }
        let holder = self.verifier.verify(token.trim(), self.clock.now(), expiry)?;
        if holder.scope != SCOPE {
            return Err(refuse("invalid_token"));
        }
        if self.revocations.is_revoked(&holder.token_id, holder.session).await? {
            return Err(refuse("token_revoked"));
        }
        Ok(holder)
    }
}

/// The installation that calls.
///
/// # Errors
/// `InvalidArgument` on `X-Device-ID` when it is missing or not a UUID.
pub fn device(metadata: &MetadataMap) -> Result<DeviceId, Error> {
    let shown = text(metadata, DEVICE_ID)
        .ok_or_else(|| Error::field("X-Device-ID", "REQUIRED", "the header X-Device-ID names the device"))?;
    shown.parse().map_err(|_| Error::field("X-Device-ID", "INVALID", "the header X-Device-ID is a UUID"))
}

/// The client's address, when it is known.
pub fn client_ip(metadata: &MetadataMap) -> Option<IpAddr> {
    text(metadata, CLIENT_IP)?.parse().ok()
}

/// A metadata value as text; `None` when it is absent or not ASCII.
pub fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}

/// An error as the status of a call. Faults of ours and of what we depend on are logged here, once.
pub fn refuse(call: &'static str, error: &Error) -> Status {
    let kind = error.kind();
    if kind == ErrorKind::Internal {
        tracing::error!(
            event = "call.failed",
            call,
            error.code = wire::code(error),
            error.message = %error,
            "{call} failed"
        );
    } else if kind == ErrorKind::Unavailable {
        tracing::warn!(
            event = "call.unavailable",
            call,
            error.code = wire::code(error),
            error.message = %error,
            "{call} could not be served"
        );
    } else {
        tracing::debug!(call, "{call} was refused: {error}");
    }
    wire::to_status(error)
}

/// An answer whose success has another HTTP status than 200.
pub fn answer<T>(body: T, status: http::StatusCode) -> tonic::Response<T> {
    let mut response = tonic::Response::new(body);
    response.metadata_mut().insert(HTTP_STATUS, u32::from(status.as_u16()).into());
    response
}
