//! A collector of traces, as an OTLP server on loopback: what the processes export is kept for a test to look at.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value},
    trace::v1::Span,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// A running collector. It ends with the value.
#[derive(Debug)]
pub struct Collector {
    spans: Spans,
    endpoint: String,
    task: JoinHandle<()>,
}

/// One span, as a process exported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Name of the service that made it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Hexadecimal digits.
    pub trace: String,
    /// Hexadecimal digits.
    pub id: String,
    /// Id of the parent; empty for the first of a trace.
    pub parent: String,
    /// Ids of spans that it is linked to, of whatever trace.
    pub links: Vec<String>,
    /// When it began, in nanoseconds of UTC's epoch.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// Its attributes that are text or whole numbers.
    pub texts: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let spans = Spans::default();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(spans.clone()));
        #[expect(clippy::disallowed_methods, reason = "the collector owns this task and ends it")]
        let task = tokio::spawn(async move {
            // A test that needs spans says which ones did not come.
            drop(server.serve_with_incoming(TcpIncoming::from(listener)).await);
        });
        Ok(Self { spans, endpoint, task })
    }

    /// Where processes are to send their traces.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// All spans so far, in the order in which they came.
    pub fn spans(&self) -> Vec<Seen> {
        self.spans.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut seen = Vec::new();
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = texts(attributes).remove("service.name").unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            seen.extend(spans.map(|span| read(&service, span)));
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(service: &str, span: Span) -> Seen {
    Seen {
        service: service.to_owned(),
        name: span.name,
        trace: digits(&span.trace_id),
        id: digits(&span.span_id),
        parent: digits(&span.parent_span_id),
        links: span.links.iter().map(|link| digits(&link.span_id)).collect(),
        began: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        texts: texts(span.attributes),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| {
        let value = attribute.value?.value?;
        if let any_value::Value::IntValue(number) = value {
            return Some((attribute.key, number.to_string()));
        }
        let any_value::Value::StringValue(text) = value else { return None };
        Some((attribute.key, text))
    };
    attributes.into_iter().filter_map(text).collect()
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // A String takes everything.
        let _infallible = write!(digits, "{byte:02x}");
        digits
    })
}
