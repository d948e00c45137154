//! A login on one device, and the code that begins it.

use ulid::Ulid;

use crate::{
    Millis,
    ids::{DeviceId, SessionId, UserId},
    user::PhoneHash,
};

/// SHA-256 of a refresh token: all that is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A login on one device, for life of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// The one device that may refresh it.
    pub device: DeviceId,
    /// All refresh tokens of the session belong to one family.
    pub family: Ulid,
    /// The tokens that count now.
    pub tokens: TokenPair,
    /// The refresh token before.
    pub previous: Option<TokenHash>,
    /// When it began.
    pub created_at: Millis,
    /// When it ends, however much it is used.
    pub expires_at: Millis,
}

/// What is kept of the tokens that count now: enough to make the same again (D6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPair {
    /// 0 at login, one more with each refresh.
    pub generation: u64,
    /// The refresh token.
    pub refresh: TokenHash,
    /// The id of the access token.
    pub access_id: Ulid,
    /// When both were made.
    pub made_at: Millis,
}

/// A one-time code that was asked for. The code itself is never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtpRequest {
    /// For which phone.
    pub phone: PhoneHash,
    /// Proof of the code.
    pub mac: [u8; 32],
    /// The code, encrypted, to send the same again.
    pub ciphertext: Vec<u8>,
    /// When it was asked for.
    pub created_at: Millis,
    /// Until when it is good.
    pub expires_at: Millis,
}

/// A right code, about to be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// For which phone.
    pub phone: PhoneHash,
    /// Proof of the code, as stored.
    pub mac: [u8; 32],
    /// The time of the use.
    pub at: Millis,
}
