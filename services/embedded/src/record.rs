//! Writes down each call that reaches the store: what was asked, by which service, when, and how it ended.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode, Uri, header::USER_AGENT},
    response::{IntoResponse as _, Response},
};
use domain::Clock;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use platform::Process;
use serde_json::{Value, json};
use tokio::{fs::File, io::AsyncWriteExt as _, sync::mpsc};

/// DynamoDB takes requests of up to 16 MB.
const LARGEST_REQUEST: usize = 16 * 1024 * 1024;
/// Lines waiting for the disk; a caller waits when there are more.
const LINES: usize = 10_000;

struct Recorder {
    store: String,
    client: Client<HttpConnector, Body>,
    lines: mpsc::Sender<String>,
    clock: Arc<dyn Clock>,
}

/// Stands before the store at `endpoint` and appends a JSON line a call to `file`. Returns the endpoint to use.
pub(crate) async fn start(endpoint: &str, file: &Path, process: &Process) -> anyhow::Result<String> {
    let (lines, waiting) = mpsc::channel(LINES);
    let out = open(file).await?;
    let recorder = Arc::new(Recorder {
        store: endpoint.to_owned(),
        client: Client::builder(TokioExecutor::new()).build_http(),
        lines,
        clock: process.clock(),
    });
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let (listener, address) = process.bind("the embedded store's recorder", loopback).await?;
    let router = Router::new().fallback(forward).with_state(recorder);
    process.spawn_last("store recorder", |stop| async move {
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
        Ok(())
    });
    process.spawn_last("store record", |_| write(out, waiting));
    Ok(format!("http://{address}"))
}

async fn open(file: &Path) -> anyhow::Result<File> {
    let path = PathBuf::from(file);
    let opened = File::options().create(true).append(true).open(&path).await;
    opened.with_context(|| format!("failed to open --store-calls {}", path.display()))
}

/// Ends when the recorder, which holds the sender, has ended.
async fn write(mut file: File, mut lines: mpsc::Receiver<String>) -> anyhow::Result<()> {
    while let Some(line) = lines.recv().await {
        file.write_all(line.as_bytes()).await.context("failed to write --store-calls")?;
        file.flush().await.context("failed to write --store-calls")?;
    }
    Ok(())
}

async fn forward(State(recorder): State<Arc<Recorder>>, request: Request<Body>) -> Response {
    let at = recorder.clock.now();
    let (mut head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_REQUEST).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("{}{path}", recorder.store).parse::<Uri>() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut line = describe(&head.headers, &body);
    head.uri = uri;
    let answered = recorder.client.request(Request::from_parts(head, Body::from(body))).await;
    let response = match answered {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            tracing::warn!(event = "store.no_answer", error.message = %error, "the embedded store did not answer");
            StatusCode::BAD_GATEWAY.into_response()
        }
    };
    line["at"] = at.0.into();
    line["done"] = recorder.clock.now().0.into();
    line["status"] = response.status().as_u16().into();
    if recorder.lines.send(format!("{line}\n")).await.is_err() {
        tracing::warn!(event = "store.not_recorded", "a store call was not recorded");
    }
    response
}

/// Operation, table and number of items of a call, and the service that made it (`app/<name>` in its user agent).
fn describe(headers: &HeaderMap, body: &Bytes) -> Value {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = text("x-amz-target").rsplit('.').next().unwrap_or_default();
    let agent = text(USER_AGENT.as_str());
    let service = agent.split_whitespace().find_map(|word| word.strip_prefix("app/")).unwrap_or_default();
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let items = body["TransactItems"].as_array().map_or(1, Vec::len);
    json!({"service": service, "operation": operation, "table": body["TableName"], "items": items})
}
