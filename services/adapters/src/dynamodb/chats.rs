//! `Chats` on the tables `chats`, `chat-memberships`, `chat-counters`, `direct-chat-index` and `outbox`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};
use domain::{
    Error, ErrorKind, Ids,
    chat::{Chat, ChatName, ChatType, pair_key},
    event::{ChangeKind, Event, Happening, MembershipChange},
    ids::{ChatId, UserId},
    membership::{Membership, Role},
    ports::{
        self,
        chats::{Cause, DirectChat},
    },
};
use platform::retry::Backoff;

use super::{
    Store,
    attributes::{Item, failed, malformed, number, optional, read_number, read_text, read_time, text},
    layout::Table,
    outbox::put_entry,
    transact::{self, Outcome, failed_at},
};

/// How often a change begins again because another change of the chat came first.
const RACES: u32 = 10;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(320) };

/// Chats in the store.
pub struct Chats {
    store: Store,
    ids: Arc<dyn Ids>,
}

impl Chats {
    /// The chats of that store.
    pub fn new(store: Store, ids: Arc<dyn Ids>) -> Self {
        Self { store, ids }
    }
}

#[async_trait]
impl ports::Chats for Chats {
    async fn create_direct(&self, id: ChatId, other: UserId, cause: &Cause) -> Result<DirectChat, Error> {
        let pair = pair_key(cause.by, other);
        let chat = new_chat(id, ChatType::Direct, None, 2, cause);
        let members = vec![cause.by, other];
        let index = Put::builder()
            .table_name(self.store.table(Table::DirectChatIndex))
            .item("pair_key", text(&pair))
            .item("chat_id", text(id))
            .item("created_at", number(cause.at))
            .condition_expression("attribute_not_exists(pair_key)");
        let mut items = vec![transact::put(index)?];
        items.extend(self.put_chat(&chat, Some(&pair))?);
        for &user in &members {
            items.push(put_membership(&self.store, &membership(id, user, Role::Member, cause))?);
        }
        let event = event(id, cause, Happening::ChatCreated { chat: chat.clone(), members });
        items.push(TransactWriteItem::builder().put(put_entry(&self.store, 0, &event, None)?).build());
        match transact::write(&self.store, self.ids.as_ref(), items).await? {
            Outcome::Committed => Ok(DirectChat::Created(chat)),
            Outcome::Refused(reasons) if failed_at(&reasons, 0) => {
                let winner = direct(&self.store, &pair).await?.ok_or_else(|| malformed("pair_key"))?;
                Ok(DirectChat::Existing(winner))
            }
            Outcome::Refused(_) => Err(Error::internal("the id of a new chat is in use")),
        }
    }

    async fn create_group(
        &self,
        id: ChatId,
        name: &ChatName,
        invited: &[UserId],
        cause: &Cause,
    ) -> Result<Chat, Error> {
        let count = u32::try_from(invited.len() + 1).map_err(Error::internal)?;
        let chat = new_chat(id, ChatType::Group, Some(name.clone()), count, cause);
        let members = std::iter::once(cause.by).chain(invited.iter().copied()).collect();
        let event = event(id, cause, Happening::ChatCreated { chat: chat.clone(), members });
        let mut items = self.put_chat(&chat, None)?;
        items.push(put_membership(&self.store, &membership(id, cause.by, Role::Owner, cause))?);
        // The owner, who stands first, is in already.
        items.push(TransactWriteItem::builder().put(put_entry(&self.store, 0, &event, Some(1))?).build());
        match transact::write(&self.store, self.ids.as_ref(), items).await? {
            Outcome::Committed => Ok(chat),
            Outcome::Refused(_) => Err(Error::internal("the id of a new chat is in use")),
        }
    }

    async fn chat(&self, id: ChatId) -> Result<Option<Chat>, Error> {
        Ok(read(&self.store, id).await?.map(|(chat, _)| chat))
    }

    async fn add_member(
        &self,
        chat: ChatId,
        user: UserId,
        role: Role,
        max_members: u32,
        cause: &Cause,
    ) -> Result<Membership, Error> {
        let joined = membership(chat, user, role, cause);
        for race in 0..RACES {
            let (found, version) = self.group(chat).await?;
            let change = MembershipChange {
                user,
                kind: ChangeKind::Added,
                role,
                by: cause.by,
                at: cause.at,
                member_count_after: found.member_count + 1,
            };
            if found.member_count >= max_members {
                return Err(Error::new(ErrorKind::ChatFull, "the group has all the members it may have")
                    .with_number("limit", u64::from(max_members)));
            }
            let items = vec![
                put_membership(&self.store, &joined)?,
                self.count(chat, version, "1", "member_count < :bound", max_members, cause)?,
                self.put_change(chat, version, change, cause)?,
            ];
            match transact::write(&self.store, self.ids.as_ref(), items).await? {
                Outcome::Committed => return Ok(joined),
                Outcome::Refused(reasons) if failed_at(&reasons, 0) => {
                    return Err(Error::new(ErrorKind::AlreadyAMember, "the user is a member already"));
                }
                Outcome::Refused(_) => tokio::time::sleep(BACKOFF.delay(race, self.ids.as_ref())).await,
            }
        }
        Err(busy())
    }

    async fn remove_member(&self, member: &Membership, cause: &Cause) -> Result<(), Error> {
        let Membership { chat, user, role, .. } = *member;
        if role == Role::Owner {
            return Err(Error::new(ErrorKind::InvalidOperation, "the owner can't leave the group"));
        }
        for race in 0..RACES {
            let (found, version) = self.group(chat).await?;
            let change = MembershipChange {
                user,
                kind: ChangeKind::Removed,
                role,
                by: cause.by,
                at: cause.at,
                member_count_after: found.member_count.saturating_sub(1),
            };
            let gone = Delete::builder()
                .table_name(self.store.table(Table::ChatMemberships))
                .key("chat_id", text(chat))
                .key("user_id", text(user))
                .condition_expression("attribute_exists(user_id) AND #role = :role AND #role <> :owner")
                .expression_attribute_names("#role", "role")
                .expression_attribute_values(":role", text(role.as_str()))
                .expression_attribute_values(":owner", text(Role::Owner.as_str()))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
            let items = vec![
                transact::delete(gone)?,
                self.count(chat, version, "-1", "member_count > :bound", 1, cause)?,
                self.put_change(chat, version, change, cause)?,
            ];
            match transact::write(&self.store, self.ids.as_ref(), items).await? {
                Outcome::Committed => return Ok(()),
                Outcome::Refused(reasons) if failed_at(&reasons, 0) => {
                    let is_there = reasons[0].item().is_some_and(|item| !item.is_empty());
                    return Err(if is_there {
                        Error::new(ErrorKind::Conflict, "the member has another role by now")
                    } else {
                        Error::new(ErrorKind::NotFound, "not a member of the chat")
                    });
                }
                Outcome::Refused(_) => tokio::time::sleep(BACKOFF.delay(race, self.ids.as_ref())).await,
            }
        }
        Err(busy())
    }
}

impl Chats {
    async fn group(&self, id: ChatId) -> Result<(Chat, u64), Error> {
        let not_a_member = || Error::new(ErrorKind::NotAMember, "not a member of the chat");
        let (chat, version) = read(&self.store, id).await?.ok_or_else(not_a_member)?;
        match chat.kind {
            ChatType::Group => Ok((chat, version)),
            ChatType::Direct => Err(Error::new(ErrorKind::InvalidOperation, "the members of a direct chat are fixed")),
        }
    }

    /// The puts of a new chat and of its counter.
    fn put_chat(&self, chat: &Chat, pair: Option<&str>) -> Result<Vec<TransactWriteItem>, Error> {
        let mut description = Put::builder()
            .table_name(self.store.table(Table::Chats))
            .item("chat_id", text(chat.id))
            .item("chat_type", text(chat.kind.as_str()))
            .item("created_by", text(chat.created_by))
            .item("status", text("active"))
            .item("member_count", number(chat.member_count))
            .item("created_at", number(chat.created_at))
            .item("updated_at", number(chat.updated_at))
            .item("version", number(1))
            .condition_expression("attribute_not_exists(chat_id)");
        if let Some(name) = &chat.name {
            description = description.item("name", text(name.as_str()));
        }
        if let Some(pair) = pair {
            description = description.item("pair_key", text(pair));
        }
        let counter = Put::builder()
            .table_name(self.store.table(Table::ChatCounters))
            .item("chat_id", text(chat.id))
            .item("sequence_counter", number(0))
            .item("created_at", number(chat.created_at))
            .item("updated_at", number(chat.updated_at))
            .condition_expression("attribute_not_exists(chat_id)");
        Ok(vec![transact::put(description)?, transact::put(counter)?])
    }

    /// Counts a member in or out, if no other change of the chat came first. The version puts the
    /// events of a chat into the order of its changes.
    fn count(
        &self,
        chat: ChatId,
        version: u64,
        by: &str,
        bound: &str,
        at: u32,
        cause: &Cause,
    ) -> Result<TransactWriteItem, Error> {
        let update = Update::builder()
            .table_name(self.store.table(Table::Chats))
            .key("chat_id", text(chat))
            .update_expression("SET updated_at = :at ADD member_count :by, version :one")
            .condition_expression(format!(
                "version = :version AND chat_type = :group AND #status = :active AND {bound}"
            ))
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":at", number(cause.at))
            .expression_attribute_values(":by", number(by))
            .expression_attribute_values(":one", number(1))
            .expression_attribute_values(":version", number(version))
            .expression_attribute_values(":group", text(ChatType::Group.as_str()))
            .expression_attribute_values(":active", text("active"))
            .expression_attribute_values(":bound", number(at));
        transact::update(update)
    }

    fn put_change(
        &self,
        chat: ChatId,
        version: u64,
        change: MembershipChange,
        cause: &Cause,
    ) -> Result<TransactWriteItem, Error> {
        let event = event(chat, cause, Happening::MembershipChanged(change));
        Ok(TransactWriteItem::builder().put(put_entry(&self.store, version, &event, None)?).build())
    }
}

/// The direct chat of a pair, by strong reads.
pub(super) async fn direct(store: &Store, pair: &str) -> Result<Option<Chat>, Error> {
    let request = store.client.get_item().table_name(store.table(Table::DirectChatIndex));
    let found = request.key("pair_key", text(pair)).consistent_read(true).send().await.map_err(failed)?;
    let Some(item) = found.item else { return Ok(None) };
    let (chat, _) = read(store, read_text(&item, "chat_id")?).await?.ok_or_else(|| malformed("chat_id"))?;
    Ok(Some(chat))
}

/// A chat, and how many events it has had.
async fn read(store: &Store, id: ChatId) -> Result<Option<(Chat, u64)>, Error> {
    let request = store.client.get_item().table_name(store.table(Table::Chats));
    let found = request.key("chat_id", text(id)).consistent_read(true).send().await.map_err(failed)?;
    found.item.map(|item| Ok((to_chat(&item)?, read_number(&item, "version")?))).transpose()
}

fn new_chat(id: ChatId, kind: ChatType, name: Option<ChatName>, member_count: u32, cause: &Cause) -> Chat {
    Chat { id, kind, name, created_by: cause.by, created_at: cause.at, updated_at: cause.at, member_count }
}

fn membership(chat: ChatId, user: UserId, role: Role, cause: &Cause) -> Membership {
    Membership { chat, user, role, joined_at: cause.at, muted_until: None }
}

fn event(chat: ChatId, cause: &Cause, what: Happening) -> Event {
    Event { id: cause.event, chat, traceparent: cause.traceparent.clone(), what }
}

fn busy() -> Error {
    Error::new(ErrorKind::Unavailable, "too many changes of this chat at once")
}

/// The put of somebody who is not a member yet.
pub(super) fn put_membership(store: &Store, membership: &Membership) -> Result<TransactWriteItem, Error> {
    transact::put(
        Put::builder()
            .table_name(store.table(Table::ChatMemberships))
            .item("chat_id", text(membership.chat))
            .item("user_id", text(membership.user))
            .item("role", text(membership.role.as_str()))
            .item("joined_at", number(membership.joined_at))
            .item("updated_at", number(membership.joined_at))
            .condition_expression("attribute_not_exists(user_id)"),
    )
}

/// Reads an item of the table `chats`.
pub(super) fn to_chat(item: &Item) -> Result<Chat, Error> {
    Ok(Chat {
        id: read_text(item, "chat_id")?,
        kind: ChatType::from_stored(&read_text::<String>(item, "chat_type")?).ok_or_else(|| malformed("chat_type"))?,
        name: optional(item, "name", read_text)?.map(ChatName::from_store),
        created_by: read_text(item, "created_by")?,
        created_at: read_time(item, "created_at")?,
        updated_at: read_time(item, "updated_at")?,
        member_count: read_number(item, "member_count")?,
    })
}
