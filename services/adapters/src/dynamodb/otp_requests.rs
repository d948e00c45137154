//! `OtpRequests` on the table `otp_requests`: one row a phone, changed by conditions only.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    error::SdkError,
    operation::{put_item::PutItemError, update_item::UpdateItemError},
    primitives::Blob,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use domain::{
    Error, Millis, ports,
    ports::otp_requests::{Attempt, Issued},
    session::{OtpRequest, Proof},
    user::PhoneHash,
};

use super::{
    Store,
    attributes::{Item, failed, number, read_number, read_text, read_time, text},
    layout::Table,
};

/// How long a row stays after the request (data-model §3.3).
const KEPT: Duration = Duration::from_hours(1);

const PENDING: &str = "pending";
const VERIFIED: &str = "verified";

/// One-time codes in the store.
#[derive(Clone, Debug)]
pub struct OtpRequests {
    store: Store,
}

impl OtpRequests {
    /// The codes of that store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

/// The update that uses up a code, and only this code, while it is good.
pub(super) fn consume(store: &Store, proof: &Proof) -> aws_sdk_dynamodb::types::builders::UpdateBuilder {
    aws_sdk_dynamodb::types::Update::builder()
        .table_name(store.table(Table::OtpRequests))
        .key("phone_hash", text(proof.phone))
        .update_expression("SET #status = :verified")
        .condition_expression("#status = :pending AND expires_at > :at AND otp_mac = :mac")
        .expression_attribute_names("#status", "status")
        .expression_attribute_values(":verified", text(VERIFIED))
        .expression_attribute_values(":pending", text(PENDING))
        .expression_attribute_values(":at", number(proof.at))
        .expression_attribute_values(":mac", bytes(proof.mac.to_vec()))
}

pub(super) fn bytes(bytes: Vec<u8>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub(super) fn read_bytes(item: &Item, name: &str) -> Result<Vec<u8>, Error> {
    let value = item.get(name).and_then(|value| value.as_b().ok());
    value.map(|blob| blob.as_ref().to_vec()).ok_or_else(|| unreadable(name))
}

pub(super) fn read_hash(item: &Item, name: &str) -> Result<[u8; 32], Error> {
    read_bytes(item, name)?.try_into().map_err(|_| unreadable(name))
}

fn unreadable(name: &str) -> Error {
    Error::internal(format!("the stored attribute {name} is absent or malformed"))
}

fn row(request: &OtpRequest) -> Item {
    HashMap::from([
        ("phone_hash".to_owned(), text(request.phone)),
        ("otp_mac".to_owned(), bytes(request.mac.to_vec())),
        ("otp_ciphertext".to_owned(), bytes(request.ciphertext.clone())),
        ("created_at".to_owned(), number(request.created_at)),
        ("expires_at".to_owned(), number(request.expires_at)),
        ("attempt_count".to_owned(), number(0)),
        ("status".to_owned(), text(PENDING)),
        ("ttl".to_owned(), number((request.created_at + KEPT).seconds())),
    ])
}

fn read(phone: PhoneHash, item: &Item) -> Result<OtpRequest, Error> {
    Ok(OtpRequest {
        phone,
        mac: read_hash(item, "otp_mac")?,
        ciphertext: read_bytes(item, "otp_ciphertext")?,
        created_at: read_time(item, "created_at")?,
        expires_at: read_time(item, "expires_at")?,
    })
}

#[async_trait]
impl ports::OtpRequests for OtpRequests {
    async fn issue(&self, request: &OtpRequest) -> Result<Issued, Error> {
        let call = self
            .store
            .client
            .put_item()
            .table_name(self.store.table(Table::OtpRequests))
            .set_item(Some(row(request)))
            .condition_expression("attribute_not_exists(phone_hash) OR #status <> :pending OR expires_at <= :at")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", text(PENDING))
            .expression_attribute_values(":at", number(request.created_at))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let Err(error) = call.send().await else { return Ok(Issued::New) };
        if let SdkError::ServiceError(refused) = &error
            && let PutItemError::ConditionalCheckFailedException(refused) = refused.err()
            && let Some(item) = refused.item()
        {
            return read(request.phone, item).map(Issued::Pending);
        }
        Err(failed(error))
    }

    async fn count_attempt(&self, phone: PhoneHash, at: Millis, limit: u32) -> Result<Attempt, Error> {
        let call = self
            .store
            .client
            .update_item()
            .table_name(self.store.table(Table::OtpRequests))
            .key("phone_hash", text(phone))
            .update_expression("SET attempt_count = attempt_count + :one")
            .condition_expression("#status = :pending AND expires_at > :at AND attempt_count < :limit")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":pending", text(PENDING))
            .expression_attribute_values(":at", number(at))
            .expression_attribute_values(":limit", number(limit))
            .expression_attribute_values(":one", number(1))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match call.send().await {
            Ok(counted) => {
                let item = counted.attributes().ok_or_else(|| unreadable("attempt_count"))?;
                return Ok(Attempt::Counted(read(phone, item)?, read_number(item, "attempt_count")?));
            }
            Err(error) => error,
        };
        let SdkError::ServiceError(refused) = &error else { return Err(failed(error)) };
        let UpdateItemError::ConditionalCheckFailedException(refused) = refused.err() else {
            return Err(failed(error));
        };
        let Some(item) = refused.item() else { return Ok(Attempt::NoneGood) };
        let is_pending = read_text::<String>(item, "status")? == PENDING;
        if is_pending && read_time(item, "expires_at")? > at { Ok(Attempt::Spent) } else { Ok(Attempt::NoneGood) }
    }
}
