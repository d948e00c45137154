//! Trace context between processes: the W3C `traceparent`, in gRPC metadata, in Kafka headers and in frames.
//!
//! The six spans of a message (D9.1) carry the field `trace_id`, which [`begin`] and [`follow`] fill: by it log lines are
//! found, and by it the exporter knows the spans that are hops from those of libraries.

use std::collections::HashMap;

use opentelemetry::{
    propagation::TextMapPropagator as _,
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// Begins a trace with this span.
#[must_use]
pub fn begin(span: Span) -> Span {
    follow(span, None)
}

/// Makes a span that has not been entered yet the child of what another process said; without it a trace begins.
#[must_use]
pub fn follow(span: Span, traceparent: Option<&str>) -> Span {
    if span.is_disabled() {
        return span;
    }
    if let Some(parent) = traceparent.and_then(parse) {
        // An error says that no traces are made here.
        drop(span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent)));
    }
    let context = context(&span);
    if context.is_valid() {
        span.record("trace_id", tracing::field::display(context.trace_id()));
    }
    span
}

/// Where a client's trace has come, as the client says: two texts of hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The trace.
    pub trace_id: &'a str,
    /// Its last span.
    pub span_id: &'a str,
}

/// Where a client's trace has come. Whether the trace is kept is not the client's to say.
#[derive(Clone, Debug)]
pub struct Outside(SpanContext);

impl Outside {
    /// What the client says, if it is a trace context.
    pub fn new(claim: Claim<'_>) -> Option<Self> {
        let Claim { trace_id, span_id } = claim;
        let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_context = trace_id.len() == 32 && span_id.len() == 16 && is_id(trace_id) && is_id(span_id);
        // As if it were kept: only then the sampler asks us.
        is_context.then(|| parse(&format!("00-{trace_id}-{span_id}-01"))).flatten().map(Self)
    }
}

/// Marks a context of [`Outside`] for the sampler.
#[derive(Debug)]
pub(crate) struct Undecided;

/// Begins a trace with this span, or goes on with a client's.
#[must_use]
pub fn begin_in(span: Span, outside: Option<&Outside>) -> Span {
    if let Some(Outside(parent)) = outside.filter(|_| !span.is_disabled()) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent.clone()).with_value(Undecided);
        drop(span.set_parent(context));
    }
    begin(span)
}

/// Says that a span works for another one too, which has its own trace.
pub fn link(span: &Span, traceparent: &str) {
    if let Some(other) = parse(traceparent) {
        span.add_link(other);
    }
}

/// What the next process is to be told, so that its span is this one's child. `None` where no traces are made.
pub fn carry(span: &Span) -> Option<String> {
    let context = context(span);
    context
        .is_valid()
        .then(|| format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8() & 1))
}

/// The trace's id in a `traceparent`.
pub fn trace_id(traceparent: &str) -> Option<String> {
    parse(traceparent).map(|context| context.trace_id().to_string())
}

/// The same into the metadata of an RPC.
pub fn attach(span: &Span, metadata: &mut MetadataMap) {
    if let Some(value) = carry(span).and_then(|context| context.parse().ok()) {
        metadata.insert(TRACEPARENT, value);
    }
}

fn context(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &carrier);
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn with_traces(run: impl FnOnce()) {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), run);
    }

    #[test]
    fn the_child_has_its_parents_trace_and_a_span_of_its_own() {
        with_traces(|| {
            let parent = begin(tracing::info_span!("parent", trace_id = tracing::field::Empty));
            let told = carry(&parent).expect("traces are made");
            let child = follow(tracing::info_span!("child", trace_id = tracing::field::Empty), Some(&told));
            let of_child = carry(&child).expect("traces are made");
            assert_eq!(trace_id(&told), trace_id(&of_child));
            assert_ne!(told, of_child);
            assert!(told.starts_with("00-") && told.ends_with("-01") && told.len() == 55, "{told}");
        });
    }

    #[test]
    fn what_is_no_context_begins_a_trace() {
        with_traces(|| {
            for wrong in ["", "00", "00-0-0-01", &format!("00-{}-{}-01", "0".repeat(32), "0".repeat(16))] {
                let span = follow(tracing::info_span!("span", trace_id = tracing::field::Empty), Some(wrong));
                assert!(carry(&span).is_some(), "{wrong}");
                assert_eq!(trace_id(wrong), None);
            }
        });
    }

    #[test]
    fn a_clients_trace_goes_on_if_it_is_one() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const SPAN: &str = "00f067aa0ba902b7";
        let claim = |trace_id, span_id| Outside::new(Claim { trace_id, span_id });
        with_traces(|| {
            let outside = claim(TRACE, SPAN);
            let span = begin_in(tracing::info_span!("span", trace_id = tracing::field::Empty), outside.as_ref());
            let told = carry(&span).expect("traces are made");
            assert_eq!(trace_id(&told).as_deref(), Some(TRACE));
            assert!(!told.contains(SPAN), "its own span: {told}");
        });
        let (upper, zeros, dashes) = (TRACE.to_uppercase(), "0".repeat(32), "-".repeat(32));
        for wrong in ["", "t", &TRACE[1..], &upper, &zeros, &dashes, "4bf92f3577b34da6a3ce929d0e0e47é6"] {
            assert!(claim(wrong, SPAN).is_none(), "{wrong}");
        }
        for wrong in ["", "s", &SPAN[1..], &zeros[16..]] {
            assert!(claim(TRACE, wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn without_traces_nothing_is_carried() {
        assert_eq!(carry(&begin(tracing::info_span!("span", trace_id = tracing::field::Empty))), None);
    }
}
