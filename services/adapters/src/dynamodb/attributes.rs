//! Attributes of items, read and written with the types of `domain`; and what a failed call means.

use std::{collections::HashMap, error::Error as _, fmt::Display, str::FromStr};

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    types::AttributeValue,
};
use domain::{Error, Millis};

/// An item as the store gives it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// A text attribute.
pub(crate) fn text(value: impl Display) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

/// A number attribute.
pub(crate) fn number(value: impl Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Reads a text attribute as whatever it stands for; an absent or malformed one is a fault of the data.
pub(crate) fn read_text<T: FromStr>(item: &Item, name: &str) -> Result<T, Error> {
    match item.get(name) {
        Some(AttributeValue::S(value)) => value.parse().map_err(|_| malformed(name)),
        _ => Err(malformed(name)),
    }
}

/// Reads a number attribute; an absent or malformed one is a fault of the data.
pub(crate) fn read_number<T: FromStr>(item: &Item, name: &str) -> Result<T, Error> {
    match item.get(name) {
        Some(AttributeValue::N(value)) => value.parse().map_err(|_| malformed(name)),
        _ => Err(malformed(name)),
    }
}

/// Reads a time.
pub(crate) fn read_time(item: &Item, name: &str) -> Result<Millis, Error> {
    read_number(item, name).map(Millis)
}

/// Reads an attribute that may be absent or null.
pub(crate) fn optional<T>(
    item: &Item,
    name: &str,
    read: impl FnOnce(&Item, &str) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(_) => read(item, name).map(Some),
    }
}

/// Whether the store refused the write because its condition does not hold.
pub(crate) fn is_condition_failure<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some("ConditionalCheckFailedException")
}

/// A failed call: what the store refuses is a fault of ours, anything else means that it is away.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(crate) fn failed<E, R>(error: SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    let is_ours = matches!(code, Some("ValidationException" | "SerializationException"));
    let cause = why(&error);
    if is_ours { Error::internal(cause) } else { Error::unavailable("the store does not answer", cause) }
}

/// What went wrong, for people: the store's own words, or the client's from the outermost to the first cause.
pub(crate) fn why<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    if let Some(code) = error.as_service_error().and_then(ProvideErrorMetadata::code) {
        let message = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
        return format!("{code}: {message}");
    }
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        // Some say what their cause says again.
        if !words.ends_with(&said) {
            words = format!("{words}: {said}");
        }
        next = cause.source();
    }
    words
}

/// An attribute is absent or has another form than we write: a fault of the data.
pub(crate) fn malformed(name: &str) -> Error {
    Error::internal(format!("the stored attribute {name} is absent or malformed"))
}
