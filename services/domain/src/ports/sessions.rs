//! Logins.

use async_trait::async_trait;

use crate::{
    Error,
    ids::{SessionId, UserId},
    session::{Proof, Session, TokenHash, TokenPair},
    user::User,
};

/// What became of an attempt to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The code is used up and the session is there.
    Done,
    /// The code was used, tried too often or replaced meanwhile; nothing has changed.
    CodeUsed,
    /// Somebody registered the phone meanwhile; nothing has changed.
    PhoneTaken,
    /// An id exists already; nothing has changed.
    IdTaken,
}

/// Logins, a row a session.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Uses up a code and begins a session, and registers the newcomer if there is one: all or nothing.
    ///
    /// The newcomer's phone is the proof's.
    async fn open(&self, proof: &Proof, session: &Session, newcomer: Option<&User>) -> Result<Opened, Error>;

    /// A session, by a strong read; also one that has expired and is not yet deleted.
    async fn session(&self, id: SessionId) -> Result<Option<Session>, Error>;

    /// The sessions of a user, by an index that may lag a moment; also expired ones.
    async fn sessions_of(&self, user: UserId) -> Result<Vec<Session>, Error>;

    /// Replaces the tokens if `current` is still the refresh token that counts; false when it is not.
    async fn rotate(&self, id: SessionId, current: TokenHash, next: &TokenPair) -> Result<bool, Error>;

    /// Ends a session; ending it again is harmless.
    async fn close(&self, id: SessionId) -> Result<(), Error>;
}
