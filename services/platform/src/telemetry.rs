//! Log lines and traces.

mod json;
mod sampling;

use std::{io::IsTerminal as _, time::Duration};

use anyhow::Context as _;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::config::{Config, LogFormat};

use sampling::Adaptive;

/// How long the collector may take to answer.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// How long the last traces may take when a process ends (`observability.md` §9).
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// Field that the spans of a message have, and no other: what a library calls a span is nobody's hop.
const HOP: &str = "trace_id";
/// Target of the events that a security log keeps: as lines of JSON they have the level `SECURITY`.
pub const SECURITY: &str = "security";

/// The traces of a process, to be flushed at its end.
#[must_use = "the last traces are lost without a flush"]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Hands over what has not been handed over, within five seconds.
    pub async fn flush(self) {
        let Some(provider) = self.0 else { return };
        // It blocks its thread.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_WITHIN)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(
                event = "traces.lost",
                error.message = %error,
                "the last traces were not handed over"
            );
        }
    }
}

/// A time as `latency_ms` has it: in milliseconds, to the microsecond.
pub fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// Starts logging to standard error, and tracing. To be called once, in a runtime.
///
/// # Errors
/// When `--log` is not a filter, `--otlp-endpoint` is not an address, or logging runs already.
pub fn start(service: &'static str, config: &Config) -> anyhow::Result<Traces> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("--log {:?} is not a filter", config.log))?;
    let lines = match config.log_format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => json_lines(service, config.environment.as_deref()).with_writer(std::io::stderr).boxed(),
    };
    let provider = provider(service, config)?;
    let hops = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_hop))
        .with_filter(LevelFilter::INFO);
    let started = tracing_subscriber::registry().with(hops).with(lines.with_filter(filter)).try_init();
    started.map_err(|error| anyhow::anyhow!("failed to start logging: {error}"))?;
    Ok(Traces(config.otlp_endpoint.is_some().then_some(provider)))
}

fn is_hop(span: &tracing::Metadata<'_>) -> bool {
    span.is_span() && span.fields().field(HOP).is_some()
}

fn json_lines<S>(service: &str, environment: Option<&str>) -> fmt::Layer<S, json::Spans, json::Lines>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    fmt::layer().fmt_fields(json::Spans).event_format(json::Lines::of(service, environment))
}

/// Without a collector trace ids are made and passed on all the same: they are in the log lines of every hop.
fn provider(service: &'static str, config: &Config) -> anyhow::Result<SdkTracerProvider> {
    let environment = config.environment.clone().map(|name| KeyValue::new("deployment.environment.name", name));
    let resource = Resource::builder().with_service_name(service).with_attributes(environment).build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok(builder.with_sampler(Sampler::AlwaysOff).build());
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_WITHIN)
        .build()
        .with_context(|| format!("--otlp-endpoint {endpoint}"))?;
    let roots = Adaptive::new(config.traces_per_minute);
    // A client's trace is kept or not as one that begins here.
    let sampler = Sampler::parent_based(roots.clone()).with_remote_parent_sampled(roots);
    Ok(builder.with_sampler(sampler).with_batch_exporter(exporter).build())
}
