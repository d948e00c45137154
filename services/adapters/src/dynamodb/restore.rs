//! After a restore: counters go up, so that no place of a chat is given to two messages (D3.9).
//!
//! What was stored after the moment that the tables were restored to is gone, but its places were handed out: to
//! clients, and to the log. Each counter is raised past them in one transaction with a gap at the new head, which
//! readers pass over without the waiting and the alarm that a hole is met with.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem, Update};
use domain::{Clock, Error, Ids, ids::ChatId, limits, message::Sequence};
use futures_util::{TryStreamExt as _, stream};
use platform::retry::Backoff;

use super::{
    Store,
    attributes::{Item, failed, number, optional, read_number, read_text, text},
    layout::Table,
    transact::{self, Outcome},
};

/// The first place of a gap, on the item at its last.
pub(super) const GAP_FROM: &str = "gap_from";
/// The place of a chat's last message, on a counter that stands above it: until the next message.
pub(super) const LAST_PLACE: &str = "last_sequence";
/// The restore that a counter was raised for last.
const RAISED_FOR: &str = "raised_for";
/// Counters that are raised at a time.
const AT_ONCE: usize = 16;
/// How often the store is asked for something before the whole fails.
const ATTEMPTS: u32 = 8;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// The place of a chat's last message; 0 when there is none.
pub(super) fn last_place(counter: &Item) -> Result<Sequence, Error> {
    let place = match optional(counter, LAST_PLACE, read_number)? {
        Some(place) => place,
        None => read_number(counter, "sequence_counter")?,
    };
    Ok(Sequence(place))
}

/// A restore whose counters are to be raised.
#[derive(Clone, Copy, Debug)]
pub struct Restore<'a> {
    /// Names it: a counter is raised once for each name.
    pub name: &'a str,
    /// By how many places; more than any chat had in what was lost.
    pub by: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// Counters that were raised now.
    pub now: u64,
    /// Counters that had been raised for this restore already.
    pub before: u64,
}

/// Counts while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    now: AtomicU64,
    before: AtomicU64,
}

impl Progress {
    /// What was done so far.
    pub fn raised(&self) -> Raised {
        Raised { now: self.now.load(Ordering::Relaxed), before: self.before.load(Ordering::Relaxed) }
    }
}

/// A counter as it was read.
struct Counter {
    chat: ChatId,
    at: Sequence,
    published_through: Sequence,
    raised_for: Option<String>,
}

impl Store {
    /// Raises every counter that was not raised for this restore yet. May be repeated after a failure. No service may
    /// run on these tables meanwhile.
    ///
    /// # Errors
    /// When the store refuses or does not answer, or a counter moved meanwhile: somebody stores messages.
    pub async fn raise_counters(
        &self,
        restore: Restore<'_>,
        progress: &Progress,
        clock: &dyn Clock,
        ids: &dyn Ids,
    ) -> anyhow::Result<Raised> {
        let mut from = None;
        loop {
            let (counters, next) = self.counters(from, ids).await.context("failed to read the counters")?;
            stream::iter(counters.into_iter().map(anyhow::Ok))
                .try_for_each_concurrent(AT_ONCE, |counter| async move {
                    if counter.raised_for.as_deref() == Some(restore.name) {
                        progress.before.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                    let chat = counter.chat;
                    self.raise(restore, counter, clock, ids)
                        .await
                        .with_context(|| format!("failed to raise the counter of {chat}"))?;
                    progress.now.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                })
                .await?;
            match next {
                Some(key) => from = Some(key),
                None => return Ok(progress.raised()),
            }
        }
    }

    /// A page of counters, and where the next begins.
    async fn counters(&self, from: Option<Item>, ids: &dyn Ids) -> Result<(Vec<Counter>, Option<Item>), Error> {
        // Leases lie in the same table and count nothing.
        let scan = self
            .client
            .scan()
            .table_name(self.table(Table::ChatCounters))
            .consistent_read(true)
            .filter_expression("attribute_exists(sequence_counter)")
            .set_exclusive_start_key(from);
        let page = again(ids, async || scan.clone().send().await.map_err(failed)).await?;
        let counters = page.items().iter().map(read_counter).collect::<Result<_, _>>()?;
        Ok((counters, page.last_evaluated_key))
    }

    /// The highest place of the chat that has an item.
    async fn last_stored(&self, chat: ChatId, ids: &dyn Ids) -> Result<Sequence, Error> {
        let query = self
            .client
            .query()
            .table_name(self.table(Table::Messages))
            .consistent_read(true)
            .scan_index_forward(false)
            .key_condition_expression("chat_id = :chat")
            .expression_attribute_values(":chat", text(chat))
            .limit(1);
        let newest = again(ids, async || query.clone().send().await.map_err(failed)).await?;
        newest.items().first().map_or(Ok(Sequence(0)), |item| read_number(item, "sequence").map(Sequence))
    }

    async fn raise(
        &self,
        restore: Restore<'_>,
        counter: Counter,
        clock: &dyn Clock,
        ids: &dyn Ids,
    ) -> anyhow::Result<()> {
        // Tables that were restored each by itself may part by a batch that was just being stored.
        let last = self.last_stored(counter.chat, ids).await?.max(counter.at);
        let to = last.0.checked_add(restore.by).filter(|to| *to <= limits::MAX_SEQUENCE);
        let to = to.context("there are no places left")?;
        // What was not on the log at that moment still has to get there: then the publisher passes over the gap.
        let published = if counter.published_through == last { to } else { counter.published_through.0 };
        let at = clock.now();
        let update = Update::builder()
            .table_name(self.table(Table::ChatCounters))
            .key("chat_id", text(counter.chat))
            .condition_expression("sequence_counter = :at")
            .update_expression(format!(
                "SET sequence_counter = :to, published_through = :published, {RAISED_FOR} = :name, updated_at = :now, \
                 {LAST_PLACE} = if_not_exists({LAST_PLACE}, :last)"
            ))
            .expression_attribute_values(":at", number(counter.at))
            .expression_attribute_values(":last", number(last))
            .expression_attribute_values(":to", number(to))
            .expression_attribute_values(":published", number(published))
            .expression_attribute_values(":name", text(restore.name))
            .expression_attribute_values(":now", number(at));
        let gap: HashMap<String, AttributeValue> = [
            ("chat_id", text(counter.chat)),
            ("sequence", number(to)),
            (GAP_FROM, number(last.next())),
            ("restore", text(restore.name)),
            ("created_at", number(at)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let gap = Put::builder()
            .table_name(self.table(Table::Messages))
            .set_item(Some(gap))
            .condition_expression("attribute_not_exists(chat_id)");
        let items = vec![
            TransactWriteItem::builder().update(update.build()?).build(),
            TransactWriteItem::builder().put(gap.build()?).build(),
        ];
        match transact::write(self, ids, items).await? {
            Outcome::Committed => Ok(()),
            Outcome::Refused(_) => anyhow::bail!("it moved meanwhile: no service may run on these tables"),
        }
    }
}

/// A read, which is asked again when it fails: a whole table is read, and the store may find that too much at a time.
async fn again<T>(ids: &dyn Ids, read: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let mut attempt = 0;
    loop {
        match read().await {
            Err(error) if attempt + 1 < ATTEMPTS => {
                tracing::debug!("a read for a restore failed, trying on: {error}");
                tokio::time::sleep(BACKOFF.delay(attempt, ids)).await;
                attempt += 1;
            }
            last => return last,
        }
    }
}

fn read_counter(item: &Item) -> Result<Counter, Error> {
    Ok(Counter {
        chat: read_text(item, "chat_id")?,
        at: Sequence(read_number(item, "sequence_counter")?),
        published_through: Sequence(optional(item, "published_through", read_number)?.unwrap_or_default()),
        raised_for: optional(item, RAISED_FOR, read_text)?,
    })
}

#[cfg(test)]
mod tests {
    use domain::ports::{
        Heads as _, MessageHistory as _, MessageLog as _,
        message_log::{Batch, Commit},
    };
    use platform::clock::{SystemClock, SystemIds};

    use super::*;
    use crate::{
        contract,
        dynamodb::{heads::Heads, message_history::MessageHistory, message_log::MessageLog},
    };

    const BY: u64 = 1 << 20;

    async fn raise(world: &contract::World, name: &str) -> Raised {
        let restore = Restore { name, by: BY };
        world
            .store
            .raise_counters(restore, &Progress::default(), &SystemClock, &SystemIds)
            .await
            .expect("all are raised")
    }

    async fn counters_go_up_once_a_restore_and_readers_pass_over_the_gap(on: contract::On) {
        let world = contract::World::start(on).await;
        let (log, history) = (MessageLog::new(world.store.clone()), MessageHistory::new(world.store.clone()));
        let heads = Heads::new(world.store.clone());
        let alice = world.user();
        let (chat, empty, behind) =
            (world.chat(&[alice]).await, world.chat(&[alice]).await, world.chat(&[alice]).await);
        let write = async |chat, places: std::ops::RangeInclusive<u64>, published| {
            let messages = places.map(|sequence| world.message(chat, alice, sequence)).collect();
            let batch = world.batch(messages);
            let batch = Batch { published_through: Sequence(published), ..batch };
            assert!(matches!(log.commit(&batch).await, Commit::Committed));
        };
        write(chat, 1..=3, 3).await;
        write(behind, 1..=2, 1).await;

        assert_eq!(raise(&world, "first").await, Raised { now: 3, before: 0 });
        assert_eq!(raise(&world, "first").await, Raised { now: 0, before: 3 }, "a second run changes nothing");
        let top = BY + 3;
        let head = log.head(chat).await.expect("read").expect("a counter");
        assert_eq!((head.sequence, head.published_through), (Sequence(top), Sequence(top)));
        let head = log.head(behind).await.expect("read").expect("a counter");
        assert_eq!((head.sequence.0, head.published_through.0), (BY + 2, 1), "what is not on the log stays so");
        assert!(head.publisher.is_some());
        let standing = heads.heads(alice, &[empty]).await.expect("read")[0];
        assert_eq!(standing.head, Some(Sequence(0)), "where its last message is, not its counter");
        let standing = heads.heads(alice, &[chat]).await.expect("read")[0];
        assert_eq!(standing.head, Some(Sequence(3)));

        // Whoever stands before the gap, or where the lost messages were, passes over it.
        let places = |page: &[domain::message::StoredMessage]| page.iter().map(|m| m.sequence.0).collect::<Vec<_>>();
        let page = history.after(chat, Sequence(1), 10).await.expect("read");
        assert_eq!((places(&page.messages), page.through.0, page.gap), (vec![2, 3], top, BY));
        for (cursor, gap) in [(3, BY), (90, BY - 87)] {
            let page = history.after(chat, Sequence(cursor), 1).await.expect("read");
            assert_eq!((places(&page.messages), page.through.0, page.gap), (vec![], top, gap));
        }
        write(chat, top + 1..=top + 2, top).await;
        // The gap takes a row of a page.
        for (limit, read) in [(1, 1), (2, 1), (3, 2), (10, 2)] {
            let page = history.after(chat, Sequence(90), limit).await.expect("read");
            assert_eq!(places(&page.messages), (top + 1..=top + read).collect::<Vec<_>>());
            assert_eq!((page.through.0, page.gap), (top + read, BY - 87));
        }
        let page = history.after(chat, Sequence(2), 2).await.expect("read");
        assert_eq!((places(&page.messages), page.through.0, page.gap), (vec![3], top, BY));
        assert_eq!(places(&history.before(chat, None, 10).await.expect("read")), [top + 2, top + 1, 3, 2, 1]);
        for before in [top + 1, top, 90] {
            assert_eq!(places(&history.before(chat, Some(Sequence(before)), 1).await.expect("read")), [3]);
        }

        assert_eq!(heads.heads(alice, &[chat]).await.expect("read")[0].head, Some(Sequence(top + 2)));
        // A table that is a batch ahead of its counter.
        world.put(&world.message(behind, alice, BY + 3)).await;
        assert_eq!(raise(&world, "second").await, Raised { now: 3, before: 0 });
        let found = history.before(behind, None, 10).await.expect("read");
        assert_eq!(places(&found), [BY + 3, 2, 1], "none is hidden by a gap");
        assert_eq!(log.head(behind).await.expect("read").expect("a counter").sequence.0, 2 * BY + 3);
        let page = history.after(empty, Sequence(0), 10).await.expect("read");
        assert_eq!((places(&page.messages), page.through.0, page.gap), (vec![], 2 * BY, 2 * BY), "gap after gap");
        assert!(history.before(empty, None, 10).await.expect("read").is_empty());
        assert_eq!(history.holes().get(), 0, "none of these is a hole");
    }

    on_all_systems! {
        counters_go_up_once_a_restore_and_readers_pass_over_the_gap,
    }
}
