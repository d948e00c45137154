//! Stored messages of a chat, in contiguous pages (D3.8).
//!
//! A query may see half of a running transaction. So a page ends at a hole, and a page that would begin
//! with one is read again; only a hole that stays is passed over. What a restore took out of use is no hole: an item
//! at its end says so (D3.9).

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{Get, TransactGetItem};
use domain::{
    Error,
    ids::ChatId,
    message::{Content, Sequence, StoredMessage},
    ports::{MessageHistory as Port, message_history::Page},
};
use prometheus_client::metrics::counter::Counter;

use super::{
    Store,
    attributes::{Item, failed, number, optional, read_number, read_text, read_time, text},
    layout::Table,
    restore::GAP_FROM,
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

    async fn query(&self, chat: ChatId, range: Range, limit: u32) -> Result<Vec<Row>, Error> {
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
        read.items().iter().map(read_row).collect()
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
            event = "chat.messages_missing",
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

/// An item of the table of messages.
enum Row {
    /// A message.
    Message(StoredMessage),
    /// Places from the first to the last that a restore took out of use; the item lies at the last.
    Gap(Sequence, Sequence),
}

impl Row {
    fn first(&self) -> Sequence {
        match self {
            Self::Message(message) => message.sequence,
            Self::Gap(first, _) => *first,
        }
    }

    fn last(&self) -> Sequence {
        match self {
            Self::Message(message) => message.sequence,
            Self::Gap(_, last) => *last,
        }
    }
}

#[async_trait]
impl Port for MessageHistory {
    async fn after(&self, chat: ChatId, after: Sequence, limit: u32) -> Result<Page, Error> {
        let mut waits = WAITS.into_iter();
        let mut page = Page { messages: Vec::new(), through: after, gap: 0 };
        loop {
            let rows = self.query(chat, Range::Above(page.through), limit).await?;
            let Some(first) = rows.first().map(Row::first) else { return Ok(page) };
            // A reader may stand within a gap: what it got there before the restore is lost.
            let mut next = page.through.next();
            if first > next {
                if let Some(wait) = waits.next() {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                self.pass_over(chat, next, Sequence(first.0 - 1)).await?;
                next = first;
            }
            for row in rows {
                if row.first() > next {
                    break;
                }
                next = row.last().next();
                match row {
                    Row::Message(message) => {
                        page.through = message.sequence;
                        page.messages.push(message);
                    }
                    Row::Gap(first, last) => {
                        page.gap += last.0 - page.through.0.max(first.0 - 1);
                        page.through = last;
                    }
                }
            }
            if !page.messages.is_empty() {
                return Ok(page);
            }
        }
    }

    async fn before(&self, chat: ChatId, before: Option<Sequence>, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        let mut top = before.unwrap_or(Sequence(domain::limits::MAX_SEQUENCE + 1));
        let mut waits = WAITS.into_iter();
        let mut page = Vec::new();
        loop {
            let rows = self.query(chat, Range::Below(top), limit).await?;
            let Some(last) = rows.first().map(Row::last) else { return Ok(page) };
            // Above the newest message nothing is missing, and within a gap neither; the lookup tells those from a hole.
            let is_missing = last.next() != top && {
                let above = self.query(chat, Range::Above(last), 1).await?;
                above.first().is_some_and(|row| row.first() > last.next())
            };
            if is_missing {
                if let Some(wait) = waits.next() {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                self.pass_over(chat, last.next(), Sequence(top.0 - 1)).await?;
            }
            top = last.next();
            for row in rows {
                if row.last().next() != top {
                    break;
                }
                top = row.first();
                if let Row::Message(message) = row {
                    page.push(message);
                }
            }
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }
}

fn read_row(item: &Item) -> Result<Row, Error> {
    match optional(item, GAP_FROM, read_number)? {
        Some(first) => Ok(Row::Gap(Sequence(first), Sequence(read_number(item, "sequence")?))),
        None => read_message(item).map(Row::Message),
    }
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
