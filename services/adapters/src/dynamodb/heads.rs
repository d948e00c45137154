//! Where chats stand, for one user: one strong read of counters and memberships (D5.2).

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use domain::{
    Error,
    ids::{ChatId, UserId},
    message::Sequence,
    ports::{Heads as Port, heads::Standing},
};

use super::{
    Store,
    attributes::{failed, read_text, text},
    layout::Table,
    restore::last_place,
};

/// Tries for what the store leaves out of an answer when it is asked too much.
const TRIES: u32 = 4;

/// Heads in the store's tables.
#[derive(Clone, Debug)]
pub struct Heads {
    store: Store,
}

impl Heads {
    /// On these tables.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Port for Heads {
    async fn heads(&self, user: UserId, chats: &[ChatId]) -> Result<Vec<Standing>, Error> {
        let mut seen = HashSet::new();
        let chats: Vec<ChatId> = chats.iter().copied().filter(|chat| seen.insert(*chat)).collect();
        if chats.is_empty() {
            return Ok(Vec::new());
        }
        let (counters, memberships) = (self.store.table(Table::ChatCounters), self.store.table(Table::ChatMemberships));
        let counter_keys = chats.iter().map(|chat| key([("chat_id", text(chat))]));
        let membership_keys = chats.iter().map(|chat| key([("chat_id", text(chat)), ("user_id", text(user))]));
        let mut wanted = HashMap::from([
            (counters.clone(), strong(counter_keys.collect())?),
            (memberships.clone(), strong(membership_keys.collect())?),
        ]);
        let (mut heads, mut member_of) = (HashMap::new(), HashSet::new());
        for _ in 0..TRIES {
            let read =
                self.store.client.batch_get_item().set_request_items(Some(wanted)).send().await.map_err(failed)?;
            for (table, items) in read.responses().into_iter().flatten() {
                for item in items {
                    let chat: ChatId = read_text(item, "chat_id")?;
                    if *table == counters {
                        heads.insert(chat, last_place(item)?);
                    } else {
                        member_of.insert(chat);
                    }
                }
            }
            wanted = read.unprocessed_keys.unwrap_or_default();
            if wanted.is_empty() {
                return chats.into_iter().map(|chat| standing(chat, &heads, &member_of)).collect();
            }
        }
        Err(Error::unavailable("the store does not answer", "it left keys out of its answers"))
    }
}

fn standing(chat: ChatId, heads: &HashMap<ChatId, Sequence>, member_of: &HashSet<ChatId>) -> Result<Standing, Error> {
    let head = if member_of.contains(&chat) {
        Some(*heads.get(&chat).ok_or_else(|| Error::internal("a chat with members has no counter"))?)
    } else {
        None
    };
    Ok(Standing { chat, head })
}

fn key<const N: usize>(parts: [(&str, AttributeValue); N]) -> HashMap<String, AttributeValue> {
    parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn strong(keys: Vec<HashMap<String, AttributeValue>>) -> Result<KeysAndAttributes, Error> {
    KeysAndAttributes::builder().consistent_read(true).set_keys(Some(keys)).build().map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    async fn it_keeps_the_contract(on: contract::On) {
        let world = contract::World::start(on).await;
        contract::heads::run(&world, &Heads::new(world.store.clone())).await;
    }

    on_all_systems! {
        it_keeps_the_contract,
    }
}
