//! What the topic engine asks of brokers.

use adapters::kafka::admin::{Admin, Error, Mode, Outcomes, TopicSpec};
use async_trait::async_trait;

use super::plan::{Alteration, Found};

/// What brokers can be asked for; [`Admin`] asks real ones.
#[async_trait]
pub trait Brokers: Send + Sync {
    /// See [`Admin::describe`].
    ///
    /// # Errors
    /// See there.
    async fn describe(&self, names: &[String]) -> Result<Found, Error>;
    /// See [`Admin::create`].
    ///
    /// # Errors
    /// See there.
    async fn create(&self, topics: Vec<TopicSpec>, mode: Mode) -> Result<Outcomes, Error>;
    /// See [`Admin::grow`].
    ///
    /// # Errors
    /// See there.
    async fn grow(&self, topics: Vec<(String, u32)>, mode: Mode) -> Result<Outcomes, Error>;
    /// See [`Admin::alter`].
    ///
    /// # Errors
    /// See there.
    async fn alter(&self, topic: &str, changes: Alteration, mode: Mode) -> Result<(), Error>;
    /// See [`Admin::delete`].
    ///
    /// # Errors
    /// See there.
    async fn delete(&self, names: &[String]) -> Result<Outcomes, Error>;
}

#[async_trait]
impl Brokers for Admin {
    async fn describe(&self, names: &[String]) -> Result<Found, Error> {
        Self::describe(self, names).await
    }

    async fn create(&self, topics: Vec<TopicSpec>, mode: Mode) -> Result<Outcomes, Error> {
        Self::create(self, topics, mode).await
    }

    async fn grow(&self, topics: Vec<(String, u32)>, mode: Mode) -> Result<Outcomes, Error> {
        Self::grow(self, topics, mode).await
    }

    async fn alter(&self, topic: &str, changes: Alteration, mode: Mode) -> Result<(), Error> {
        Self::alter(self, topic, changes, mode).await
    }

    async fn delete(&self, names: &[String]) -> Result<Outcomes, Error> {
        Self::delete(self, names).await
    }
}
