//! What every REST answer has: the envelope of an error, the request's id, no caching.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use domain::{Error, Ids};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use platform::wire;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Header of a request's id.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// The id of one request: the client's own if it is a UUID, otherwise a new one.
#[derive(Clone, Debug)]
pub(super) struct RequestId(String);

impl RequestId {
    /// By the headers.
    pub(super) fn of(headers: &HeaderMap, ids: &dyn Ids) -> Self {
        let shown = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        if let Some(shown) = shown.filter(|shown| shown.len() == 36 && Uuid::try_parse(shown).is_ok()) {
            return Self(shown.to_owned());
        }
        let mut random = [0; 16];
        ids.fill(&mut random);
        Self(uuid::Builder::from_random_bytes(random).into_uuid().to_string())
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A failure in the one envelope that all failures have.
pub(super) fn failure(error: &Error, request: &RequestId) -> Response {
    let codes = wire::codes(error.kind());
    let mut response = envelope(codes.http, codes.rest, error.message(), wire::details_json(error), request);
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A method that the path does not have.
pub(super) fn method_not_allowed(request: &RequestId) -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    envelope(status, "METHOD_NOT_ALLOWED", "the path does not have this method", None, request)
}

fn envelope(
    status: StatusCode,
    code: &str,
    message: &str,
    details: Option<Map<String, Value>>,
    request: &RequestId,
) -> Response {
    let mut error = Map::new();
    error.insert("code".to_owned(), code.into());
    error.insert("message".to_owned(), message.into());
    if let Some(details) = details {
        error.insert("details".to_owned(), details.into());
    }
    error.insert("request_id".to_owned(), request.as_str().into());
    json(status, json!({ "error": error }).to_string())
}

/// A JSON answer of that text.
pub(super) fn json(status: StatusCode, body: String) -> Response {
    let mut response = (status, Body::from(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds what every answer has. Answers hold tokens and profiles, so none may be cached.
pub(super) fn finish(mut response: Response, request: &RequestId) -> Response {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(request.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
