//! Counters, and the one transaction that stores a batch (D3.2).
//!
//! Positions of the transaction: the counter, a place a message, a key a message, a check a sender.

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata as _, SdkError},
    operation::transact_write_items::TransactWriteItemsError,
    types::{
        AttributeValue, CancellationReason, ConditionCheck, Put, ReturnValuesOnConditionCheckFailure,
        TransactWriteItem, Update,
    },
};
use domain::{
    Error, ErrorKind,
    ids::{ChatId, ClientMessageId, UserId},
    limits,
    message::{self, Sequence, StoredMessage},
    ports::{
        MessageLog as Port,
        message_log::{Batch, Cancelled, Commit, Head, Original, Verdict},
    },
    publisher::PublisherMark,
};
use platform::broken;

use super::{
    Store,
    attributes::{Item, failed, number, optional, read_number, read_text, read_time, text, why},
    layout::{PUBLISHER_INDEX, Table},
    restore::LAST_PLACE,
};

/// Counters and messages in the store's tables.
#[derive(Clone, Debug)]
pub struct MessageLog {
    store: Store,
}

impl MessageLog {
    /// On these tables.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    fn request(&self, batch: &Batch) -> Result<Vec<TransactWriteItem>, Error> {
        let last = batch.messages.last().ok_or_else(|| Error::internal("an empty batch"))?;
        let senders = batch.senders();
        let mut items = Vec::with_capacity(1 + 2 * batch.messages.len() + senders.len());
        items.push(self.counter(batch, last)?);
        for message in &batch.messages {
            items.push(self.place(message)?);
        }
        for message in &batch.messages {
            items.push(self.key(message)?);
        }
        for sender in senders {
            items.push(self.member(batch.chat, sender)?);
        }
        Ok(items)
    }

    /// Moves the counter, and keeps what a chat list shows of the last message.
    fn counter(&self, batch: &Batch, last: &StoredMessage) -> Result<TransactWriteItem, Error> {
        let update = Update::builder()
            .table_name(self.store.table(Table::ChatCounters))
            .key("chat_id", text(batch.chat))
            .condition_expression(if broken::is("reuse_sequence") {
                "sequence_counter >= :after"
            } else {
                "sequence_counter = :after"
            })
            .update_expression(format!(
                "SET sequence_counter = :to, published_through = :published, publisher = :publisher, \
                     updated_at = :at, last_message_id = :id, last_sender_id = :sender, last_message_at = :created, \
                     last_message_preview = :preview REMOVE {LAST_PLACE}"
            ))
            .expression_attribute_values(":after", number(batch.after))
            .expression_attribute_values(":to", number(last.sequence))
            .expression_attribute_values(":published", number(batch.published_through))
            .expression_attribute_values(":publisher", text(batch.publisher))
            .expression_attribute_values(":at", number(batch.at))
            .expression_attribute_values(":id", text(last.id))
            .expression_attribute_values(":sender", text(last.sender))
            .expression_attribute_values(":created", number(last.created_at))
            .expression_attribute_values(":preview", text(last.content.preview()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        Ok(TransactWriteItem::builder().update(update.build().map_err(Error::internal)?).build())
    }

    fn place(&self, message: &StoredMessage) -> Result<TransactWriteItem, Error> {
        let put = Put::builder().table_name(self.store.table(Table::Messages)).set_item(Some(write_message(message)));
        let put =
            if broken::is("reuse_sequence") { put } else { put.condition_expression("attribute_not_exists(chat_id)") };
        Ok(TransactWriteItem::builder().put(put.build().map_err(Error::internal)?).build())
    }

    fn key(&self, message: &StoredMessage) -> Result<TransactWriteItem, Error> {
        let forgotten_at = (message.created_at + limits::IDEMPOTENCY_TTL).seconds();
        let put = Put::builder()
            .table_name(self.store.table(Table::IdempotencyKeys))
            .item("chat_id", text(message.chat))
            .item("client_message_id", remembered_as(message))
            .item("message_id", text(message.id))
            .item("sequence", number(message.sequence))
            .item("created_at", number(message.created_at))
            .item("ttl", number(forgotten_at))
            .condition_expression("attribute_not_exists(chat_id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        Ok(TransactWriteItem::builder().put(put.build().map_err(Error::internal)?).build())
    }

    fn member(&self, chat: ChatId, sender: UserId) -> Result<TransactWriteItem, Error> {
        let check = ConditionCheck::builder()
            .table_name(self.store.table(Table::ChatMemberships))
            .key("chat_id", text(chat))
            .key("user_id", text(sender))
            .condition_expression("attribute_exists(chat_id)");
        Ok(TransactWriteItem::builder().condition_check(check.build().map_err(Error::internal)?).build())
    }
}

/// Under which key the store remembers that a message was seen.
fn remembered_as(message: &StoredMessage) -> AttributeValue {
    if broken::is("short_memory") {
        return text(format!("{}#{}#{}", message.sender, message.client_id, message.created_at.seconds()));
    }
    idempotency_key(message.sender, message.client_id)
}

#[async_trait]
impl Port for MessageLog {
    async fn head(&self, chat: ChatId) -> Result<Option<Head>, Error> {
        let read = self
            .store
            .client
            .get_item()
            .table_name(self.store.table(Table::ChatCounters))
            .key("chat_id", text(chat))
            .consistent_read(true)
            .send()
            .await
            .map_err(failed)?;
        read.item().map(read_head).transpose()
    }

    async fn commit(&self, batch: &Batch) -> Commit {
        let items = match self.request(batch) {
            Ok(items) => items,
            Err(error) => return Commit::Invalid(error),
        };
        let sent = self
            .store
            .client
            .transact_write_items()
            .set_transact_items(Some(items))
            .client_request_token(&batch.token)
            .send()
            .await;
        match sent {
            Ok(_) => Commit::Committed,
            Err(error) => outcome(batch, &error),
        }
    }

    async fn original(
        &self,
        chat: ChatId,
        sender: UserId,
        client_id: ClientMessageId,
    ) -> Result<Option<Original>, Error> {
        let read = self
            .store
            .client
            .get_item()
            .table_name(self.store.table(Table::IdempotencyKeys))
            .key("chat_id", text(chat))
            .key("client_message_id", idempotency_key(sender, client_id))
            .consistent_read(true)
            .send()
            .await
            .map_err(failed)?;
        read.item().map(|item| read_original(Some(item))).transpose()
    }

    async fn marked(&self, mark: PublisherMark) -> Result<Vec<ChatId>, Error> {
        let mut chats = Vec::new();
        let mut pages = self
            .store
            .client
            .query()
            .table_name(self.store.table(Table::ChatCounters))
            .index_name(PUBLISHER_INDEX)
            .key_condition_expression("publisher = :publisher")
            .expression_attribute_values(":publisher", text(mark))
            .into_paginator()
            .items()
            .send();
        while let Some(item) = pages.next().await {
            chats.push(read_text(&item.map_err(failed)?, "chat_id")?);
        }
        Ok(chats)
    }
}

/// What a failed transaction means. Only what the store answered by name is known not to be stored.
fn outcome<R>(batch: &Batch, error: &SdkError<TransactWriteItemsError, R>) -> Commit
where
    R: std::fmt::Debug + Send + Sync + 'static,
{
    if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() {
        return match read_reasons(batch, cancelled.cancellation_reasons()) {
            Ok(cancelled) => Commit::Cancelled(cancelled),
            Err(error) => Commit::Invalid(error),
        };
    }
    let code = error.as_service_error().and_then(|service| service.code()).map(str::to_owned);
    let cause = why(error);
    match code.as_deref() {
        Some("ValidationException" | "SerializationException" | "IdempotentParameterMismatchException") => {
            Commit::Invalid(Error::internal(cause))
        }
        Some("ThrottlingException" | "ProvisionedThroughputExceededException" | "RequestLimitExceeded") => {
            Commit::NotNow(Error::new(ErrorKind::ServerBusy, "the store is asked too much").caused_by(cause))
        }
        Some(
            "ResourceNotFoundException"
            | "AccessDeniedException"
            | "UnrecognizedClientException"
            | "ExpiredTokenException",
        ) => Commit::NotNow(Error::unavailable("the store takes no messages", cause)),
        _ => Commit::Unknown(Error::unavailable("the store does not answer", cause)),
    }
}

fn read_reasons(batch: &Batch, reasons: &[CancellationReason]) -> Result<Cancelled, Error> {
    let (messages, senders) = (batch.messages.len(), batch.senders().len());
    let (Some((counter, rest)), true) = (reasons.split_first(), reasons.len() == 1 + 2 * messages + senders) else {
        return Err(Error::internal("a cancelled transaction has not one reason a position"));
    };
    let (places, rest) = rest.split_at(messages);
    let (keys, members) = rest.split_at(messages);
    Ok(Cancelled {
        counter: verdict(counter, |item| item.map(read_head).transpose())?,
        places: places.iter().map(|reason| verdict(reason, |_| Ok(()))).collect::<Result<_, _>>()?,
        keys: keys.iter().map(|reason| verdict(reason, read_original)).collect::<Result<_, _>>()?,
        members: members.iter().map(|reason| verdict(reason, |_| Ok(()))).collect::<Result<_, _>>()?,
    })
}

fn verdict<T>(
    reason: &CancellationReason,
    read: impl FnOnce(Option<&Item>) -> Result<T, Error>,
) -> Result<Verdict<T>, Error> {
    match reason.code() {
        Some("ConditionalCheckFailed") => read(reason.item()).map(Verdict::Failed),
        Some("TransactionConflict") => Ok(Verdict::Conflict),
        Some("ThrottlingError" | "ProvisionedThroughputExceeded") => Ok(Verdict::Throttled),
        Some("ValidationError") => Ok(Verdict::Invalid),
        _ => Ok(Verdict::Nothing),
    }
}

fn read_head(item: &Item) -> Result<Head, Error> {
    Ok(Head {
        sequence: Sequence(read_number(item, "sequence_counter")?),
        published_through: Sequence(optional(item, "published_through", read_number)?.unwrap_or_default()),
        publisher: optional(item, "publisher", read_text)?,
    })
}

fn read_original(item: Option<&Item>) -> Result<Original, Error> {
    let item = item.ok_or_else(|| Error::internal("the store did not say what it holds under a client id"))?;
    Ok(Original {
        id: read_text(item, "message_id")?,
        sequence: Sequence(read_number(item, "sequence")?),
        created_at: read_time(item, "created_at")?,
    })
}

/// One sender's client id within a chat.
fn idempotency_key(sender: UserId, client_id: ClientMessageId) -> AttributeValue {
    text(format_args!("{sender}#{client_id}"))
}

/// A message as an item of its table.
pub(crate) fn write_message(message: &StoredMessage) -> Item {
    [
        ("chat_id", text(message.chat)),
        ("sequence", number(message.sequence)),
        ("message_id", text(message.id)),
        ("sender_id", text(message.sender)),
        ("client_message_id", text(message.client_id)),
        ("content", text(message.content.as_str())),
        ("content_type", text(message::TEXT)),
        ("created_at", number(message.created_at)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    async fn it_keeps_the_contract(on: contract::On) {
        let world = contract::World::start(on).await;
        contract::message_log::run(&world, &MessageLog::new(world.store.clone())).await;
    }

    on_all_systems! {
        it_keeps_the_contract,
    }
}
