//! `Sessions` on the table `sessions`; a login is one transaction over codes, users and sessions.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::Put;
use domain::{
    Error, Ids,
    ids::{SessionId, UserId},
    ports,
    ports::sessions::Opened,
    session::{Proof, Session, TokenHash, TokenPair},
    user::User,
};

use super::{
    Store,
    attributes::{Item, failed, is_condition_failure, number, optional, read_number, read_text, read_time, text},
    layout::{Table, USER_SESSIONS_INDEX},
    otp_requests::{bytes, consume, read_hash},
    transact::{self, Outcome, failed_at},
    users,
};

/// How long a row stays after the session's end, so that a late reuse is still noticed (data-model §3.2).
const KEPT: Duration = Duration::from_hours(24);

/// Sessions in the store.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    ids: Arc<dyn Ids>,
}

impl Sessions {
    /// The sessions of that store.
    pub fn new(store: Store, ids: Arc<dyn Ids>) -> Self {
        Self { store, ids }
    }
}

fn row(session: &Session) -> Item {
    let mut row = HashMap::from([
        ("session_id".to_owned(), text(session.id)),
        ("user_id".to_owned(), text(session.user)),
        ("device_id".to_owned(), text(session.device)),
        ("token_family".to_owned(), text(session.family)),
        ("token_generation".to_owned(), number(session.tokens.generation)),
        ("refresh_token_hash".to_owned(), bytes(session.tokens.refresh.0.to_vec())),
        ("access_token_id".to_owned(), text(session.tokens.access_id)),
        ("tokens_made_at".to_owned(), number(session.tokens.made_at)),
        ("created_at".to_owned(), number(session.created_at)),
        ("expires_at".to_owned(), number(session.expires_at)),
        ("ttl".to_owned(), number((session.expires_at + KEPT).seconds())),
    ]);
    if let Some(previous) = session.previous {
        row.insert("prev_token_hash".to_owned(), bytes(previous.0.to_vec()));
    }
    row
}

fn read(item: &Item) -> Result<Session, Error> {
    Ok(Session {
        id: read_text(item, "session_id")?,
        user: read_text(item, "user_id")?,
        device: read_text(item, "device_id")?,
        family: read_text(item, "token_family")?,
        tokens: TokenPair {
            generation: read_number(item, "token_generation")?,
            refresh: TokenHash(read_hash(item, "refresh_token_hash")?),
            access_id: read_text(item, "access_token_id")?,
            made_at: read_time(item, "tokens_made_at")?,
        },
        previous: optional(item, "prev_token_hash", read_hash)?.map(TokenHash),
        created_at: read_time(item, "created_at")?,
        expires_at: read_time(item, "expires_at")?,
    })
}

#[async_trait]
impl ports::Sessions for Sessions {
    async fn open(&self, proof: &Proof, session: &Session, newcomer: Option<&User>) -> Result<Opened, Error> {
        let put = |table: Table, row: Item, key: &str| {
            let put = Put::builder().table_name(self.store.table(table)).set_item(Some(row));
            transact::put(put.condition_expression(format!("attribute_not_exists({key})")))
        };
        let mut items =
            vec![transact::update(consume(&self.store, proof))?, put(Table::Sessions, row(session), "session_id")?];
        if let Some(user) = newcomer {
            items.push(put(Table::Users, users::row(user), "user_id")?);
            let sentinel = HashMap::from([
                ("user_id".to_owned(), text(users::sentinel(proof.phone))),
                ("canonical_user_id".to_owned(), text(user.id)),
                ("created_at".to_owned(), number(user.created_at)),
            ]);
            items.push(put(Table::Users, sentinel, "user_id")?);
        }
        match transact::write(&self.store, &*self.ids, items).await? {
            Outcome::Committed => Ok(Opened::Done),
            Outcome::Refused(reasons) if failed_at(&reasons, 0) => Ok(Opened::CodeUsed),
            Outcome::Refused(reasons) if failed_at(&reasons, 3) => Ok(Opened::PhoneTaken),
            Outcome::Refused(_) => Ok(Opened::IdTaken),
        }
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, Error> {
        let request = self.store.client.get_item().table_name(self.store.table(Table::Sessions)).consistent_read(true);
        let found = request.key("session_id", text(id)).send().await.map_err(failed)?;
        found.item().map(read).transpose()
    }

    async fn sessions_of(&self, user: UserId) -> Result<Vec<Session>, Error> {
        // A few rows of less than 1 KB each: one page holds them.
        let request = self.store.client.query().table_name(self.store.table(Table::Sessions));
        let found = request
            .index_name(USER_SESSIONS_INDEX)
            .key_condition_expression("user_id = :user")
            .expression_attribute_values(":user", text(user))
            .send()
            .await
            .map_err(failed)?;
        found.items().iter().map(read).collect()
    }

    async fn rotate(&self, id: SessionId, current: TokenHash, next: &TokenPair) -> Result<bool, Error> {
        let request = self
            .store
            .client
            .update_item()
            .table_name(self.store.table(Table::Sessions))
            .key("session_id", text(id))
            .update_expression(
                "SET refresh_token_hash = :next, prev_token_hash = :current, token_generation = :generation, \
                 access_token_id = :access, tokens_made_at = :at",
            )
            .condition_expression("refresh_token_hash = :current")
            .expression_attribute_values(":next", bytes(next.refresh.0.to_vec()))
            .expression_attribute_values(":current", bytes(current.0.to_vec()))
            .expression_attribute_values(":generation", number(next.generation))
            .expression_attribute_values(":access", text(next.access_id))
            .expression_attribute_values(":at", number(next.made_at));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_condition_failure(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn close(&self, id: SessionId) -> Result<(), Error> {
        let request = self.store.client.delete_item().table_name(self.store.table(Table::Sessions));
        request.key("session_id", text(id)).send().await.map(drop).map_err(failed)
    }
}
