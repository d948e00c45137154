//! Attributes of items: how they are written and read.

use std::{collections::HashMap, fmt::Display, str::FromStr};

use aws_sdk_dynamodb::types::AttributeValue;
use domain::{Error, Millis};

/// An item as the store has it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// A text attribute.
pub(super) fn text(value: impl Display) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

/// A number attribute.
pub(super) fn number(value: impl Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// An attribute that must be a text of that form.
pub(super) fn read<T: FromStr>(item: &Item, name: &'static str) -> Result<T, Error> {
    read_optional(item, name)?.ok_or_else(|| corrupt(name))
}

/// The same for one that may be missing.
pub(super) fn read_optional<T: FromStr>(item: &Item, name: &'static str) -> Result<Option<T>, Error> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text.parse().map(Some).map_err(|_| corrupt(name)),
        Some(_) => Err(corrupt(name)),
    }
}

/// A time that must be there.
pub(super) fn read_millis(item: &Item, name: &'static str) -> Result<Millis, Error> {
    read(item, name).map(Millis)
}

/// An attribute is missing or has another form than we write: a fault of ours.
pub(super) fn corrupt(name: &'static str) -> Error {
    Error::internal(format!("a stored item has no readable {name}"))
}
