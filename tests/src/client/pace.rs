//! How fast a client asks: so many times a second, whatever there is to ask (websocket-protocol §10.1). Pure.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

const A_SECOND: usize = 5;

/// When the last requests went out.
#[derive(Debug, Default)]
pub(super) struct Pace(VecDeque<Instant>);

impl Pace {
    /// When the next request may go out: now, or later.
    pub(super) fn free_at(&self, now: Instant) -> Instant {
        if self.0.len() < A_SECOND { now } else { now.max(self.0[0] + Duration::from_secs(1)) }
    }

    /// A request goes out.
    pub(super) fn went_out(&mut self, now: Instant) {
        if self.0.len() >= A_SECOND {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_go_out_at_once_and_the_sixth_waits_for_the_second_to_end() {
        let (begun, mut pace) = (Instant::now(), Pace::default());
        for _ in 0..5 {
            assert_eq!(pace.free_at(begun), begun);
            pace.went_out(begun);
        }
        let next = begun + Duration::from_secs(1);
        assert_eq!(pace.free_at(begun), next);
        pace.went_out(next);
        assert_eq!(pace.free_at(next), next);
    }
}
