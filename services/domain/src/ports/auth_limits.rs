//! How often somebody did something lately.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, ids::UserId, user::PhoneHash};

/// What is counted, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Codes requested for a phone.
    OtpOfPhone(PhoneHash),
    /// Codes requested from an address, by a keyed hash of it.
    OtpOfAddress([u8; 16]),
    /// Codes tried for a phone.
    VerifyOfPhone(PhoneHash),
    /// Refreshes.
    RefreshOfUser(UserId),
    /// Phone lookups a minute.
    LookupOfUserMinute(UserId),
    /// Phone lookups an hour.
    LookupOfUserHour(UserId),
}

/// A counter's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How often in this window, this time included.
    pub used: u32,
    /// Until the window ends.
    pub resets_in: Duration,
}

/// How often somebody did something lately, in fixed windows that begin with the first time.
///
/// An error means that nobody knows; whether that denies or allows is the caller's to say (D6.5).
#[async_trait]
pub trait AuthLimits: Send + Sync {
    /// Counts one more.
    async fn count(&self, counter: Counter, window: Duration) -> Result<Count, Error>;

    /// Forgets a count.
    async fn forget(&self, counter: Counter) -> Result<(), Error>;

    /// Bars a phone from logging in for that long.
    async fn lock_out(&self, phone: PhoneHash, time: Duration) -> Result<(), Error>;

    /// For how long a phone is still barred; `None` when it is not.
    async fn locked_out(&self, phone: PhoneHash) -> Result<Option<Duration>, Error>;
}
