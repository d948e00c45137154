//! One-time codes that were asked for.

use async_trait::async_trait;

use crate::{Error, Millis, session::OtpRequest, user::PhoneHash};

/// What became of a new code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issued {
    /// It counts now.
    New,
    /// This one is still good and goes on counting.
    Pending(OtpRequest),
}

/// What became of an attempt to use a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was counted before anybody compared anything: this is the code, compare. It is the n-th attempt, from 1.
    Counted(OtpRequest, u32),
    /// The code was tried too often.
    Spent,
    /// No code is good: none was asked for, it is too old, or it was used.
    NoneGood,
}

/// One-time codes that were asked for, one a phone.
#[async_trait]
pub trait OtpRequests: Send + Sync {
    /// Makes the code count unless another one is still good at its `created_at`.
    async fn issue(&self, request: &OtpRequest) -> Result<Issued, Error>;

    /// Counts an attempt to use the phone's code, unless there were `limit` already.
    async fn count_attempt(&self, phone: PhoneHash, at: Millis, limit: u32) -> Result<Attempt, Error>;
}
