//! What the table engine asks of a store.

use adapters::dynamodb::admin::{Admin, Error, TableState};
use async_trait::async_trait;

use super::plan::Step;

/// What a store can be asked for; [`Admin`] asks a real one.
#[async_trait]
pub trait Tables: Send + Sync {
    /// See [`Admin::describe`].
    ///
    /// # Errors
    /// See there.
    async fn describe(&self, name: &str) -> Result<Option<TableState>, Error>;
    /// Carries out one step on a table.
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    async fn carry_out(&self, name: &str, step: &Step) -> Result<(), Error>;
    /// See [`Admin::delete`].
    ///
    /// # Errors
    /// See there.
    async fn delete(&self, name: &str) -> Result<(), Error>;
}

#[async_trait]
impl Tables for Admin {
    async fn describe(&self, name: &str) -> Result<Option<TableState>, Error> {
        Self::describe(self, name).await
    }

    async fn carry_out(&self, name: &str, step: &Step) -> Result<(), Error> {
        match step {
            Step::Create(spec) => self.create(spec).await,
            Step::Tag(arn, tags) => self.set_tags(arn, tags).await,
            Step::Protect(to) => self.set_deletion_protection(name, *to).await,
            Step::Bill(billing, indexes) => self.set_billing(name, *billing, indexes).await,
            Step::Index(index, billing) => self.create_index(name, index, *billing).await,
            Step::Ttl(attribute, to) => self.set_ttl(name, attribute, *to).await,
            Step::Recovery(to) => self.set_point_in_time_recovery(name, *to).await,
        }
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        Self::delete(self, name).await
    }
}
