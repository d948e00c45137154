//! Who is in a chat.

use async_trait::async_trait;
use domain::{
    Error,
    ids::{ChatId, UserId},
    membership::{Membership, Role},
    ports::MembershipDirectory as Port,
};

use super::{
    Store,
    attributes::{Item, failed, optional, read_text, read_time, text},
    layout::{Table, USER_CHATS_INDEX},
};

/// Memberships in the store's table.
#[derive(Clone, Debug)]
pub struct MembershipDirectory {
    store: Store,
}

impl MembershipDirectory {
    /// On this table.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Port for MembershipDirectory {
    async fn membership(&self, chat: ChatId, user: UserId) -> Result<Option<Membership>, Error> {
        let read = self
            .store
            .client
            .get_item()
            .table_name(self.store.table(Table::ChatMemberships))
            .key("chat_id", text(chat))
            .key("user_id", text(user))
            .consistent_read(true)
            .send()
            .await
            .map_err(failed)?;
        read.item().map(read_membership).transpose()
    }

    async fn members(&self, chat: ChatId) -> Result<Vec<Membership>, Error> {
        let mut members = Vec::new();
        let mut pages = self
            .store
            .client
            .query()
            .table_name(self.store.table(Table::ChatMemberships))
            .consistent_read(true)
            .key_condition_expression("chat_id = :chat")
            .expression_attribute_values(":chat", text(chat))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            members.push(read_membership(&item.map_err(failed)?)?);
        }
        Ok(members)
    }

    async fn chats_of(&self, user: UserId) -> Result<Vec<Membership>, Error> {
        let mut chats = Vec::new();
        let mut pages = self
            .store
            .client
            .query()
            .table_name(self.store.table(Table::ChatMemberships))
            .index_name(USER_CHATS_INDEX)
            .key_condition_expression("user_id = :user")
            .expression_attribute_values(":user", text(user))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            chats.push(read_membership(&item.map_err(failed)?)?);
        }
        Ok(chats)
    }
}

fn read_membership(item: &Item) -> Result<Membership, Error> {
    let role: String = read_text(item, "role")?;
    Ok(Membership {
        chat: read_text(item, "chat_id")?,
        user: read_text(item, "user_id")?,
        role: Role::from_stored(&role).ok_or_else(|| Error::internal("a stored role is unknown"))?,
        joined_at: read_time(item, "joined_at")?,
        muted_until: optional(item, "muted_until", read_time)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    async fn it_keeps_the_contract(on: contract::On) {
        let world = contract::World::start(on).await;
        contract::membership_directory::run(&world, &MembershipDirectory::new(world.store.clone())).await;
    }

    on_all_systems! {
        it_keeps_the_contract,
    }
}
