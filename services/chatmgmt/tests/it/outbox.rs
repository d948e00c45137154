//! What happens to chats reaches the log: at once, in order, and whatever stops.

use std::time::{Duration, Instant};

use chatmgmt::config::Limits;
use domain::{
    Clock as _, Ids as _,
    chat::ChatName,
    ids::{ChatId, EventId, UserId},
    ports::{Chats as _, Outbox as _, chats::Cause, outbox::Shard},
};
use platform::clock::{SystemClock, SystemIds};
use proto::{
    events::v1::{Envelope, envelope::Event},
    messaging::v1::{LeaveChatRequest, MemberRole},
};

use crate::{
    chat_world::{World, eventually},
    chats::{add, create, direct, group},
};

/// A poll that never comes within a test: what is published then was published at once.
fn no_poll() -> Limits {
    Limits { outbox_poll: Duration::from_hours(1), ..Limits::default() }
}

fn of<'a>(events: &'a [(&'static str, Envelope)], chat: &str) -> Vec<&'a (&'static str, Envelope)> {
    events.iter().filter(|(_, event)| event.partition_key == chat).collect()
}

#[tokio::test]
async fn a_new_group_is_told_once_with_all_its_members() {
    let world = World::start().await;
    let server = world.server(&no_poll()).await;
    let mut client = server.client();
    let (owner, others) = (world.person("Ada"), world.persons(2));
    let began = Instant::now();
    let chat = create(&mut client, &owner, group(&others)).await;
    let events = eventually("four events", async || Some(world.log.events()).filter(|events| events.len() == 4)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "without a poll");
    assert_eq!(events[0].0, "chats.created");
    let Some(Event::ChatCreated(created)) = &events[0].1.event else { panic!("{events:?}") };
    assert_eq!((created.chat_type.as_str(), created.member_count, created.initial_members.len()), ("group", 3, 3));
    let mut told: Vec<String> = Vec::new();
    for (topic, event) in &events[1..] {
        let Some(Event::MembershipChanged(change)) = &event.event else { panic!("{event:?}") };
        assert_eq!((*topic, change.change_type.as_str(), change.at_creation), ("memberships.changed", "added", true));
        assert_eq!((change.changed_by.as_str(), change.member_count_after), (created.created_by.as_str(), 3));
        told.push(change.user_id.clone());
    }
    assert_eq!(told, created.initial_members);
    let mut ids: Vec<&str> = events.iter().map(|(_, event)| event.event_id.as_str()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    for record in world.log.records() {
        let event = world.log.events().into_iter().map(|(_, event)| event.event_type).collect::<Vec<_>>();
        assert!(event.contains(&record.headers[0].1));
        assert_eq!(
            record.headers[..2].iter().map(|header| header.0).collect::<Vec<_>>(),
            ["event-type", "event-version"]
        );
        assert_eq!(record.key, chat.chat_id);
    }
    server.process.shut_down().await;
}

#[tokio::test]
async fn changes_are_told_in_their_order_and_never_as_part_of_the_creation() {
    let world = World::start().await;
    let servers = [world.server(&no_poll()).await, world.server(&no_poll()).await];
    let (owner, others) = (world.person("Ada"), world.persons(9));
    let chat = create(&mut servers[0].client(), &owner, group(&others[..1])).await;
    for (n, other) in others[1..].iter().enumerate() {
        let client = &mut servers[n % 2].client();
        add(client, &owner, &chat, other, MemberRole::Member).await.expect("added");
        let request = LeaveChatRequest { chat_id: chat.chat_id.clone() };
        client.leave_chat(other.ask(request)).await.expect("left");
    }
    let events = eventually("all events", async || Some(world.log.events()).filter(|events| events.len() >= 19)).await;
    let later: Vec<(String, String)> = events[3..]
        .iter()
        .map(|(_, event)| {
            let Some(Event::MembershipChanged(change)) = &event.event else { panic!("{event:?}") };
            assert!(!change.at_creation);
            (change.user_id.clone(), change.change_type.clone())
        })
        .collect();
    let expected: Vec<(String, String)> = others[1..]
        .iter()
        .flat_map(|other| ["added", "removed"].map(|kind| (other.id.to_string(), kind.to_owned())))
        .collect();
    assert_eq!(later, expected);
    for server in servers {
        server.process.shut_down().await;
    }
}

#[tokio::test]
async fn what_was_committed_before_a_stop_is_published_by_another_process() {
    let world = World::start().await;
    let (owner, others) = (world.person("Ada"), world.persons(120));
    let invited: Vec<UserId> = others.iter().map(|other| other.id).collect();
    // A process that ends after the first transaction of a group: nobody was added, nothing was told.
    let chats = adapters::dynamodb::chats::Chats::new(world.store.clone(), std::sync::Arc::new(SystemIds));
    let cause = Cause { by: owner.id, at: SystemClock.now(), event: EventId(SystemIds.ulid()), traceparent: None };
    let id = ChatId::new(&SystemIds);
    let name = ChatName::new("half made").expect("valid");
    chats.create_group(id, &name, &invited, &cause).await.expect("the first transaction");

    let limits = Limits { outbox_poll: Duration::from_millis(50), ..Limits::default() };
    let server = world.server(&limits).await;
    let events =
        eventually("every member", async || Some(world.log.events()).filter(|events| events.len() == 122)).await;
    assert_eq!(of(&events, &id.to_string()).len(), 122);
    let outbox = adapters::dynamodb::outbox::Outbox::new(world.store.clone(), std::sync::Arc::new(SystemIds));
    eventually("an empty outbox", async || {
        outbox.entries(Shard::of(id), None, 10).await.expect("entries").is_empty().then_some(())
    })
    .await;
    server.process.shut_down().await;
}

#[tokio::test]
async fn a_stop_while_the_log_is_away_leaves_the_events_to_the_next_process() {
    let world = World::start().await;
    let first = world.server(&no_poll()).await;
    let (ada, ben) = (world.person("Ada"), world.person("Ben"));
    world.log.hold();
    let chat = create(&mut first.client(), &ada, direct(&ben)).await;
    assert!(world.log.events().is_empty(), "a change does not wait for the log");
    first.process.shut_down().await;

    world.log.let_go();
    let limits = Limits { outbox_poll: Duration::from_millis(50), ..Limits::default() };
    let second = world.server(&limits).await;
    let events = eventually("the event", async || Some(world.log.events()).filter(|events| !events.is_empty())).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].1.partition_key, chat.chat_id);
    second.process.shut_down().await;
}
