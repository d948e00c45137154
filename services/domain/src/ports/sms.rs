//! Text messages.

use async_trait::async_trait;

use crate::{Error, user::Phone};

/// Brings one-time codes to phones.
#[async_trait]
pub trait Sms: Send + Sync {
    /// Hands a code to the provider; what becomes of it then nobody learns.
    async fn send(&self, phone: &Phone, code: &str) -> Result<(), Error>;
}
