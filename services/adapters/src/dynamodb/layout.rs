//! The tables, their keys and indexes: written once, used by the services and by whoever creates them (data-model §3).

use std::collections::BTreeMap;

use super::{
    Store,
    admin::{Admin, Billing, Error, Status, Switch, TableSpec},
};

/// A table, by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// People, and one sentinel row a phone (`PHONE#<hash>`).
    Users,
    /// Logins.
    Sessions,
    /// Pending one-time codes.
    OtpRequests,
    /// Descriptions of chats.
    Chats,
    /// Who is in which chat.
    ChatMemberships,
    /// The one direct chat of two users.
    DirectChatIndex,
    /// Sequence counters, and the publishing leases of ingest.
    ChatCounters,
    /// Messages.
    Messages,
    /// Client message ids that were seen.
    IdempotencyKeys,
    /// Delivery watermarks.
    DeliveryState,
    /// Outcomes of REST calls with an `Idempotency-Key`.
    RestIdempotency,
    /// Events of chatmgmt that are not on the log yet.
    Outbox,
    /// Who blocked whom.
    UserRelations,
}

/// Type of a key attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Text.
    Text,
    /// A number.
    Number,
}

/// A key attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub &'static str, pub KeyKind);

/// A secondary index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: &'static str,
    /// Partition key.
    pub partition: Key,
    /// Sort key.
    pub sort: Option<Key>,
    /// Whether it carries whole items; otherwise keys only.
    pub projection: IndexProjection,
}

/// What an index carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexProjection {
    /// Whole items.
    All,
    /// Only keys.
    KeysOnly,
}

/// The definition of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Partition key.
    pub partition: Key,
    /// Sort key.
    pub sort: Option<Key>,
    /// The attribute, in epoch seconds, after which the store may delete an item.
    pub ttl: Option<&'static str>,
    /// Its indexes.
    pub indexes: &'static [Index],
}

/// People by phone number.
pub const PHONE_NUMBER_INDEX: &str = "phone_number-index";
/// Logins by user.
pub const USER_SESSIONS_INDEX: &str = "user_sessions-index";
/// Chats by user.
pub const USER_CHATS_INDEX: &str = "user_chats-index";
/// Counters by who is to publish what they count, and leases (D4.3).
pub const PUBLISHER_INDEX: &str = "publisher-index";

impl Table {
    /// Every table.
    pub const ALL: [Self; 13] = [
        Self::Users,
        Self::Sessions,
        Self::OtpRequests,
        Self::Chats,
        Self::ChatMemberships,
        Self::DirectChatIndex,
        Self::ChatCounters,
        Self::Messages,
        Self::IdempotencyKeys,
        Self::DeliveryState,
        Self::RestIdempotency,
        Self::Outbox,
        Self::UserRelations,
    ];

    /// The name without the cluster's prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Sessions => "sessions",
            Self::OtpRequests => "otp-requests",
            Self::Chats => "chats",
            Self::ChatMemberships => "chat-memberships",
            Self::DirectChatIndex => "direct-chat-index",
            Self::ChatCounters => "chat-counters",
            Self::Messages => "messages",
            Self::IdempotencyKeys => "idempotency-keys",
            Self::DeliveryState => "delivery-state",
            Self::RestIdempotency => "rest-idempotency",
            Self::Outbox => "outbox",
            Self::UserRelations => "user-relations",
        }
    }

    /// Its keys and indexes.
    pub fn definition(self) -> Definition {
        let plain = |partition| Definition { partition: text(partition), sort: None, ttl: None, indexes: &[] };
        match self {
            Self::Users => Definition {
                indexes: &[Index {
                    name: PHONE_NUMBER_INDEX,
                    partition: Key("phone_number", KeyKind::Text),
                    sort: None,
                    projection: IndexProjection::KeysOnly,
                }],
                ..plain("user_id")
            },
            Self::Sessions => Definition {
                ttl: Some("ttl"),
                indexes: &[Index {
                    name: USER_SESSIONS_INDEX,
                    partition: Key("user_id", KeyKind::Text),
                    sort: None,
                    projection: IndexProjection::All,
                }],
                ..plain("session_id")
            },
            Self::OtpRequests => Definition { ttl: Some("ttl"), ..plain("phone_hash") },
            Self::Chats => plain("chat_id"),
            Self::ChatMemberships => Definition {
                sort: Some(text("user_id")),
                indexes: &[Index {
                    name: USER_CHATS_INDEX,
                    partition: Key("user_id", KeyKind::Text),
                    sort: Some(Key("chat_id", KeyKind::Text)),
                    projection: IndexProjection::All,
                }],
                ..plain("chat_id")
            },
            Self::DirectChatIndex => plain("pair_key"),
            Self::ChatCounters => Definition {
                indexes: &[Index {
                    name: PUBLISHER_INDEX,
                    partition: Key("publisher", KeyKind::Text),
                    sort: None,
                    projection: IndexProjection::KeysOnly,
                }],
                ..plain("chat_id")
            },
            Self::Messages => Definition { sort: Some(Key("sequence", KeyKind::Number)), ..plain("chat_id") },
            Self::IdempotencyKeys => {
                Definition { sort: Some(text("client_message_id")), ttl: Some("ttl"), ..plain("chat_id") }
            }
            Self::DeliveryState => Definition { sort: Some(text("chat_id")), ..plain("user_id") },
            Self::RestIdempotency => Definition { sort: Some(text("key")), ttl: Some("ttl"), ..plain("user_id") },
            Self::Outbox => Definition { sort: Some(text("event_key")), ..plain("shard") },
            Self::UserRelations => Definition { sort: Some(text("other_user_id")), ..plain("user_id") },
        }
    }
}

fn text(name: &'static str) -> Key {
    Key(name, KeyKind::Text)
}

impl Store {
    /// Creates the tables that are not there, and waits until all can be used.
    ///
    /// For embedded stores and tests; in a cluster the operator makes the tables.
    ///
    /// # Errors
    /// When the store refuses or does not answer.
    pub async fn create_tables(&self) -> anyhow::Result<()> {
        let there = self.client.list_tables().into_paginator().items().send().collect::<Result<Vec<_>, _>>().await?;
        for table in Table::ALL {
            if !there.contains(&self.table(table)) {
                self.create_table(table).await?;
            }
        }
        Ok(())
    }

    async fn create_table(&self, table: Table) -> anyhow::Result<()> {
        let (admin, name, definition) = (Admin::of(self.client.clone()), self.table(table), table.definition());
        let spec = TableSpec {
            name: name.clone(),
            definition,
            billing: Billing::OnDemand,
            deletion_protection: Switch::Off,
            tags: BTreeMap::new(),
        };
        match admin.create(&spec).await {
            Ok(()) => {}
            // Somebody else is making the tables.
            Err(Error::InUse { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while admin.status(&name).await? != Some(Status::Active) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        if let Some(attribute) = definition.ttl {
            admin.set_ttl(&name, attribute, Switch::On).await?;
        }
        Ok(())
    }
}
