//! Log lines as JSON: one flat object a line, with the fields of `observability.md` §3.
//!
//! Fields keep their names with `_` for `.`: `chat.id` of an event is `chat_id` of a line. A line that is written in a hop
//! has the hop's fields too, and its ids.

use std::{
    fmt::{self, Write as _},
    io,
};

use opentelemetry::{Context, trace::TraceContextExt as _};
use serde::Serialize;
use serde_json::{json, to_writer};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use super::{HOP, SECURITY};

/// Linux says here what the host is called; in a pod that is the pod's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// Field of events that somebody has to look at before anything else.
const SEVERITY: &str = "severity";
/// What stands for a value that nobody may read.
const REDACTED: &str = "[REDACTED]";
/// Fields with one of these in their names have such a value (`auth-security.md` §6.2).
const SECRET: [&str; 8] =
    ["_key", "_secret", "_token", "_password", "_pepper", "_credential", "authorization", "bearer"];

/// Writes events.
pub(super) struct Lines {
    /// What all lines of this process have.
    process: String,
}

impl Lines {
    /// Of that service, in this process, for this installation.
    pub(super) fn of(service: &str, environment: Option<&str>) -> Self {
        let host = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
        let mut process = format!(r#""service":{}"#, json!(service));
        if !host.trim().is_empty() {
            // A String takes everything.
            let _infallible = write!(process, r#","instance":{}"#, json!(host.trim()));
        }
        if let Some(environment) = environment {
            let _infallible = write!(process, r#","environment":{}"#, json!(environment));
        }
        Self { process }
    }
}

impl<S> FormatEvent<S, Spans> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, Spans>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        writer.write_str(r#"{"timestamp":""#)?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, r#"","level":"{}",{}"#, level(meta), self.process)?;
        Context::map_current(|context| {
            let span = context.span();
            let ids = span.span_context();
            if !ids.is_valid() {
                return Ok(());
            }
            write!(writer, r#","trace_id":"{}","span_id":"{}""#, ids.trace_id(), ids.span_id())
        })?;
        let span = event.parent().map_or_else(|| ctx.lookup_current(), |id| ctx.span(id));
        let hop = span.and_then(|span| span.scope().find(|span| span.metadata().fields().field(HOP).is_some()));
        if let Some(hop) = hop {
            write!(writer, r#","span":"{}""#, hop.name())?;
            let extensions = hop.extensions();
            let fields = extensions.get::<FormattedFields<Spans>>().map_or("", |fields| fields.as_str());
            for (name, value) in fields.lines().filter_map(|field| field.split_once('\t')) {
                // What the event says itself is not said twice.
                if name != HOP && meta.fields().field(name).is_none() {
                    write!(writer, r#","{}":{value}"#, Name(name))?;
                }
            }
        }
        let mut fields = Fields { writer: &mut writer, result: Ok(()), of: Of::Event };
        event.record(&mut fields);
        fields.result?;
        writeln!(writer, r#","target":"{}"}}"#, meta.target())
    }
}

/// An event's level, which is one of two more for those that are looked at apart.
fn level(meta: &Metadata<'_>) -> &'static str {
    if meta.target() == SECURITY {
        "SECURITY"
    } else if meta.fields().field(SEVERITY).is_some() {
        "CRITICAL"
    } else {
        meta.level().as_str()
    }
}

/// Keeps the fields of a span as its lines will have them: a name, a tab and a value each, one a line. No value has a line
/// break in it.
pub(super) struct Spans;

impl<'writer> FormatFields<'writer> for Spans {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Fields { writer: &mut writer, result: Ok(()), of: Of::Span };
        fields.record(&mut visitor);
        visitor.result
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

/// A field's name in a line.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.0.split('.');
        f.write_str(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| write!(f, "_{part}"))
    }
}

/// Whose fields are written.
#[derive(Clone, Copy)]
enum Of {
    Event,
    Span,
}

/// Whether what a field of that name holds stays out of the log.
fn is_secret(name: &str) -> bool {
    // Without a copy, for the fields of every message come by.
    let is = |(written, part): (&u8, &u8)| written.to_ascii_lowercase() == *part || (*written == b'.' && *part == b'_');
    let has_part = |part: &&str| {
        let part = part.as_bytes();
        name.as_bytes().windows(part.len()).any(|piece| piece.iter().zip(part).all(is))
    };
    SECRET.iter().any(has_part)
}

/// Writes fields as they come.
struct Fields<'a, 'writer> {
    writer: &'a mut Writer<'writer>,
    result: fmt::Result,
    of: Of,
}

impl Fields<'_, '_> {
    fn write(&mut self, field: &Field, value: &impl Serialize) {
        if self.result.is_err() {
            return;
        }
        let name = field.name();
        self.result = match self.of {
            Of::Event => write!(self.writer, r#","{}":"#, Name(name)),
            Of::Span => write!(self.writer, "{name}\t"),
        };
        let written = if is_secret(name) {
            to_writer(Bytes(self.writer), REDACTED)
        } else {
            to_writer(Bytes(self.writer), value)
        };
        self.result = self.result.and(written.map_err(|_| fmt::Error));
        if matches!(self.of, Of::Span) {
            self.result = self.result.and(self.writer.write_char('\n'));
        }
    }
}

impl Visit for Fields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &format_args!("{value:?}"));
    }
}

/// A line for who writes bytes.
struct Bytes<'a, 'writer>(&'a mut Writer<'writer>);

impl io::Write for Bytes<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // JSON is written in whole characters.
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.0.write_str(text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use serde_json::Value;
    use tracing_subscriber::{EnvFilter, Layer as _, filter::filter_fn, layer::SubscriberExt as _};

    use super::*;
    use crate::{
        telemetry::{is_hop, json_lines},
        trace,
    };

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines of what runs, as a process without a collector writes them.
    fn lines(filter: &str, run: impl FnOnce()) -> Vec<Value> {
        let log = Log::default();
        let into = log.clone();
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        let hops = tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_filter(filter_fn(is_hop));
        let layer = json_lines("gateway", Some("prod")).with_writer(move || into.clone());
        let subscriber = tracing_subscriber::registry().with(hops).with(layer.with_filter(EnvFilter::new(filter)));
        tracing::subscriber::with_default(subscriber, run);
        let bytes = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(bytes).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    fn hop() -> tracing::Span {
        trace::begin(tracing::info_span!(
            parent: None, "hop", trace_id = tracing::field::Empty, request.id = "r-1", chat.id = "of the hop"
        ))
    }

    #[test]
    fn a_line_in_a_hop_is_flat_and_says_whose_it_is() {
        let mut told = None;
        let lines = lines("info", || {
            let hop = hop();
            told = trace::carry(&hop);
            let _in_hop = hop.entered();
            let _in_library = tracing::info_span!("of a library", request.id = "none of ours").entered();
            tracing::warn!(chat.id = "of the event", count = 3, name = ?"a\n\"b\"", "failed\tfor 7");
        });
        let (told, line) = (told.expect("ids are made"), &lines[0]);
        let ids: Vec<&str> = told.split('-').collect();
        assert_eq!((line["trace_id"].as_str(), line["span_id"].as_str()), (Some(ids[1]), Some(ids[2])), "{line}");
        let text = |name: &str| line[name].as_str().unwrap_or_default();
        assert_eq!((text("level"), text("service"), text("span")), ("WARN", "gateway", "hop"), "{line}");
        assert_eq!((text("request_id"), text("chat_id")), ("r-1", "of the event"), "{line}");
        assert_eq!((text("message"), text("name")), ("failed\tfor 7", "\"a\\n\\\"b\\\"\""), "{line}");
        assert_eq!((&line["count"], text("target")), (&json!(3), module_path!()), "{line}");
        assert!(text("timestamp").ends_with('Z') && text("timestamp").len() == 27, "{line}");
        assert_eq!(line["instance"].is_string(), std::path::Path::new(HOST_NAME).exists(), "{line}");
    }

    #[test]
    fn what_is_looked_at_apart_has_a_level_of_its_own() {
        let lines = lines("info", || {
            tracing::info!(target: SECURITY, event = "auth.token_refused", "a token does not hold");
            tracing::error!(severity = "SEV-1", "a counter is missing");
            tracing::error!("failed");
        });
        let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap_or_default()).collect();
        assert_eq!(levels, ["SECURITY", "CRITICAL", "ERROR"]);
        assert!(lines.iter().all(|line| line["environment"] == "prod"), "{lines:?}");
    }

    #[test]
    fn a_field_that_is_named_like_a_secret_is_not_written() {
        let lines = lines("info", || {
            let hop = trace::begin(tracing::info_span!(
                parent: None, "hop", trace_id = tracing::field::Empty, refresh.token = "eyJ"
            ));
            let _in_hop = hop.entered();
            tracing::info!(Api_Key = "hunter2", otp.pepper = 7, http.Authorization = ?"Basic eyJ", token = 3, "used");
        });
        let line = &lines[0];
        for name in ["refresh_token", "Api_Key", "otp_pepper", "http_Authorization"] {
            assert_eq!(line[name], REDACTED, "{line}");
        }
        assert_eq!(line["token"], 3, "{line}");
    }

    #[test]
    fn a_line_outside_of_a_hop_has_no_ids() {
        let lines = lines("info", || {
            drop(hop().entered());
            tracing::info!(setting = "--listen", "listening");
        });
        let line = lines[0].as_object().expect("an object");
        let named = ["trace_id", "span_id", "request_id", "span"].map(|name| line.contains_key(name));
        assert_eq!(named, [false; 4], "{line:?}");
        assert_eq!((&line["setting"], &line["message"]), (&json!("--listen"), &json!("listening")));
    }

    #[test]
    fn a_filter_that_leaves_spans_out_leaves_their_ids_in() {
        let lines = lines("warn", || hop().in_scope(|| tracing::warn!("failed")));
        assert!(lines[0]["trace_id"].is_string() && lines[0]["span_id"].is_string(), "{}", lines[0]);
    }
}
