//! What a message costs: processor time and requests, which another machine's noise hardly moves, and times beside them.

pub mod cost;
pub mod crowd;
pub mod deliver;
pub mod one_chat;

use std::time::Duration;

/// The value below which that part of them lies, of values in any order; zero of none.
pub fn quantile(values: &mut [Duration], part: f64) -> Duration {
    values.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list that fits in memory"
    )]
    let place = (values.len().saturating_sub(1) as f64 * part).round() as usize;
    values.get(place).copied().unwrap_or_default()
}

/// Milliseconds, to a hundredth.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
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
    }
}
