//! `Outbox` on the table `outbox`: a partition a shard, sorted by chat and place; and one of leases.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, Put, Update};
use domain::{
    Error, Ids, Millis,
    chat::{Chat, ChatName, ChatType},
    event::{ChangeKind, Event, Happening, MembershipChange},
    ids::{ChatId, UserId},
    membership::{Membership, Role},
    ports::{
        self,
        outbox::{Entry, Shard},
    },
};

use super::{
    Store,
    attributes::{
        Item, failed, is_condition_failure, malformed, number, optional, read_number, read_text, read_time, text,
    },
    chats,
    layout::Table,
    transact::{self, Outcome, failed_at},
};

/// Partition of the leases.
const LEASES: &str = "leases";
/// The place of the event that made the chat.
const FIRST: u64 = 0;
/// Memberships of one transaction: with the entry itself 100 items.
const MEMBERS_AT_ONCE: usize = 99;

/// The outbox in the store.
pub struct Outbox {
    store: Store,
    ids: Arc<dyn Ids>,
}

impl Outbox {
    /// The outbox of that store.
    pub fn new(store: Store, ids: Arc<dyn Ids>) -> Self {
        Self { store, ids }
    }

    fn lease_key(shard: Shard) -> [(String, AttributeValue); 2] {
        [("shard".to_owned(), text(LEASES)), ("event_key".to_owned(), text(shard.0))]
    }
}

#[async_trait]
impl ports::Outbox for Outbox {
    async fn lease(&self, shard: Shard, holder: &str, now: Millis, until: Millis) -> Result<bool, Error> {
        let taken = self
            .store
            .client
            .update_item()
            .table_name(self.store.table(Table::Outbox))
            .set_key(Some(Self::lease_key(shard).into()))
            .update_expression("SET holder = :holder, expires_at = :until")
            .condition_expression("attribute_not_exists(holder) OR holder = :holder OR expires_at <= :now")
            .expression_attribute_values(":holder", text(holder))
            .expression_attribute_values(":until", number(until))
            .expression_attribute_values(":now", number(now))
            .send()
            .await;
        match taken {
            Ok(_) => Ok(true),
            Err(error) if is_condition_failure(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn release(&self, shard: Shard, holder: &str) -> Result<(), Error> {
        let released = self
            .store
            .client
            .update_item()
            .table_name(self.store.table(Table::Outbox))
            .set_key(Some(Self::lease_key(shard).into()))
            .update_expression("REMOVE holder, expires_at")
            .condition_expression("holder = :holder")
            .expression_attribute_values(":holder", text(holder))
            .send()
            .await;
        match released {
            Ok(_) => Ok(()),
            Err(error) if is_condition_failure(&error) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn entries(&self, shard: Shard, after: Option<&Entry>, limit: u16) -> Result<Vec<Entry>, Error> {
        let from = after.map_or_else(|| " ".to_owned(), |entry| event_key(entry.event.chat, entry.place));
        let page = self
            .store
            .client
            .query()
            .table_name(self.store.table(Table::Outbox))
            .key_condition_expression("#shard = :shard AND event_key > :from")
            .expression_attribute_names("#shard", "shard")
            .expression_attribute_values(":shard", text(shard.0))
            .expression_attribute_values(":from", text(from))
            .consistent_read(true)
            .limit(i32::from(limit))
            .send()
            .await
            .map_err(failed)?;
        page.items().iter().map(to_entry).collect()
    }

    async fn complete(&self, group: ChatId) -> Result<bool, Error> {
        // Those who became members in another way since: they are in, and were counted twice.
        let mut present = HashSet::new();
        loop {
            let Some(item) = self.creation(group).await? else { return Ok(true) };
            let Some(from) = optional(&item, "pending_from", read_number::<usize>)? else { return Ok(true) };
            let (chat, members) = to_creation(group, &item)?;
            let to = members.len().min(from + MEMBERS_AT_ONCE);
            let Some(next) = members.get(from..to).filter(|next| !next.is_empty()) else { return Ok(true) };

            let joining: Vec<UserId> = next.iter().filter(|user| !present.contains(*user)).copied().collect();
            let progress = Update::builder()
                .table_name(self.store.table(Table::Outbox))
                .set_key(Some(key(group, FIRST)))
                .update_expression("SET pending_from = :to")
                .condition_expression("pending_from = :from")
                .expression_attribute_values(":to", number(to))
                .expression_attribute_values(":from", number(from));
            let mut items = vec![transact::update(progress)?];
            for &user in &joining {
                let membership =
                    Membership { chat: group, user, role: Role::Member, joined_at: chat.created_at, muted_until: None };
                items.push(chats::put_membership(&self.store, &membership)?);
            }
            if joining.len() < next.len() {
                let twice = Update::builder()
                    .table_name(self.store.table(Table::Chats))
                    .key("chat_id", text(group))
                    .update_expression("ADD member_count :twice")
                    .expression_attribute_values(
                        ":twice",
                        AttributeValue::N(format!("-{}", next.len() - joining.len())),
                    );
                items.push(transact::update(twice)?);
            }
            match transact::write(&self.store, self.ids.as_ref(), items).await? {
                Outcome::Committed => return Ok(to == members.len()),
                Outcome::Refused(reasons) => {
                    // At position 0 somebody else was faster: look again.
                    let met = joining.iter().enumerate().filter(|(at, _)| failed_at(&reasons, at + 1));
                    present.extend(met.map(|(_, user)| *user));
                }
            }
        }
    }

    async fn delete(&self, entry: &Entry) -> Result<(), Error> {
        let request = self.store.client.delete_item().table_name(self.store.table(Table::Outbox));
        request.set_key(Some(key(entry.event.chat, entry.place))).send().await.map_err(failed)?;
        Ok(())
    }
}

impl Outbox {
    async fn creation(&self, group: ChatId) -> Result<Option<Item>, Error> {
        let request = self.store.client.get_item().table_name(self.store.table(Table::Outbox));
        let found = request.set_key(Some(key(group, FIRST))).consistent_read(true).send().await.map_err(failed)?;
        Ok(found.item)
    }
}

fn event_key(chat: ChatId, place: u64) -> String {
    format!("{chat}#{place:020}")
}

fn key(chat: ChatId, place: u64) -> Item {
    Item::from([("shard".to_owned(), text(Shard::of(chat).0)), ("event_key".to_owned(), text(event_key(chat, place)))])
}

/// The put of an event, as part of the transaction that makes it true. `pending_from` is, for a group
/// that is not whole, where in the list of members those begin who are still to be added.
pub(super) fn put_entry(store: &Store, place: u64, event: &Event, pending_from: Option<usize>) -> Result<Put, Error> {
    let mut item = key(event.chat, place);
    let mut set = |name: &str, value| drop(item.insert(name.to_owned(), value));
    set("chat_id", text(event.chat));
    set("event_id", text(event.id));
    set("place", number(place));
    if let Some(traceparent) = &event.traceparent {
        set("traceparent", text(traceparent));
    }
    match &event.what {
        Happening::ChatCreated { chat, members } => {
            set("event_type", text("ChatCreated"));
            set("chat_type", text(chat.kind.as_str()));
            if let Some(name) = &chat.name {
                set("name", text(name.as_str()));
            }
            set("created_by", text(chat.created_by));
            set("created_at", number(chat.created_at));
            set("members", AttributeValue::L(members.iter().map(text).collect()));
            if let Some(from) = pending_from {
                set("pending_from", number(from));
            }
        }
        Happening::MembershipChanged(change) => {
            set("event_type", text("MembershipChanged"));
            set("user_id", text(change.user));
            set("change_type", text(change.kind.as_str()));
            set("role", text(change.role.as_str()));
            set("changed_by", text(change.by));
            set("changed_at", number(change.at));
            set("member_count_after", number(change.member_count_after));
        }
        Happening::ChatUpdated { name, by, at } => {
            set("event_type", text("ChatUpdated"));
            if let Some(name) = name {
                set("name", text(name.as_str()));
            }
            set("updated_by", text(by));
            set("updated_at", number(at));
        }
    }
    let put = Put::builder()
        .table_name(store.table(Table::Outbox))
        .set_item(Some(item))
        .condition_expression("attribute_not_exists(event_key)");
    put.build().map_err(Error::internal)
}

fn to_entry(item: &Item) -> Result<Entry, Error> {
    let chat: ChatId = read_text(item, "chat_id")?;
    let mut pending = Vec::new();
    let what = match read_text::<String>(item, "event_type")?.as_str() {
        "ChatCreated" => {
            let (chat, members) = to_creation(chat, item)?;
            if let Some(from) = optional(item, "pending_from", read_number)? {
                pending = members.iter().skip(from).copied().collect();
            }
            Happening::ChatCreated { chat, members }
        }
        "MembershipChanged" => Happening::MembershipChanged(MembershipChange {
            user: read_text(item, "user_id")?,
            kind: ChangeKind::from_stored(&read_text::<String>(item, "change_type")?)
                .ok_or_else(|| malformed("change_type"))?,
            role: Role::from_stored(&read_text::<String>(item, "role")?).ok_or_else(|| malformed("role"))?,
            by: read_text(item, "changed_by")?,
            at: read_time(item, "changed_at")?,
            member_count_after: read_number(item, "member_count_after")?,
        }),
        "ChatUpdated" => Happening::ChatUpdated {
            name: optional(item, "name", read_text)?.map(ChatName::from_store),
            by: read_text(item, "updated_by")?,
            at: read_time(item, "updated_at")?,
        },
        _ => return Err(malformed("event_type")),
    };
    let event =
        Event { id: read_text(item, "event_id")?, chat, traceparent: optional(item, "traceparent", read_text)?, what };
    Ok(Entry { place: read_number(item, "place")?, event, pending })
}

fn to_creation(id: ChatId, item: &Item) -> Result<(Chat, Vec<UserId>), Error> {
    let Some(AttributeValue::L(members)) = item.get("members") else { return Err(malformed("members")) };
    let member = |value: &AttributeValue| value.as_s().ok().and_then(|id| id.parse().ok());
    let members: Vec<UserId> =
        members.iter().map(|value| member(value).ok_or_else(|| malformed("members"))).collect::<Result<_, _>>()?;
    let created_at = read_time(item, "created_at")?;
    let chat = Chat {
        id,
        kind: ChatType::from_stored(&read_text::<String>(item, "chat_type")?).ok_or_else(|| malformed("chat_type"))?,
        name: optional(item, "name", read_text)?.map(ChatName::from_store),
        created_by: read_text(item, "created_by")?,
        created_at,
        updated_at: created_at,
        member_count: u32::try_from(members.len()).map_err(|_| malformed("members"))?,
    };
    Ok((chat, members))
}
