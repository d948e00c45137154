//! How long to wait before the next try.

use std::time::Duration;

use domain::Ids;

/// Growing waits with jitter: the n-th is drawn from `[0.5, 1] · min(base · 2ⁿ, cap)`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait, before jitter.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
}

impl Backoff {
    /// The wait before try `attempt`, counted from 0.
    pub fn delay(&self, attempt: u32, ids: &dyn Ids) -> Duration {
        let full = self.base.saturating_mul(2_u32.saturating_pow(attempt.min(31))).min(self.cap);
        let mut random = [0; 2];
        ids.fill(&mut random);
        let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
        full.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemIds;

    #[test]
    fn waits_grow_to_the_cap_and_stay_within_their_jitter() {
        let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1) };
        for (attempt, full) in [(0, 100), (1, 200), (3, 800), (4, 1000), (60, 1000)] {
            let delay = backoff.delay(attempt, &SystemIds);
            assert!(delay >= Duration::from_millis(full / 2), "{attempt}: {delay:?}");
            assert!(delay <= Duration::from_millis(full), "{attempt}: {delay:?}");
        }
    }
}
