//! From an HTTP request to a connection: who it is, whether they may, and how frames will look.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{
        FromRequestParts as _, Path, Query, Request, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use domain::{
    Error, Millis,
    ids::{ConnectionId, DeviceId},
    route::Connection,
};
use platform::{
    telemetry::SECURITY,
    tokens::{Expiry, Holder},
    wire,
};
use proto::{
    frames,
    messaging::v1::{ConnectionEstablished, ErrorDetails, ErrorFrame, server_frame::Payload},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Gateway,
    addresses::{Address, Place},
    config::Sunset,
    connections::Link,
    metrics,
    outbound::Encoding,
    replace,
    session::{self, Session},
    socket,
};

/// What a token must be good for.
const HEADER_SCOPE: &str = "messaging";
const QUERY_SCOPE: &str = "socket";
/// Seconds after which a client may try again when something is away, or too many connections are open.
const RETRY_SECONDS: u32 = 5;
/// The code of the notice that this version of the protocol ends.
pub const DEPRECATED: &str = "VERSION_DEPRECATED";

/// The WebSocket endpoint.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new().route("/{version}/ws", get(handshake)).with_state(gateway)
}

/// What a client may say in the URL.
#[derive(Deserialize)]
struct Parameters {
    token: Option<String>,
    device_id: Option<String>,
}

/// A refused handshake.
struct Rejection {
    status: StatusCode,
    error: &'static str,
    message: String,
    details: Option<Value>,
    retry_after: Option<u32>,
    outcome: metrics::Handshake,
}

impl Rejection {
    fn invalid(message: impl Into<String>) -> Self {
        let (status, outcome) = (StatusCode::BAD_REQUEST, metrics::Handshake::InvalidRequest);
        Self { status, error: "invalid_request", message: message.into(), details: None, retry_after: None, outcome }
    }

    fn token(message: impl Into<String>) -> Self {
        let (status, outcome) = (StatusCode::UNAUTHORIZED, metrics::Handshake::InvalidToken);
        Self { status, error: "invalid_token", outcome, ..Self::invalid(message) }
    }

    fn unavailable(message: impl Into<String>) -> Self {
        let (status, outcome) = (StatusCode::SERVICE_UNAVAILABLE, metrics::Handshake::ServiceUnavailable);
        let retry_after = Some(RETRY_SECONDS);
        Self { status, error: "service_unavailable", retry_after, outcome, ..Self::invalid(message) }
    }

    fn limited(message: impl Into<String>, seconds: u32) -> Self {
        let (status, outcome) = (StatusCode::TOO_MANY_REQUESTS, metrics::Handshake::RateLimited);
        Self { status, error: "rate_limited", retry_after: Some(seconds), outcome, ..Self::invalid(message) }
    }

    fn too_often(error: &Error) -> Self {
        Self::limited(error.message().to_owned(), error.retry_after_seconds().unwrap_or(RETRY_SECONDS))
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut body = json!({"error": self.error, "message": self.message});
        if let Some(details) = self.details {
            body["details"] = details;
        }
        if let Some(seconds) = self.retry_after {
            body["retry_after_seconds"] = seconds.into();
        }
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

async fn handshake(State(gateway): State<Arc<Gateway>>, Path(version): Path<String>, request: Request) -> Response {
    match answer(&gateway, &version, request).await {
        Ok(response) => {
            gateway.metrics.shook(metrics::Handshake::Accepted);
            response
        }
        Err(rejection) => {
            gateway.metrics.shook(rejection.outcome);
            tracing::debug!(status = rejection.status.as_u16(), "refused a handshake: {}", rejection.message);
            rejection.into_response()
        }
    }
}

/// The checks, in the order of websocket-protocol §2.2.
async fn answer(gateway: &Arc<Gateway>, version: &str, request: Request) -> Result<Response, Rejection> {
    let (mut parts, _) = request.into_parts();
    let address = Address::of(&parts.headers, &parts.extensions, gateway.trusted_proxy_hops);
    // Whatever comes of it, it was an attempt; that there were too many is said when it is its turn.
    let attempt = address.map_or(Ok(()), |address| gateway.addresses.attempt(address, Instant::now()));
    check_version(version)?;
    let Query(parameters) = Query::<Parameters>::try_from_uri(&parts.uri)
        .map_err(|_| Rejection::invalid("the query of the URL can't be read"))?;
    let headers = parts.headers.clone();
    let shown = token(&headers, &parameters)?;
    let device = device(&headers, &parameters)?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, gateway)
        .await
        .map_err(|rejection: WebSocketUpgradeRejection| Rejection::invalid(rejection.to_string()))?;
    check_origin(&headers, &gateway.limits.connection_origins)?;

    let now = gateway.clock.now();
    let (token, scope) = shown.ok_or_else(|| Rejection::token("the Authorization header is missing"))?;
    let mut holder = gateway.verifier.verify(&token, now, Expiry::Checked).map_err(|error| {
        tracing::info!(target: SECURITY, event = "auth.token_refused", reason = ?error.details(), "a token does not hold");
        Rejection::token(error.message())
    })?;
    if !holder.scope.split(' ').any(|word| word == scope) {
        return Err(Rejection::token("the token is not good for this"));
    }
    if scope == QUERY_SCOPE {
        gateway.metrics.query_tokens.inc();
        tracing::warn!(
            event = "auth.token_in_url",
            user.id = %holder.user,
            "user {} connects with a token in the URL", holder.user
        );
        // That token only opens the door; the session behind it lasts longer.
        holder.expires_at = now + gateway.limits.connection_socket_token_age;
    }
    check_revocation(gateway, &holder).await?;
    attempt.map_err(|error| Rejection::too_often(&error))?;
    let place = check_limits(gateway, &holder, address)?;

    let encoding = encoding(&headers);
    let form = encoding.map_or(Encoding::Json, |(encoding, _)| encoding);
    let session = admit(gateway, holder, (device, form, place), now).await?;
    let upgrade = match encoding {
        Some((_, protocol)) => upgrade.protocols([protocol]),
        None => upgrade,
    };
    let process = gateway.process.clone();
    Ok(socket::bounded(upgrade, &gateway.limits).on_upgrade(move |socket| {
        drop(process.spawn_child(session::run(session, socket)));
        std::future::ready(())
    }))
}

fn check_version(version: &str) -> Result<(), Rejection> {
    let number = version.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok());
    match number {
        Some(frames::PROTOCOL_VERSION) => Ok(()),
        Some(number) => Err(Rejection {
            error: "unsupported_version",
            details: Some(json!({"requested_version": number, "supported_versions": [frames::PROTOCOL_VERSION]})),
            outcome: metrics::Handshake::UnsupportedVersion,
            ..Rejection::invalid(format!("this endpoint does not speak version {number}"))
        }),
        None => Err(Rejection {
            status: StatusCode::NOT_FOUND,
            error: "not_found",
            ..Rejection::invalid("there is nothing here; the WebSocket is at /v1/ws")
        }),
    }
}

/// The token if there is one, and the scope that it must have where it stands.
fn token(headers: &HeaderMap, parameters: &Parameters) -> Result<Option<(String, &'static str)>, Rejection> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| Rejection::invalid("the Authorization header can't be read"))?;
        let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Rejection::invalid("the Authorization header must be `Bearer <token>`"))?;
        return Ok(Some((token.to_owned(), HEADER_SCOPE)));
    }
    Ok(parameters.token.clone().filter(|token| !token.is_empty()).map(|token| (token, QUERY_SCOPE)))
}

fn device(headers: &HeaderMap, parameters: &Parameters) -> Result<DeviceId, Rejection> {
    let text = match headers.get("x-device-id") {
        Some(value) => value.to_str().ok().map(str::to_owned),
        None => parameters.device_id.clone(),
    };
    let text = text.ok_or_else(|| Rejection::invalid("the X-Device-ID header is missing"))?;
    text.parse().map_err(|_| Rejection::invalid("the device id must be a hyphenated UUID"))
}

/// A page of another site must not use what the browser keeps for this one (D6.7).
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Rejection> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = origin.split_once("://").map(|(_, host)| host);
    if (host.is_some() && host == own) || allowed.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    Err(Rejection {
        status: StatusCode::FORBIDDEN,
        error: "forbidden_origin",
        outcome: metrics::Handshake::ForbiddenOrigin,
        ..Rejection::invalid("pages of this origin may not connect")
    })
}

async fn check_revocation(gateway: &Gateway, holder: &Holder) -> Result<(), Rejection> {
    match gateway.revocations.is_revoked(&holder.token_id, holder.session).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(Rejection {
            error: "token_revoked",
            outcome: metrics::Handshake::TokenRevoked,
            ..Rejection::token("the session was ended")
        }),
        Err(error) => {
            tracing::warn!(
                event = "auth.revocations_unknown",
                error.code = wire::code(&error),
                error.message = %error,
                "refused a handshake, for revocations can't be looked up"
            );
            Err(Rejection::unavailable("the session can't be checked at the moment"))
        }
    }
}

/// Whether there is room for one more of this user and this address, which then has its place.
fn check_limits(gateway: &Gateway, holder: &Holder, address: Option<Address>) -> Result<Option<Place>, Rejection> {
    if gateway.process.stop_token().is_cancelled() {
        return Err(Rejection::unavailable("this gateway is being replaced"));
    }
    let open = usize::try_from(gateway.metrics.connections.get()).unwrap_or(0);
    if open >= gateway.limits.connection_maximum {
        return Err(Rejection::unavailable("this gateway has all the connections it takes"));
    }
    let admitted = gateway.newcomers.admit(holder.user, Instant::now());
    admitted.map_err(|error| Rejection::too_often(&error))?;
    address.map(|address| gateway.addresses.open(address)).transpose().map_err(|error| Rejection::too_often(&error))
}

/// The encoding of the first subprotocol offered that is known; none means JSON.
fn encoding(headers: &HeaderMap) -> Option<(Encoding, &'static str)> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).find_map(|offered| match offered.trim() {
        frames::JSON => Some((Encoding::Json, frames::JSON)),
        frames::PROTOBUF => Some((Encoding::Protobuf, frames::PROTOBUF)),
        _ => None,
    })
}

/// Registers the connection, closes the one it replaces, and queues its first frames.
async fn admit(
    gateway: &Arc<Gateway>,
    holder: Holder,
    (device, encoding, place): (DeviceId, Encoding, Option<Place>),
    now: Millis,
) -> Result<Session, Rejection> {
    let record = Connection {
        id: ConnectionId::new(&*gateway.ids),
        user: holder.user,
        device,
        gateway: gateway.id.clone(),
        connected_at: now,
    };
    let link = Arc::new(Link::new(record.clone(), encoding));
    // Held here first: what fanout sends from the registration on waits behind the first frame.
    let session = Session::new(gateway.clone(), link.clone(), holder, place);
    let registered = gateway.registry.register(&record, now, gateway.registry_ttl()).await;
    let registered = registered.map_err(|error: Error| {
        tracing::warn!(
            event = "connection.register_failed",
            error.code = wire::code(&error),
            error.message = %error,
            "refused a handshake, for it can't be registered"
        );
        Rejection::unavailable("the connection can't be registered at the moment")
    })?;
    let replaced = u32::try_from(registered.replaced.len()).unwrap_or(u32::MAX);
    if registered.live.saturating_sub(replaced) > gateway.limits.connection_per_user {
        return Err(Rejection::limited("too many connections of this user", RETRY_SECONDS));
    }
    replace::older(gateway, record.user, registered.replaced);
    let heartbeat = gateway.limits.heartbeat_interval.as_millis();
    let established = ConnectionEstablished {
        connection_id: record.id.to_string(),
        user_id: record.user.to_string(),
        device_id: record.device.to_string(),
        server_time: now.0,
        heartbeat_interval_ms: u32::try_from(heartbeat).unwrap_or(u32::MAX),
        protocol_version: frames::PROTOCOL_VERSION,
    };
    link.answer(gateway, "", Payload::ConnectionEstablished(established));
    if let Some(notice) = deprecation(gateway, now) {
        link.answer(gateway, "", Payload::Error(notice));
    }
    tracing::info!(
        event = "connection.established",
        connection.id = %record.id,
        user.id = %record.user,
        "connection {} of {}", record.id, record.user
    );
    Ok(session)
}

/// Tells that the version ends, for as long before as clients are told.
fn deprecation(gateway: &Gateway, now: Millis) -> Option<ErrorFrame> {
    let Sunset(at) = gateway.limits.protocol_sunset?;
    (now >= at - gateway.limits.protocol_notice).then(|| ErrorFrame {
        code: DEPRECATED.to_owned(),
        message: "this version of the protocol ends; the application needs an update".to_owned(),
        details: Some(ErrorDetails { sunset: Some(proto::time::to_iso(at.0)), ..ErrorDetails::default() }),
    })
}
