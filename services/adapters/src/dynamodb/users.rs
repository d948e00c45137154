//! `Users` on the table `users`: a row a person, and a sentinel row a phone, on which alone uniqueness rests.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValue};
use domain::{
    Error, Millis,
    ids::UserId,
    ports,
    user::{DisplayName, Phone, PhoneHash, User},
};

use super::{
    Store,
    attributes::{Item, failed, is_condition_failure, number, optional, read_text, read_time, text},
    layout::Table,
};

/// Keys of one batch read.
const BATCH: usize = 100;
/// How often what a batch read left over is asked for again.
const ROUNDS: u32 = 5;

/// Users in the store.
#[derive(Clone, Debug)]
pub struct Users {
    store: Store,
}

impl Users {
    /// The users of that store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The rows with those keys, by strong reads.
    async fn rows(&self, keys: Vec<String>) -> Result<Vec<Item>, Error> {
        let table = self.store.table(Table::Users);
        let mut found = Vec::new();
        for keys in keys.chunks(BATCH) {
            let keys = keys.iter().map(|key| HashMap::from([("user_id".to_owned(), text(key))])).collect();
            let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
            let mut wanted = Some(HashMap::from([(table.clone(), keys.map_err(Error::internal)?)]));
            let mut rounds = 0;
            while let Some(request) = wanted.take().filter(|wanted| !wanted.is_empty()) {
                rounds += 1;
                if rounds > ROUNDS {
                    return Err(Error::unavailable("the store does not answer", "a batch read left keys over"));
                }
                let answer = self.store.client.batch_get_item().set_request_items(Some(request)).send().await;
                let answer = answer.map_err(failed)?;
                found.extend(answer.responses.unwrap_or_default().remove(&table).unwrap_or_default());
                wanted = answer.unprocessed_keys;
            }
        }
        Ok(found)
    }
}

/// The key of the row that makes a phone unique.
pub(super) fn sentinel(phone: PhoneHash) -> String {
    format!("PHONE#{phone}")
}

/// A person as a row.
pub(crate) fn row(user: &User) -> Item {
    let name = user.display_name.as_ref();
    HashMap::from([
        ("user_id".to_owned(), text(user.id)),
        ("phone_number".to_owned(), text(user.phone.as_str())),
        ("phone_verified".to_owned(), AttributeValue::Bool(true)),
        ("display_name".to_owned(), name.map_or(AttributeValue::Null(true), |name| text(name.as_str()))),
        ("created_at".to_owned(), number(user.created_at)),
        ("updated_at".to_owned(), number(user.updated_at)),
    ])
}

fn read(item: &Item) -> Result<User, Error> {
    let phone: String = read_text(item, "phone_number")?;
    Ok(User {
        id: read_text(item, "user_id")?,
        phone: Phone::new(&phone).map_err(Error::internal)?,
        display_name: optional(item, "display_name", read_text)?.map(DisplayName::from_store),
        created_at: read_time(item, "created_at")?,
        updated_at: read_time(item, "updated_at")?,
    })
}

#[async_trait]
impl ports::Users for Users {
    async fn user(&self, id: UserId) -> Result<Option<User>, Error> {
        let request = self.store.client.get_item().table_name(self.store.table(Table::Users)).consistent_read(true);
        let found = request.key("user_id", text(id)).send().await.map_err(failed)?;
        found.item().map(read).transpose()
    }

    async fn users(&self, ids: &[UserId]) -> Result<Vec<User>, Error> {
        let mut keys: Vec<String> = ids.iter().map(UserId::to_string).collect();
        keys.sort_unstable();
        keys.dedup();
        self.rows(keys).await?.iter().map(read).collect()
    }

    async fn by_phone(&self, phones: &[PhoneHash]) -> Result<HashMap<PhoneHash, UserId>, Error> {
        let by_key: HashMap<String, PhoneHash> = phones.iter().map(|phone| (sentinel(*phone), *phone)).collect();
        let mut found = HashMap::new();
        for row in self.rows(by_key.keys().cloned().collect()).await? {
            let key: String = read_text(&row, "user_id")?;
            if let Some(phone) = by_key.get(&key) {
                found.insert(*phone, read_text(&row, "canonical_user_id")?);
            }
        }
        Ok(found)
    }

    async fn rename(&self, id: UserId, name: &DisplayName, at: Millis) -> Result<Option<User>, Error> {
        let request = self
            .store
            .client
            .update_item()
            .table_name(self.store.table(Table::Users))
            .key("user_id", text(id))
            .update_expression("SET display_name = :name, updated_at = :at")
            .condition_expression("attribute_exists(user_id)")
            .expression_attribute_values(":name", text(name.as_str()))
            .expression_attribute_values(":at", number(at))
            .return_values(ReturnValue::AllNew);
        match request.send().await {
            Ok(changed) => changed.attributes().map(read).transpose(),
            Err(error) if is_condition_failure(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}
