//! Registered people.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::{
    Error, Millis,
    ids::UserId,
    user::{DisplayName, PhoneHash, User},
};

/// Registered people. They come into being with their first login: see [`super::Sessions::open`].
#[async_trait]
pub trait Users: Send + Sync {
    /// A person, by a strong read.
    async fn user(&self, id: UserId) -> Result<Option<User>, Error>;

    /// Those of up to 1,000 people who exist, in no order.
    async fn users(&self, ids: &[UserId]) -> Result<Vec<User>, Error>;

    /// Who has these phones, up to 100, by a strong read; phones that nobody verified are not in it.
    async fn by_phone(&self, phones: &[PhoneHash]) -> Result<HashMap<PhoneHash, UserId>, Error>;

    /// Sets the display name; `None` when there is no such person.
    async fn rename(&self, id: UserId, name: &DisplayName, at: Millis) -> Result<Option<User>, Error>;
}
