//! The machine's clock and randomness, the only place that asks for them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use domain::{Clock, Ids, Millis};
use ulid::Ulid;

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock")]
    fn now(&self) -> Millis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Ids of the machine's clock and secure randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn ulid(&self) -> Ulid {
        let mut random = [0; 16];
        self.fill(&mut random);
        let millis = u64::try_from(SystemClock.now().0).unwrap_or(0);
        Ulid::from_parts(millis, u128::from_le_bytes(random) & ((1 << Ulid::RAND_BITS) - 1))
    }

    fn fill(&self, bytes: &mut [u8]) {
        #[expect(clippy::expect_used, reason = "without randomness no id and no secret is safe: better to stop")]
        rand::fill(bytes).expect("the system has secure randomness");
    }
}
