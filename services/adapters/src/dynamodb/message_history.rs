//! Stored messages of a chat, in contiguous pages (D3.8).
//!
//! A query may see half of a running transaction. So a page ends at a hole, and a page that would begin
//! with one is read again; only a hole that stays is passed over.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{Get, TransactGetItem};
use domain::{
    Error,
    ids::ChatId,
    message::{Content, Sequence, StoredMessage},
    ports::MessageHistory as Port,
};
use prometheus_client::metrics::counter::Counter;

use super::{
    Store,
    attributes::{Item, failed, number, read_number, read_text, read_time, text},
    layout::Table,
};

/// Waits before a page that began with a hole is read again: three reads in two seconds.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(1900)];
/// Items that one `TransactGetItems` may name.
const CONFIRMED_AT_ONCE: u64 = 100;

/// Messages in the store's table.
#[derive(Clone, Debug)]
pub struct MessageHistory {
    store: Store,
    holes: Counter,
}

impl MessageHistory {
    /// On this table.
    pub fn new(store: Store) -> Self {
        Self { store, holes: Counter::default() }
    }

    /// Sequences that pages passed over because nothing is stored there; must stay 0.
    pub fn holes(&self) -> Counter {
        self.holes.clone()
    }

    async fn query(&self, chat: ChatId, range: Range, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        let (condition, from) = match range {
            Range::Above(sequence) => ("chat_id = :chat AND #sequence > :from", sequence),
            Range::Below(sequence) => ("chat_id = :chat AND #sequence < :from", sequence),
        };
        let read = self
            .store
            .client
            .query()
            .table_name(self.store.table(Table::Messages))
            .consistent_read(true)
            .scan_index_forward(matches!(range, Range::Above(_)))
            .key_condition_expression(condition)
            .expression_attribute_names("#sequence", "sequence")
            .expression_attribute_values(":chat", text(chat))
            .expression_attribute_values(":from", number(from))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .send()
            .await
            .map_err(failed)?;
        read.items().iter().map(read_message).collect()
    }

    /// Whether none of the sequences from `first` to `last` exists, by a read that sees no half transactions.
    async fn is_empty(&self, chat: ChatId, first: Sequence, last: Sequence) -> Result<bool, Error> {
        let mut request = self.store.client.transact_get_items();
        // A wider hole is judged by its first hundred places; three strong reads saw none of the others.
        for sequence in (first.0..=last.0).take(usize::try_from(CONFIRMED_AT_ONCE).unwrap_or(usize::MAX)) {
            let get = Get::builder()
                .table_name(self.store.table(Table::Messages))
                .key("chat_id", text(chat))
                .key("sequence", number(sequence))
                .build()
                .map_err(Error::internal)?;
            request = request.transact_items(TransactGetItem::builder().get(get).build());
        }
        let read = request.send().await.map_err(failed)?;
        Ok(read.responses().iter().all(|response| response.item().is_none()))
    }

    /// Confirms a hole that stayed, and reports it.
    ///
    /// # Errors
    /// `Unavailable` when it is none after all: the caller comes again.
    async fn pass_over(&self, chat: ChatId, first: Sequence, last: Sequence) -> Result<(), Error> {
        if !self.is_empty(chat, first, last).await? {
            return Err(Error::unavailable("the page can't be read now", "a hole was filled while it was confirmed"));
        }
        self.holes.inc_by(last.0 - first.0 + 1);
        tracing::error!(
            severity = "SEV-1",
            chat.id = %chat,
            "chat {chat} has no messages from {first} to {last}, so readers pass over them"
        );
        Ok(())
    }
}

/// Which messages, and from which end.
#[derive(Clone, Copy, Debug)]
enum Range {
    /// Ascending.
    Above(Sequence),
    /// Descending.
    Below(Sequence),
}

#[async_trait]
impl Port for MessageHistory {
    async fn after(&self, chat: ChatId, after: Sequence, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        let mut waits = WAITS.into_iter();
        loop {
            let mut page = self.query(chat, Range::Above(after), limit).await?;
            let Some(first) = page.first().map(|message| message.sequence) else { return Ok(page) };
            if first != after.next() {
                if let Some(wait) = waits.next() {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                self.pass_over(chat, after.next(), Sequence(first.0 - 1)).await?;
            }
            page.truncate(contiguous(&page));
            return Ok(page);
        }
    }

    async fn before(&self, chat: ChatId, before: Option<Sequence>, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        let top = before.unwrap_or(Sequence(domain::limits::MAX_SEQUENCE + 1));
        let mut waits = WAITS.into_iter();
        loop {
            let mut page = self.query(chat, Range::Below(top), limit).await?;
            let Some(first) = page.first().map(|message| message.sequence) else { return Ok(page) };
            // Above the newest message nothing is missing; the lookup tells that from a hole.
            if first.next() != top && !self.query(chat, Range::Above(first), 1).await?.is_empty() {
                if let Some(wait) = waits.next() {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                self.pass_over(chat, first.next(), Sequence(top.0 - 1)).await?;
            }
            page.truncate(contiguous(&page));
            return Ok(page);
        }
    }
}

/// How many messages from the front have neighbouring sequences.
fn contiguous(page: &[StoredMessage]) -> usize {
    let steps = page.windows(2).take_while(|pair| pair[0].sequence.0.abs_diff(pair[1].sequence.0) == 1);
    page.len().min(1 + steps.count())
}

fn read_message(item: &Item) -> Result<StoredMessage, Error> {
    Ok(StoredMessage {
        id: read_text(item, "message_id")?,
        chat: read_text(item, "chat_id")?,
        sequence: Sequence(read_number(item, "sequence")?),
        sender: read_text(item, "sender_id")?,
        client_id: read_text(item, "client_message_id")?,
        content: Content::from_store(read_text(item, "content")?),
        created_at: read_time(item, "created_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    async fn it_keeps_the_contract(on: contract::On) {
        let world = contract::World::start(on).await;
        let history = MessageHistory::new(world.store.clone());
        contract::message_history::run(&world, &history).await;
        assert_eq!(history.holes().get(), 1, "the one hole of the contract was counted");
    }

    on_all_systems! {
        it_keeps_the_contract,
    }
}
