//! Leases of the processes that store messages: items beside the counters, found by the same index (D4.3).

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use domain::{
    Error, Millis,
    ports::Incarnations as Port,
    publisher::{Claim, Incarnation, Lease, Slot},
};

use super::{
    Store,
    attributes::{Item, failed, is_condition_failure, number, optional, read_number, read_text, read_time, text},
    layout::{PUBLISHER_INDEX, Table},
};

/// What the key of a lease begins with; no chat's key does.
const KEY_PREFIX: &str = "lease#";
/// The index key of every lease.
const LEASES: &str = "leases";
/// Keys that one `BatchGetItem` may name.
const READ_AT_ONCE: usize = 100;

/// Leases in the store's table of counters.
#[derive(Clone, Debug)]
pub struct Incarnations {
    store: Store,
}

impl Incarnations {
    /// On this table.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Port for Incarnations {
    async fn open(&self, lease: &Lease) -> Result<(), Error> {
        // A repetition after a lost answer writes the same item again: no condition.
        let put = self
            .store
            .client
            .put_item()
            .table_name(self.store.table(Table::ChatCounters))
            .item("chat_id", key(lease.incarnation))
            .item("publisher", text(LEASES))
            .item("incarnation", text(lease.incarnation))
            .item("expires_at", number(lease.expires_at))
            .item("oldest_slot", number(lease.oldest_slot.0));
        put.send().await.map_err(failed)?;
        Ok(())
    }

    async fn renew(&self, own: Incarnation, expires_at: Millis, oldest_slot: Slot) -> Result<bool, Error> {
        let sent = self
            .store
            .client
            .update_item()
            .table_name(self.store.table(Table::ChatCounters))
            .key("chat_id", key(own))
            .condition_expression("attribute_exists(chat_id) AND attribute_not_exists(claimed_by)")
            .update_expression("SET expires_at = :expires, oldest_slot = :oldest")
            .expression_attribute_values(":expires", number(expires_at))
            .expression_attribute_values(":oldest", number(oldest_slot.0))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(true),
            Err(error) if is_condition_failure(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn list(&self) -> Result<Vec<Lease>, Error> {
        let table = self.store.table(Table::ChatCounters);
        let mut keys = Vec::new();
        let mut pages = self
            .store
            .client
            .query()
            .table_name(&table)
            .index_name(PUBLISHER_INDEX)
            .key_condition_expression("publisher = :leases")
            .expression_attribute_values(":leases", text(LEASES))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            keys.push(text(read_text::<String>(&item.map_err(failed)?, "chat_id")?));
        }
        let mut leases = Vec::with_capacity(keys.len());
        while !keys.is_empty() {
            let now = keys.split_off(keys.len().saturating_sub(READ_AT_ONCE));
            let wanted = now.into_iter().map(|key| [("chat_id".to_owned(), key)].into()).collect();
            let wanted = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(wanted)).build();
            let read = self
                .store
                .client
                .batch_get_item()
                .request_items(&table, wanted.map_err(Error::internal)?)
                .send()
                .await
                .map_err(failed)?;
            // What the store left out for its load is found by the next call.
            for item in read.responses().and_then(|tables| tables.get(&table)).into_iter().flatten() {
                leases.push(read_lease(item)?);
            }
        }
        Ok(leases)
    }

    async fn claim(&self, seen: &Lease, claim: Claim) -> Result<bool, Error> {
        let mut update = self
            .store
            .client
            .update_item()
            .table_name(self.store.table(Table::ChatCounters))
            .key("chat_id", key(seen.incarnation))
            .update_expression("SET claimed_by = :by, claimed_until = :until")
            .expression_attribute_values(":by", text(claim.by))
            .expression_attribute_values(":until", number(claim.until))
            .expression_attribute_values(":expires", number(seen.expires_at));
        update = match seen.claim {
            None => update.condition_expression("expires_at = :expires AND attribute_not_exists(claimed_by)"),
            Some(old) => update
                .condition_expression("expires_at = :expires AND claimed_by = :old_by AND claimed_until = :old_until")
                .expression_attribute_values(":old_by", text(old.by))
                .expression_attribute_values(":old_until", number(old.until)),
        };
        match update.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_condition_failure(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn close(&self, seen: &Lease) -> Result<(), Error> {
        let mut delete = self
            .store
            .client
            .delete_item()
            .table_name(self.store.table(Table::ChatCounters))
            .key("chat_id", key(seen.incarnation));
        delete = match seen.claim {
            None => delete.condition_expression("attribute_not_exists(claimed_by)"),
            Some(claim) => delete
                .condition_expression("attribute_not_exists(chat_id) OR claimed_by = :by")
                .expression_attribute_values(":by", text(claim.by)),
        };
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_condition_failure(&error) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn key(incarnation: Incarnation) -> AttributeValue {
    text(format_args!("{KEY_PREFIX}{incarnation}"))
}

fn read_lease(item: &Item) -> Result<Lease, Error> {
    let by: Option<Incarnation> = optional(item, "claimed_by", read_text)?;
    let claim = match by {
        Some(by) => Some(Claim { by, until: read_time(item, "claimed_until")? }),
        None => None,
    };
    Ok(Lease {
        incarnation: read_text(item, "incarnation")?,
        expires_at: read_time(item, "expires_at")?,
        oldest_slot: Slot(read_number(item, "oldest_slot")?),
        claim,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    async fn it_keeps_the_contract(on: contract::On) {
        let world = contract::World::start(on).await;
        contract::incarnations::run(&Incarnations::new(world.store.clone())).await;
    }

    on_all_systems! {
        it_keeps_the_contract,
    }
}
