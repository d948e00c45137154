//! `ChatList` by batch reads of the tables `chats`, `chat-counters` and `delivery-state`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::KeysAndAttributes;
use domain::{
    Error, Ids,
    chat::{Chat, pair_key},
    ids::{ChatId, UserId},
    message::Sequence,
    ports::{
        self,
        chat_list::{LastMessage, ListedChat},
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use platform::retry::Backoff;

use super::{
    Store,
    attributes::{Item, failed, malformed, optional, read_number, read_text, read_time, text},
    chats::{self, to_chat},
    layout::Table,
    restore::last_place,
};

/// Chats of one batch read: three keys each, at most 100 in all.
const CHATS_AT_ONCE: usize = 33;
/// Batch reads under way at the same time.
const READS_AT_ONCE: usize = 4;
/// How often what the store left out is asked for again.
const ATTEMPTS: u32 = 5;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(320) };

/// How fresh a read is.
#[derive(Clone, Copy)]
enum Read {
    Eventual,
    Strong,
}

/// Lists of chats from the store.
pub struct ChatList {
    store: Store,
    ids: Arc<dyn Ids>,
}

impl ChatList {
    /// The lists of that store.
    pub fn new(store: Store, ids: Arc<dyn Ids>) -> Self {
        Self { store, ids }
    }
}

#[async_trait]
impl ports::ChatList for ChatList {
    async fn chats(&self, member: UserId, chats: &[ChatId]) -> Result<Vec<ListedChat>, Error> {
        let batches: Vec<Vec<ChatId>> = chats.chunks(CHATS_AT_ONCE).map(<[_]>::to_vec).collect();
        let reads = stream::iter(batches).map(|batch| self.batch(member, batch, Read::Eventual));
        let listed: Vec<Vec<ListedChat>> = reads.buffered(READS_AT_ONCE).try_collect().await?;
        Ok(listed.into_iter().flatten().collect())
    }

    async fn chat(&self, member: UserId, chat: ChatId) -> Result<Option<ListedChat>, Error> {
        Ok(self.batch(member, vec![chat], Read::Strong).await?.pop())
    }

    async fn direct(&self, one: UserId, other: UserId) -> Result<Option<Chat>, Error> {
        chats::direct(&self.store, &pair_key(one, other)).await
    }
}

impl ChatList {
    async fn batch(&self, member: UserId, chats: Vec<ChatId>, how: Read) -> Result<Vec<ListedChat>, Error> {
        let chat_key = |chat: &ChatId| Item::from([("chat_id".to_owned(), text(chat))]);
        let state_key =
            |chat: &ChatId| Item::from([("user_id".to_owned(), text(member)), ("chat_id".to_owned(), text(chat))]);
        let tables = [
            (Table::Chats, chats.iter().map(chat_key).collect()),
            (Table::ChatCounters, chats.iter().map(chat_key).collect()),
            (Table::DeliveryState, chats.iter().map(state_key).collect::<Vec<Item>>()),
        ];
        let mut wanted = HashMap::new();
        for (table, keys) in tables {
            let strong = matches!(how, Read::Strong);
            let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(strong).build();
            wanted.insert(self.store.table(table), keys.map_err(Error::internal)?);
        }
        let mut found = self.read(wanted).await?;
        let mut take = |table| found.remove(&self.store.table(table)).unwrap_or_default();
        let (descriptions, counters, states) =
            (take(Table::Chats), by_chat(take(Table::ChatCounters))?, by_chat(take(Table::DeliveryState))?);
        let listed = descriptions.iter().map(|item| {
            let chat = to_chat(item)?;
            let state = states.get(&chat.id);
            let (head, last) = match (counters.get(&chat.id), how) {
                (Some(counter), _) => (last_place(counter)?, last_message(counter)?),
                // A new chat whose counter this replica has not seen yet.
                (None, Read::Eventual) => (Sequence(0), None),
                (None, Read::Strong) => return Err(malformed("sequence_counter")),
            };
            Ok(ListedChat {
                other: other_of(item, member)?,
                head,
                last,
                acked: state.map(|state| read_number(state, "last_acked_sequence")).transpose()?.map(Sequence),
                chat,
            })
        });
        listed.collect()
    }

    async fn read(&self, mut wanted: HashMap<String, KeysAndAttributes>) -> Result<HashMap<String, Vec<Item>>, Error> {
        let mut found: HashMap<String, Vec<Item>> = HashMap::new();
        for attempt in 0..ATTEMPTS {
            let request = self.store.client.batch_get_item().set_request_items(Some(wanted));
            let answer = request.send().await.map_err(failed)?;
            for (table, items) in answer.responses.unwrap_or_default() {
                found.entry(table).or_default().extend(items);
            }
            wanted = answer.unprocessed_keys.unwrap_or_default();
            if wanted.is_empty() {
                return Ok(found);
            }
            tokio::time::sleep(BACKOFF.delay(attempt, self.ids.as_ref())).await;
        }
        Err(Error::unavailable("the store did not answer in time", "keys of a batch read were left out"))
    }
}

fn by_chat(items: Vec<Item>) -> Result<HashMap<ChatId, Item>, Error> {
    items.into_iter().map(|item| Ok((read_text(&item, "chat_id")?, item))).collect()
}

fn other_of(chat: &Item, member: UserId) -> Result<Option<UserId>, Error> {
    let Some(pair) = optional(chat, "pair_key", read_text::<String>)? else { return Ok(None) };
    let (low, high) = pair.split_once('#').ok_or_else(|| malformed("pair_key"))?;
    let other = if low == member.to_string() { high } else { low };
    other.parse().map(Some).map_err(|_| malformed("pair_key"))
}

fn last_message(counter: &Item) -> Result<Option<LastMessage>, Error> {
    let Some(id) = optional(counter, "last_message_id", read_text)? else { return Ok(None) };
    Ok(Some(LastMessage {
        id,
        sender: read_text(counter, "last_sender_id")?,
        created_at: read_time(counter, "last_message_at")?,
        preview: read_text(counter, "last_message_preview")?,
    }))
}
