//! Transactions whose outcome is always known, or else an error.

use std::time::Duration;

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    operation::transact_write_items::TransactWriteItemsError,
    types::{
        CancellationReason, Delete, Put, TransactWriteItem, Update,
        builders::{DeleteBuilder, PutBuilder, UpdateBuilder},
    },
};
use domain::{Error, Ids};
use platform::retry::Backoff;

use super::{Store, attributes::failed};

/// How often a transaction goes out before the caller is told that the store is away.
const ATTEMPTS: u32 = 6;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(500) };
const CONDITION_FAILED: &str = "ConditionalCheckFailed";

/// How a transaction ended.
pub(super) enum Outcome {
    /// All of it is stored.
    Committed,
    /// Nothing is, since conditions failed: which, by position.
    Refused(Vec<CancellationReason>),
}

/// Whether the condition at that position failed.
pub(super) fn failed_at(reasons: &[CancellationReason], position: usize) -> bool {
    reasons.get(position).and_then(CancellationReason::code) == Some(CONDITION_FAILED)
}

/// Commits all items or none. Conflicts, throttling and lost answers are repeated under one token, so
/// that what was committed is not done twice.
///
/// # Errors
/// `Unavailable` when the outcome is still unknown after the last attempt.
pub(super) async fn write(store: &Store, ids: &dyn Ids, items: Vec<TransactWriteItem>) -> Result<Outcome, Error> {
    let token = ids.ulid().to_string();
    let mut attempt = 0;
    loop {
        let request = store.client.transact_write_items().client_request_token(&token);
        let Err(error) = request.set_transact_items(Some(items.clone())).send().await else {
            return Ok(Outcome::Committed);
        };
        if let Some(reasons) = refused(&error) {
            return Ok(Outcome::Refused(reasons));
        }
        attempt += 1;
        if attempt == ATTEMPTS || !is_repeatable(&error) {
            return Err(failed(error));
        }
        tokio::time::sleep(BACKOFF.delay(attempt - 1, ids)).await;
    }
}

fn refused(error: &SdkError<TransactWriteItemsError>) -> Option<Vec<CancellationReason>> {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error.as_service_error()? else {
        return None;
    };
    let reasons = cancelled.cancellation_reasons();
    (0..reasons.len()).any(|position| failed_at(reasons, position)).then(|| reasons.to_vec())
}

fn is_repeatable(error: &SdkError<TransactWriteItemsError>) -> bool {
    match error.as_service_error() {
        None => true,
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons().iter().all(|reason| reason.code() != Some("ValidationError"))
        }
        Some(error) => error.code() != Some("ValidationException"),
    }
}

/// A put as part of a transaction.
pub(super) fn put(put: PutBuilder) -> Result<TransactWriteItem, Error> {
    let put: Put = put.build().map_err(Error::internal)?;
    Ok(TransactWriteItem::builder().put(put).build())
}

/// An update as part of a transaction.
pub(super) fn update(update: UpdateBuilder) -> Result<TransactWriteItem, Error> {
    let update: Update = update.build().map_err(Error::internal)?;
    Ok(TransactWriteItem::builder().update(update).build())
}

/// A deletion as part of a transaction.
pub(super) fn delete(delete: DeleteBuilder) -> Result<TransactWriteItem, Error> {
    let delete: Delete = delete.build().map_err(Error::internal)?;
    Ok(TransactWriteItem::builder().delete(delete).build())
}
