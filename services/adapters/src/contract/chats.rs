//! Contract of `Chats`: one direct chat a pair, bounded groups, an event with each change.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use domain::{
    Error, ErrorKind, Ids, Millis,
    chat::{Chat, ChatName, ChatType},
    event::{ChangeKind, Happening},
    ids::{ChatId, EventId, UserId},
    membership::{Membership, Role},
    ports::{
        Chats as _, Outbox as _,
        chats::{Cause, DirectChat},
        outbox::{Entry, Shard},
    },
};
use platform::{Process, clock::SystemIds};

use super::{On, store};
use crate::dynamodb::{Store, attributes::Item, chats::Chats, layout::Table, outbox::Outbox};

/// A store with the ports under test on it.
pub(crate) struct World {
    pub(crate) process: Process,
    pub(crate) store: Store,
    pub(crate) chats: Arc<Chats>,
    pub(crate) outbox: Arc<Outbox>,
}

impl World {
    pub(crate) async fn start(on: On) -> Self {
        let (process, store) = store::start(on).await;
        let chats = Arc::new(Chats::new(store.clone(), Arc::new(SystemIds)));
        let outbox = Arc::new(Outbox::new(store.clone(), Arc::new(SystemIds)));
        Self { process, store, chats, outbox }
    }

    /// A group with all its members.
    pub(crate) async fn group(&self, owner: UserId, invited: &[UserId]) -> ChatId {
        let id = ChatId::new(&SystemIds);
        self.chats.create_group(id, &name(), invited, &cause(owner)).await.expect("created");
        while !self.outbox.complete(id).await.expect("completed") {}
        id
    }

    /// Who is in a chat, by a strong read.
    pub(crate) async fn members(&self, chat: ChatId) -> Vec<(UserId, Role)> {
        let page = self
            .store
            .client
            .query()
            .table_name(self.store.table(Table::ChatMemberships))
            .key_condition_expression("chat_id = :chat")
            .expression_attribute_values(":chat", AttributeValue::S(chat.to_string()))
            .consistent_read(true)
            .send()
            .await
            .expect("a page");
        let text = |item: &Item, name: &str| item[name].as_s().expect("a text").clone();
        let members = page.items().iter().map(|item| {
            let role = Role::from_stored(&text(item, "role")).expect("a role");
            (text(item, "user_id").parse().expect("an id"), role)
        });
        members.collect()
    }

    /// Everything in the outbox about a chat.
    pub(crate) async fn entries(&self, chat: ChatId) -> Vec<Entry> {
        let entries = self.outbox.entries(Shard::of(chat), None, 500).await.expect("entries");
        entries.into_iter().filter(|entry| entry.event.chat == chat).collect()
    }

    async fn count(&self, chat: ChatId) -> u32 {
        self.chats.chat(chat).await.expect("read").expect("there").member_count
    }
}

pub(crate) fn user() -> UserId {
    UserId::new(&SystemIds)
}

pub(crate) fn users(count: usize) -> Vec<UserId> {
    (0..count).map(|_| user()).collect()
}

pub(crate) fn name() -> ChatName {
    ChatName::new("a group").expect("valid")
}

pub(crate) fn cause(by: UserId) -> Cause {
    Cause { by, at: Millis(1_773_480_413_918), event: EventId(SystemIds.ulid()), traceparent: None }
}

fn member(chat: ChatId, user: UserId, role: Role) -> Membership {
    Membership { chat, user, role, joined_at: Millis(0), muted_until: None }
}

fn kind<T>(result: &Result<T, Error>) -> Option<ErrorKind> {
    result.as_ref().err().map(Error::kind)
}

async fn two_users_have_one_direct_chat_whoever_asks_first(on: On) {
    let world = World::start(on).await;
    let (ada, ben) = (user(), user());
    let asks = (0..16).map(|ask| {
        let chats = world.chats.clone();
        let (by, other) = if ask % 2 == 0 { (ada, ben) } else { (ben, ada) };
        world.process.spawn_child(async move { chats.create_direct(ChatId::new(&SystemIds), other, &cause(by)).await })
    });
    let asks: Vec<_> = asks.collect();
    let mut created: Vec<Chat> = Vec::new();
    let mut existing: Vec<Chat> = Vec::new();
    for ask in asks {
        match ask.await.expect("ends").expect("answered") {
            DirectChat::Created(chat) => created.push(chat),
            DirectChat::Existing(chat) => existing.push(chat),
        }
    }
    assert_eq!((created.len(), existing.len()), (1, 15));
    let chat = &created[0];
    assert!(existing.iter().all(|other| other == chat), "{existing:?}");
    assert_eq!((chat.kind, chat.member_count, &chat.name), (ChatType::Direct, 2, &None));
    let mut members = world.members(chat.id).await;
    members.sort();
    let mut expected = vec![(ada, Role::Member), (ben, Role::Member)];
    expected.sort();
    assert_eq!(members, expected);
    let entries = world.entries(chat.id).await;
    assert_eq!(entries.len(), 1, "one event for one chat: {entries:?}");
    assert!(matches!(&entries[0].event.what, Happening::ChatCreated { members, .. } if members.len() == 2));
    assert_eq!(world.chats.chat(chat.id).await.expect("read").as_ref(), Some(chat));
}

async fn a_direct_chat_keeps_its_members(on: On) {
    let world = World::start(on).await;
    let (ada, ben) = (user(), user());
    let answer = world.chats.create_direct(ChatId::new(&SystemIds), ben, &cause(ada)).await.expect("created");
    let DirectChat::Created(chat) = answer else { panic!("{answer:?}") };
    let added = world.chats.add_member(chat.id, user(), Role::Member, 100, &cause(ada)).await;
    let removed = world.chats.remove_member(&member(chat.id, ben, Role::Member), &cause(ada)).await;
    assert_eq!((kind(&added), kind(&removed)), (Some(ErrorKind::InvalidOperation), Some(ErrorKind::InvalidOperation)));
    assert_eq!(world.members(chat.id).await.len(), 2);
}

async fn the_last_place_of_a_group_is_given_once(on: On) {
    let world = World::start(on).await;
    let owner = user();
    let group = world.group(owner, &users(98)).await;
    assert_eq!(world.count(group).await, 99);
    let add = |who| {
        let chats = world.chats.clone();
        world.process.spawn_child(async move { chats.add_member(group, who, Role::Member, 100, &cause(owner)).await })
    };
    let (one, two) = (add(user()), add(user()));
    let results = [one.await.expect("ends"), two.await.expect("ends")];
    let mut kinds = results.each_ref().map(kind);
    kinds.sort();
    assert_eq!(kinds, [None, Some(ErrorKind::ChatFull)]);
    assert_eq!(world.count(group).await, 100);
    assert_eq!(world.members(group).await.len(), 100);
}

async fn adding_somebody_twice_at_once_adds_them_once(on: On) {
    let world = World::start(on).await;
    let (owner, who) = (user(), user());
    let group = world.group(owner, &users(2)).await;
    let adds: Vec<_> = (0..8)
        .map(|_| {
            let chats = world.chats.clone();
            world
                .process
                .spawn_child(async move { chats.add_member(group, who, Role::Member, 100, &cause(owner)).await })
        })
        .collect();
    let mut kinds = Vec::new();
    for add in adds {
        kinds.push(kind(&add.await.expect("ends")));
    }
    assert_eq!(kinds.iter().filter(|kind| kind.is_none()).count(), 1, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Some(ErrorKind::AlreadyAMember)).count(), 7, "{kinds:?}");
    assert_eq!(world.count(group).await, 4);
}

async fn adding_and_removing_somebody_at_once_leaves_a_count_that_is_true(on: On) {
    let world = World::start(on).await;
    let owner = user();
    let group = world.group(owner, &users(3)).await;
    for _ in 0..10 {
        let who = user();
        let (adding, removing) = (world.chats.clone(), world.chats.clone());
        let add = world
            .process
            .spawn_child(async move { adding.add_member(group, who, Role::Member, 100, &cause(owner)).await });
        let remove = world
            .process
            .spawn_child(async move { removing.remove_member(&member(group, who, Role::Member), &cause(owner)).await });
        add.await.expect("ends").expect("added");
        let removed = remove.await.expect("ends");
        assert!(matches!(kind(&removed), None | Some(ErrorKind::NotFound)), "{removed:?}");
        let is_in = world.members(group).await.iter().any(|(user, _)| *user == who);
        assert_eq!(is_in, removed.is_err());
        assert_eq!(world.count(group).await as usize, world.members(group).await.len());
    }
}

async fn the_owner_stays_and_a_role_that_changed_meanwhile_is_noticed(on: On) {
    let world = World::start(on).await;
    let (owner, admin) = (user(), user());
    let group = world.group(owner, &users(1)).await;
    world.chats.add_member(group, admin, Role::Admin, 100, &cause(owner)).await.expect("added");
    let honest = world.chats.remove_member(&member(group, owner, Role::Owner), &cause(admin)).await;
    let mistaken = world.chats.remove_member(&member(group, owner, Role::Member), &cause(admin)).await;
    let stale = world.chats.remove_member(&member(group, admin, Role::Member), &cause(owner)).await;
    let absent = world.chats.remove_member(&member(group, user(), Role::Member), &cause(owner)).await;
    assert_eq!(kind(&honest), Some(ErrorKind::InvalidOperation));
    assert_eq!(kind(&mistaken), Some(ErrorKind::Conflict));
    assert_eq!(kind(&stale), Some(ErrorKind::Conflict));
    assert_eq!(kind(&absent), Some(ErrorKind::NotFound));
    assert_eq!(world.members(group).await.len(), 3);
}

async fn changes_of_a_chat_are_in_the_outbox_in_their_order(on: On) {
    let world = World::start(on).await;
    let owner = user();
    let group = world.group(owner, &users(1)).await;
    let who = users(6);
    // Several at once: whatever the order of the commits is, the outbox has it.
    let adds: Vec<_> = who
        .iter()
        .map(|&user| {
            let chats = world.chats.clone();
            world
                .process
                .spawn_child(async move { chats.add_member(group, user, Role::Member, 100, &cause(owner)).await })
        })
        .collect();
    for add in adds {
        add.await.expect("ends").expect("added");
    }
    for &user in &who {
        world.chats.remove_member(&member(group, user, Role::Member), &cause(user)).await.expect("removed");
    }
    let entries = world.entries(group).await;
    let places: Vec<u64> = entries.iter().map(|entry| entry.place).collect();
    assert_eq!(places, (0..13).collect::<Vec<u64>>());
    let mut count = 2;
    let mut left = Vec::new();
    for entry in &entries[1..] {
        let Happening::MembershipChanged(change) = &entry.event.what else { panic!("{entry:?}") };
        match change.kind {
            ChangeKind::Added => count += 1,
            ChangeKind::Removed => {
                count -= 1;
                left.push(change.user);
            }
            ChangeKind::RoleChanged => panic!("{entry:?}"),
        }
        assert_eq!(change.member_count_after, count, "{entry:?}");
    }
    assert_eq!(left, who);
}

on_all_systems! {
    two_users_have_one_direct_chat_whoever_asks_first,
    a_direct_chat_keeps_its_members,
    the_last_place_of_a_group_is_given_once,
    adding_somebody_twice_at_once_adds_them_once,
    adding_and_removing_somebody_at_once_leaves_a_count_that_is_true,
    the_owner_stays_and_a_role_that_changed_meanwhile_is_noticed,
    changes_of_a_chat_are_in_the_outbox_in_their_order,
}
