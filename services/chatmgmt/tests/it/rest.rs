//! What REST does with any request.

use reqwest::{Method, header};
use serde_json::json;

use crate::world::{Answer, World};

const ID: &str = "e1c60aa3-d510-4b04-b2d9-0dcd57bb7d97";
const PATH: &str = "/api/v1/auth/request-otp";

async fn sent(request: reqwest::RequestBuilder) -> Answer {
    Answer::of(request.header("x-request-id", ID).send().await.expect("an answer")).await
}

fn envelope(code: &str, message: &str) -> serde_json::Value {
    json!({"error": {"code": code, "message": message, "request_id": ID}})
}

#[tokio::test]
async fn failures_have_one_envelope() {
    let world = World::start().await;
    let post = |body: &'static str, kind: &'static str| {
        let request = world.request(Method::POST, PATH).body(body);
        if kind.is_empty() { request } else { request.header(header::CONTENT_TYPE, kind) }
    };

    let bad = sent(post("{", "application/json")).await;
    assert_eq!((bad.status, bad.body.clone()), (400, envelope("BAD_REQUEST", "the body is not JSON")));
    assert_eq!(bad.header("content-type"), "application/json");

    for kind in ["", "text/plain"] {
        let untyped = sent(post("{}", kind)).await;
        let message = "a body needs the header Content-Type: application/json";
        assert_eq!((untyped.status, untyped.body), (400, envelope("BAD_REQUEST", message)));
    }
    assert_eq!(sent(post("{}", "application/json; charset=utf-8")).await.code(), "VALIDATION_ERROR");

    let unknown = sent(world.request(Method::GET, "/api/v1/nothing")).await;
    assert_eq!((unknown.status, unknown.body), (404, envelope("NOT_FOUND", "no such path")));

    let method = sent(world.request(Method::GET, PATH)).await;
    let golden = envelope("METHOD_NOT_ALLOWED", "the path does not have this method");
    assert_eq!((method.status, method.body.clone()), (405, golden));
    assert_eq!(method.header("allow"), "POST");

    let wrong = sent(post(r#"{"phone_number": 7, "unknown": true}"#, "application/json")).await;
    let golden = json!({"error": {
        "code": "VALIDATION_ERROR", "message": "fields have the wrong type", "request_id": ID,
        "details": {"field_errors": [
            {"field": "phone_number", "code": "INVALID_TYPE", "message": "must be a text"},
        ]},
    }});
    assert_eq!((wrong.status, wrong.body), (400, golden));

    for body in ["", "{}", r#"{"phone_number": null}"#] {
        let missing = sent(post(body, "application/json")).await;
        assert_eq!(missing.body["error"]["details"]["field_errors"][0]["code"], "REQUIRED", "{body}");
    }
}

#[tokio::test]
async fn a_body_above_64_kb_is_refused_with_its_size() {
    let world = World::start().await;
    let request = world.request(Method::POST, PATH).header(header::CONTENT_TYPE, "application/json");
    let large = sent(request.body(vec![b' '; 65_537])).await;
    let golden = json!({"error": {
        "code": "PAYLOAD_TOO_LARGE", "message": "the body is too large", "request_id": ID,
        "details": {"max_bytes": 65_536, "received_bytes": 65_537},
    }});
    assert_eq!((large.status, large.body), (413, golden));
    let request = world.request(Method::POST, PATH).header(header::CONTENT_TYPE, "application/json");
    let fits = sent(request.body(format!("{{{}}}", " ".repeat(65_534)))).await;
    assert_eq!(fits.code(), "VALIDATION_ERROR");
}

#[tokio::test]
async fn every_answer_names_its_request_and_is_not_cached() {
    let world = World::start().await;
    for path in ["/api/v1/health", "/api/v1/", "/api/v1/users/me", "/elsewhere"] {
        let named = sent(world.request(Method::GET, path)).await;
        assert_eq!((named.header("x-request-id"), named.header("cache-control")), (ID, "no-store"), "{path}");
        let made = world.request(Method::GET, path).header("x-request-id", "not a uuid");
        let made = Answer::of(made.send().await.expect("an answer")).await;
        assert_eq!(made.header("x-request-id").len(), 36, "{path}");
    }
}

#[tokio::test]
async fn health_and_capabilities_need_no_token() {
    let world = World::start().await;
    let health = sent(world.request(Method::GET, "/api/v1/health")).await;
    assert_eq!((health.status, &health.body), (200, &json!({"status": "healthy", "timestamp": world.now()})));
    let root = sent(world.request(Method::GET, "/api/v1/")).await;
    let golden = json!({"data": {
        "version": env!("CARGO_PKG_VERSION"), "api_version": "v1",
        "capabilities": {
            "max_message_size_bytes": 4096, "max_chat_members": 100, "max_chats_per_user": 500,
            "supported_content_types": ["text/plain"], "auth_methods": ["phone_otp"],
            "websocket_protocol_version": 1,
        },
        "documentation_url": "/api/v1/docs",
    }});
    assert_eq!((root.status, root.body), (200, golden));
}
