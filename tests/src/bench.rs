//! What a message costs: processor time and requests, which another machine's noise hardly moves, and times beside them.

pub mod cost;
pub mod crowd;
pub mod deliver;
mod hops;
pub mod latency;
pub mod one_chat;

use std::time::Duration;

use serde_json::{Value, json};

/// The value below which that part of them lies, of values in any order; zero of none.
pub fn quantile(values: &mut [Duration], part: f64) -> Duration {
    values.sort_unstable();
    values.get(place(values.len(), part)).copied().unwrap_or_default()
}

/// Milliseconds, to a hundredth.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

/// Of many times, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    p50: f64,
    p99: f64,
    max: f64,
    mean: f64,
}

impl Summary {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            return Self::default();
        }
        values.sort_unstable_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "so many times are not measured")]
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let (p50, p99) = (values[place(values.len(), 0.5)], values[place(values.len(), 0.99)]);
        Self { p50, p99, max: values[values.len() - 1], mean }
    }

    fn json(self) -> Value {
        let Self { p50, p99, max, mean } = self;
        json!({ "p50": rounded(p50), "p99": rounded(p99), "max": rounded(max), "mean": rounded(mean) })
    }
}

/// To a hundredth.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a list that fits in memory"
)]
fn place(count: usize, part: f64) -> usize {
    (count.saturating_sub(1) as f64 * part).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut values, 0.5), Duration::from_millis(51));
        assert_eq!(quantile(&mut values, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&mut [], 0.5), Duration::ZERO);
        assert!((milliseconds(Duration::from_micros(1234)) - 1.23).abs() < 1e-9);
        let summary = Summary::of((1..=100).rev().map(f64::from)).json();
        assert_eq!(summary, json!({ "p50": 51.0, "p99": 99.0, "max": 100.0, "mean": 50.5 }));
        assert_eq!(Summary::of([]).json()["p99"], 0.0);
    }
}
