//! Which traces are kept: all while there are few, an equal part when there are many (`observability.md` §4).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

use crate::trace::Undecided;

const WINDOW: Duration = Duration::from_mins(1);
/// The least part that is kept.
const FLOOR: f64 = 0.01;

/// Decides for traces that begin in this process or with a client; what began in another process is kept as was decided
/// there.
#[derive(Clone, Debug)]
pub(super) struct Adaptive {
    per_minute: f64,
    window: Arc<Mutex<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    /// Traces that began in it.
    count: f64,
    /// Part that is kept in it, by the number of the one before.
    part: f64,
}

impl Adaptive {
    pub(super) fn new(per_minute: u32) -> Self {
        let window = Window { began: Instant::now(), count: 0.0, part: 1.0 };
        Self { per_minute: f64::from(per_minute), window: Arc::new(Mutex::new(window)) }
    }

    fn part(&self, count: f64) -> f64 {
        if count <= self.per_minute { 1.0 } else { (self.per_minute / count).max(FLOOR) }
    }

    /// Whether a trace that begins at `now` is kept.
    fn keeps(&self, trace: TraceId, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(window.began);
        if elapsed >= WINDOW {
            // After a silence the last minute had none.
            let last = if elapsed < 2 * WINDOW { window.count } else { 0.0 };
            *window = Window { began: now, count: 0.0, part: self.part(last) };
        }
        window.count += 1.0;
        // A rush is not waited out for a minute.
        let part = window.part.min(self.part(window.count));
        drop(window);
        // The last seven bytes of an id are random (W3C Trace Context, level 2).
        let random = u64::from_be_bytes(trace.to_bytes()[8..].try_into().unwrap_or_default()) >> 8;
        #[expect(clippy::cast_precision_loss, reason = "56 bits to 53: nobody counts that exactly")]
        let place = random as f64 / (1_u64 << 56) as f64;
        place < part
    }
}

impl ShouldSample for Adaptive {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        // With another process's context it is asked only about what that process keeps.
        let is_decided = parent.is_some_and(|parent| parent.has_active_span() && parent.get::<Undecided>().is_none());
        let is_kept = is_decided || self.keeps(trace, Instant::now());
        let decision = if is_kept { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        let trace_state = match parent {
            Some(parent) => parent.span().span_context().trace_state().clone(),
            None => TraceState::default(),
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};

    use super::*;

    /// Ids spread evenly over their range.
    fn id(number: u64) -> TraceId {
        TraceId::from_bytes((u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | (1 << 64)).to_be_bytes())
    }

    fn kept(sampler: &Adaptive, count: u64, at: Instant) -> usize {
        (1..=count).filter(|number| sampler.keeps(id(*number), at)).count()
    }

    #[test]
    fn a_client_does_not_decide_what_is_kept() {
        let sampler = Adaptive::new(1);
        let ids = SpanContext::new(id(1), SpanId::from(1), TraceFlags::SAMPLED, true, TraceState::default());
        let process = Context::new().with_remote_span_context(ids);
        let client = process.with_value(Undecided);
        let kept = |parent: &Context| {
            let all = (1..=1000).map(|number| {
                let asked = sampler.should_sample(Some(parent), id(number), "hop", &SpanKind::Internal, &[], &[]);
                usize::from(asked.decision == SamplingDecision::RecordAndSample)
            });
            all.sum::<usize>()
        };
        assert_eq!(kept(&process), 1000, "another process has decided");
        assert!(kept(&client) < 100, "of 1,000 that were asked for");
    }

    #[test]
    fn few_are_all_kept_and_of_many_an_equal_part() {
        let sampler = Adaptive::new(100);
        let start = Instant::now();
        assert_eq!(kept(&sampler, 100, start), 100);
        let rush = kept(&sampler, 1900, start);
        assert!((150..500).contains(&rush), "{rush} of a rush of 1,900 after 100");
        let steady = kept(&sampler, 2000, start + WINDOW);
        assert!((60..140).contains(&steady), "{steady} of 2,000 in the minute after");
        let flood = kept(&sampler, 50_000, start + 2 * WINDOW) + kept(&sampler, 50_000, start + 3 * WINDOW);
        assert!(flood > 900, "{flood} of 100,000: at least one in a hundred");
        assert_eq!(kept(&sampler, 100, start + 10 * WINDOW), 100, "after a silence");
    }
}
