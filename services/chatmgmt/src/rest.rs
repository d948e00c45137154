//! REST, served in this process from the same definition as gRPC: JSON in, one RPC, JSON out (D1.2).

mod answer;
mod call;
mod json;
mod operations;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, FromRequestParts as _, Query, RawPathParams, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, get},
};
use bytes::{Bytes, BytesMut};
use domain::{Error, ErrorKind, limits};
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, header, request::Parts};
use platform::{Process, wire};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde_json::json;
use tonic::{metadata::MetadataMap, service::Routes};

use crate::{caller, metrics::Metrics};
use answer::RequestId;
use json::Shown;
use operations::{Operation, Source};

/// What REST needs to know of the deployment.
#[derive(Clone, Debug)]
pub struct Options {
    /// Proxies before this process that append to `X-Forwarded-For` (D6.7).
    pub trusted_proxy_hops: usize,
    /// How long one call may take.
    pub request_timeout: Duration,
    /// Chats of one user, as advertised.
    pub max_chats_per_user: u32,
    /// Members of a group, as advertised.
    pub max_chat_members: u32,
}

#[derive(Clone)]
struct Rest(Arc<Inner>);

struct Inner {
    services: Routes,
    options: Options,
    process: Process,
    metrics: Metrics,
}

/// A route for each annotated method of the protos, which calls those services.
///
/// # Errors
/// When an annotation can't be served.
pub fn router(services: Routes, options: Options, process: &Process, metrics: Metrics) -> anyhow::Result<Router> {
    let rest = Rest(Arc::new(Inner { services: services.prepare(), options, process: process.clone(), metrics }));
    let mut paths: Vec<(String, MethodRouter<Rest>)> = vec![
        ("/api/v1/health".to_owned(), get(health).fallback(method_not_allowed)),
        ("/api/v1/".to_owned(), get(root).fallback(method_not_allowed)),
    ];
    for operation in operations::read(proto::DESCRIPTORS)? {
        let filter = MethodFilter::try_from(operation.method.clone()).context("a method that can't be routed")?;
        let path = operation.path.clone();
        let operation = Arc::new(operation);
        let handler =
            move |State(rest): State<Rest>, request: Request| async move { serve(&rest, &operation, request).await };
        match paths.iter_mut().find(|(known, _)| *known == path) {
            Some((_, methods)) => *methods = std::mem::take(methods).on(filter, handler),
            None => paths.push((path, MethodRouter::new().on(filter, handler).fallback(method_not_allowed))),
        }
    }
    let router = paths.into_iter().fold(Router::new(), |router, (path, methods)| router.route(&path, methods));
    let router = router.fallback(not_found);
    Ok(router.layer(middleware::from_fn_with_state(rest.clone(), around)).with_state(rest))
}

/// What every call has: an id, a deadline, a measurement.
async fn around(State(rest): State<Rest>, mut request: Request, next: Next) -> Response {
    let started = tokio::time::Instant::now();
    let id = RequestId::of(request.headers(), &*rest.0.process.ids());
    request.extensions_mut().insert(id.clone());
    let response = match tokio::time::timeout(rest.0.options.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => answer::failure(&Error::new(ErrorKind::Unavailable, "the answer took too long"), &id),
    };
    rest.0.metrics.called(response.status(), started.elapsed());
    answer::finish(response, &id)
}

async fn not_found(request: Request) -> Response {
    answer::failure(&Error::new(ErrorKind::NotFound, "no such path"), &id_of(request.extensions()))
}

async fn method_not_allowed(request: Request) -> Response {
    answer::method_not_allowed(&id_of(request.extensions()))
}

#[expect(clippy::expect_used, reason = "`around` lies over every route and sets it")]
fn id_of(extensions: &http::Extensions) -> RequestId {
    extensions.get::<RequestId>().cloned().expect("every request has an id")
}

async fn health(State(rest): State<Rest>) -> Response {
    let is_ready = rest.0.process.not_ready().is_empty();
    let (status, word) =
        if is_ready { (StatusCode::OK, "healthy") } else { (StatusCode::SERVICE_UNAVAILABLE, "unhealthy") };
    let timestamp = proto::time::to_iso(rest.0.process.clock().now().0);
    answer::json(status, json!({"status": word, "timestamp": timestamp}).to_string())
}

async fn root(State(rest): State<Rest>) -> Response {
    let options = &rest.0.options;
    let data = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "api_version": "v1",
        "capabilities": {
            "max_message_size_bytes": limits::CONTENT_BYTES,
            "max_chat_members": options.max_chat_members,
            "max_chats_per_user": options.max_chats_per_user,
            "supported_content_types": ["text/plain"],
            "auth_methods": ["phone_otp"],
            "websocket_protocol_version": 1,
        },
        "documentation_url": "/api/v1/docs",
    });
    answer::json(StatusCode::OK, json!({ "data": data }).to_string())
}

async fn serve(rest: &Rest, operation: &Operation, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let id = id_of(&parts.extensions);
    let answered = async {
        let message = read(operation, &mut parts, body).await?;
        let mut call = tonic::Request::new(Bytes::from(message.encode_to_vec()));
        *call.metadata_mut() = metadata(&parts, &id, rest.0.options.trusted_proxy_hops);
        let answer = call::unary(rest.0.services.clone(), operation.rpc.clone(), call).await;
        show(operation, &answer.map_err(|status| wire::from_status(&status))?)
    };
    answered.await.unwrap_or_else(|error: Error| answer::failure(&error, &id))
}

/// The RPC's request, from path, query and body.
async fn read(operation: &Operation, parts: &mut Parts, body: Body) -> Result<DynamicMessage, Error> {
    let refuse = |message: &'static str| Error::new(ErrorKind::BadRequest, message);
    let message = match operation.source {
        Source::Body => {
            let body = collect(&parts.headers, body).await?;
            if body.is_empty() {
                DynamicMessage::new(operation.input.clone())
            } else if is_json(&parts.headers) {
                json::read_body(&operation.input, &body)?
            } else {
                return Err(refuse("a body needs the header Content-Type: application/json"));
            }
        }
        Source::Query => {
            let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
            let Query(query) = query.map_err(|_| refuse("the query can't be read"))?;
            let texts = query.iter().map(|(name, text)| (name.as_str(), text.as_str()));
            json::read_texts(DynamicMessage::new(operation.input.clone()), texts)?
        }
    };
    let path = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| refuse("the path can't be read"))?;
    json::read_texts(message, &path)
}

/// The whole body, at most 64 KB of it.
async fn collect(headers: &HeaderMap, body: Body) -> Result<Bytes, Error> {
    let too_large = |received: u64| {
        Error::new(ErrorKind::PayloadTooLarge, "the body is too large")
            .with_number("max_bytes", limits::BODY_BYTES as u64)
            .with_number("received_bytes", received)
    };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(declared) = declared.filter(|declared| *declared > limits::BODY_BYTES as u64) {
        return Err(too_large(declared));
    }
    let mut all = BytesMut::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|cause| Error::new(ErrorKind::BadRequest, "the body ended too early").caused_by(cause))?;
        if all.len() + chunk.len() > limits::BODY_BYTES {
            return Err(too_large((all.len() + chunk.len()) as u64));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

fn is_json(headers: &HeaderMap) -> bool {
    let shown = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = shown.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What the RPC learns of the call beside its request.
fn metadata(parts: &Parts, id: &RequestId, trusted_proxy_hops: usize) -> MetadataMap {
    let mut headers = HeaderMap::new();
    for name in [caller::AUTHORIZATION, caller::DEVICE_ID, caller::IDEMPOTENCY_KEY] {
        if let Some(value) = parts.headers.get(name) {
            headers.insert(name, value.clone());
        }
    }
    headers.extend(id.as_str().try_into().ok().map(|id| (http::HeaderName::from_static(caller::REQUEST_ID), id)));
    if let Some(client) = client_ip(parts, trusted_proxy_hops) {
        headers.extend(client.try_into().ok().map(|ip| (http::HeaderName::from_static(caller::CLIENT_IP), ip)));
    }
    MetadataMap::from_headers(headers)
}

/// The address that the outermost trusted proxy saw; without trusted proxies the peer's.
fn client_ip(parts: &Parts, trusted_proxy_hops: usize) -> Option<String> {
    let forwarded: Vec<&str> = parts
        .headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let named = (trusted_proxy_hops > 0).then(|| forwarded.len().checked_sub(trusted_proxy_hops)).flatten();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    named
        .and_then(|at| forwarded.get(at).map(|&ip| ip.to_owned()))
        .or_else(|| peer.map(|ConnectInfo(peer)| peer.ip().to_string()))
}

/// The RPC's answer as JSON: in an envelope, but lists, which bring their own.
fn show(operation: &Operation, answer: &tonic::Response<Bytes>) -> Result<Response, Error> {
    let status = match caller::text(answer.metadata(), caller::HTTP_STATUS) {
        Some(code) => code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()),
        None => Some(StatusCode::OK),
    };
    let status = status.ok_or_else(|| Error::internal("a service answered with a status that is not one"))?;
    if status == StatusCode::NO_CONTENT {
        return Ok(status.into_response());
    }
    let message =
        DynamicMessage::decode(operation.output.clone(), answer.get_ref().clone()).map_err(Error::internal)?;
    let shown = serde_json::to_string(&Shown(&message)).map_err(Error::internal)?;
    let brings_its_own = operation.output.get_field_by_name("pagination").is_some();
    let mut response = answer::json(status, if brings_its_own { shown } else { format!("{{\"data\":{shown}}}") });
    if let Some(replay) = answer.metadata().get(caller::IDEMPOTENT_REPLAY) {
        let name = http::HeaderName::from_static(caller::IDEMPOTENT_REPLAY);
        response.headers_mut().extend(replay.to_str().ok().and_then(|v| v.parse().ok()).map(|v| (name, v)));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_whom_the_outermost_trusted_proxy_saw() {
        let cases: [(usize, &[&str], Option<&str>); 6] = [
            (0, &["6.6.6.6"], Some("10.0.0.9")),
            (1, &["6.6.6.6, 203.0.113.7"], Some("203.0.113.7")),
            (1, &["6.6.6.6", "203.0.113.7"], Some("203.0.113.7")),
            (2, &["6.6.6.6, 203.0.113.7, 10.0.0.1"], Some("203.0.113.7")),
            (2, &["203.0.113.7"], Some("10.0.0.9")),
            (1, &[], Some("10.0.0.9")),
        ];
        for (hops, forwarded, expected) in cases {
            let mut request = http::Request::builder().extension(ConnectInfo(SocketAddr::from(([10, 0, 0, 9], 1))));
            for value in forwarded {
                request = request.header("x-forwarded-for", *value);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            assert_eq!(client_ip(&parts, hops).as_deref(), expected, "{hops} {forwarded:?}");
        }
    }
}
