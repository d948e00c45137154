//! Contract of `Outbox`: groups become whole whoever finishes them, entries keep their order, one holder a shard.

use std::{collections::HashSet, sync::Arc, time::Duration};

use domain::{
    Millis,
    event::Happening,
    ids::ChatId,
    membership::Role,
    ports::{Chats as _, Outbox as _, outbox::Shard},
};
use platform::clock::SystemIds;

use super::On;
use super::chats::{World, cause, name, user, users};
use crate::dynamodb::outbox::Outbox;

async fn a_group_of_one_hundred_is_whole_after_one_step(on: On) {
    let world = World::start(on).await;
    let (owner, invited) = (user(), users(99));
    let group = ChatId::new(&SystemIds);
    let chat = world.chats.create_group(group, &name(), &invited, &cause(owner)).await.expect("created");
    assert_eq!(chat.member_count, 100);
    assert_eq!(world.members(group).await, [(owner, Role::Owner)]);
    assert_eq!(world.entries(group).await[0].pending, invited);

    assert!(world.outbox.complete(group).await.expect("completed"));
    let members: HashSet<_> = world.members(group).await.into_iter().collect();
    let expected: HashSet<_> = invited.iter().map(|&user| (user, Role::Member)).chain([(owner, Role::Owner)]).collect();
    assert_eq!(members, expected);
    let entries = world.entries(group).await;
    assert!(entries[0].pending.is_empty(), "{entries:?}");
    let Happening::ChatCreated { members, .. } = &entries[0].event.what else { panic!("{entries:?}") };
    assert_eq!((members.len(), members[0]), (100, owner));
}

async fn another_process_finishes_a_group_that_was_left_half_made(on: On) {
    let world = World::start(on).await;
    let group = ChatId::new(&SystemIds);
    world.chats.create_group(group, &name(), &users(250), &cause(user())).await.expect("created");
    assert!(!world.outbox.complete(group).await.expect("a step"));
    assert_eq!(world.members(group).await.len(), 100);

    // The first process is gone; several others find the entry at the same time.
    let others: Vec<_> = (0..4)
        .map(|_| {
            let other = Arc::new(Outbox::new(world.store.clone(), Arc::new(SystemIds)));
            world.process.spawn_child(async move { while !other.complete(group).await.expect("a step") {} })
        })
        .collect();
    for other in others {
        other.await.expect("ends");
    }
    assert_eq!(world.members(group).await.len(), 251);
    assert!(world.entries(group).await[0].pending.is_empty());
    assert!(world.outbox.complete(group).await.expect("nothing left"));
}

async fn somebody_added_while_a_group_is_being_made_is_counted_once(on: On) {
    let world = World::start(on).await;
    let (owner, invited) = (user(), users(5));
    let group = ChatId::new(&SystemIds);
    world.chats.create_group(group, &name(), &invited, &cause(owner)).await.expect("created");
    world.chats.add_member(group, invited[2], Role::Admin, 100, &cause(owner)).await.expect("added");
    assert!(world.outbox.complete(group).await.expect("completed"));
    let members = world.members(group).await;
    assert_eq!(members.len(), 6);
    assert!(members.contains(&(invited[2], Role::Admin)), "who was added by hand keeps the role");
    assert_eq!(world.chats.chat(group).await.expect("read").expect("there").member_count, 6);
}

async fn entries_are_read_in_order_in_pages_until_they_are_deleted(on: On) {
    let world = World::start(on).await;
    let owner = user();
    let group = world.group(owner, &users(1)).await;
    for _ in 0..12 {
        world.chats.add_member(group, user(), Role::Member, 100, &cause(owner)).await.expect("added");
    }
    let shard = Shard::of(group);
    let mut places = Vec::new();
    let mut last = None;
    loop {
        let page = world.outbox.entries(shard, last.as_ref(), 5).await.expect("a page");
        places.extend(page.iter().map(|entry| entry.place));
        match page.into_iter().last() {
            Some(entry) => last = Some(entry),
            None => break,
        }
    }
    assert_eq!(places, (0..13).collect::<Vec<u64>>());
    for entry in world.entries(group).await {
        world.outbox.delete(&entry).await.expect("deleted");
        world.outbox.delete(&entry).await.expect("deleted again");
    }
    assert!(world.entries(group).await.is_empty());
}

async fn a_shard_has_one_holder_until_it_lets_go_or_its_lease_expires(on: On) {
    let world = World::start(on).await;
    let (shard, now, term) = (Shard(3), Millis(1_000_000), Duration::from_secs(6));
    let lease = |holder: &'static str, now: Millis| world.outbox.lease(shard, holder, now, now + term);
    assert!(lease("one", now).await.expect("answered"));
    assert!(!lease("two", now).await.expect("answered"));
    assert!(lease("one", now + Duration::from_secs(5)).await.expect("answered"), "its holder keeps it");
    assert!(!lease("two", now + Duration::from_secs(10)).await.expect("answered"), "it was renewed");
    assert!(lease("two", now + Duration::from_secs(11)).await.expect("answered"), "it has expired");
    assert!(!lease("one", now + Duration::from_secs(11)).await.expect("answered"));

    world.outbox.release(shard, "one").await.expect("harmless");
    assert!(!lease("one", now + Duration::from_secs(12)).await.expect("answered"));
    world.outbox.release(shard, "two").await.expect("released");
    assert!(lease("one", now + Duration::from_secs(12)).await.expect("answered"));
    assert!(world.outbox.entries(shard, None, 10).await.expect("entries").is_empty(), "a lease is no entry");
}

on_all_systems! {
    a_group_of_one_hundred_is_whole_after_one_step,
    another_process_finishes_a_group_that_was_left_half_made,
    somebody_added_while_a_group_is_being_made_is_counted_once,
    entries_are_read_in_order_in_pages_until_they_are_deleted,
    a_shard_has_one_holder_until_it_lets_go_or_its_lease_expires,
}
