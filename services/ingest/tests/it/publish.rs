//! Hop 3: what is stored comes to the log in order, whatever the log does.

use std::time::Duration;

use proto::topics::{Topic, header};

use crate::{
    log::decode,
    world::{World, eventually, sequence},
};

#[tokio::test]
async fn a_stored_message_becomes_a_record_of_its_chat() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    let draft = world.draft(chat, members[0], "hello ☕");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
    let stored = node.api.persist.persist(draft.clone(), Some(trace.clone()), Duration::MAX).await.expect("stored");
    eventually("it is on the log", || world.log.records().len() == 1).await;
    let record = world.log.records().remove(0);
    assert_eq!((record.topic, record.key.as_str()), (Topic::MessagesPersisted.name(), chat.to_string().as_str()));
    let mut headers = record.headers.clone();
    headers.sort();
    let expected = [
        (header::EVENT_TYPE, "MessagePersisted".to_owned()),
        (header::EVENT_VERSION, "1".to_owned()),
        (header::ORIGIN_CONNECTION, draft.origin.expect("set").to_string()),
        (header::TRACEPARENT, trace),
    ];
    assert_eq!(headers, expected);
    let event = decode(&record);
    assert_eq!(event.message_id, stored.original.id.to_string());
    assert_eq!((event.sequence, event.created_at), (1, stored.original.created_at.0));
    assert_eq!((event.content.as_str(), event.client_message_id), ("hello ☕", draft.client_id.to_string()));
}

#[tokio::test]
async fn acks_go_on_while_the_log_is_away_and_memory_stays_bounded() {
    let mut world = World::new();
    (world.limits.publish_window, world.limits.publish_page) = (10, 4);
    let chats = [world.chat(1), world.chat(1)];
    let node = world.node().await;
    world.log.go_away();
    for expected in 1..=60 {
        for (chat, members) in &chats {
            assert_eq!(sequence(node.send(world.draft(*chat, members[0], "x")).await), expected);
        }
    }
    assert!(world.log.most_pending() <= 10, "{} in the producer", world.log.most_pending());
    world.log.come_back();
    let expected: Vec<u64> = (1..=60).collect();
    for (chat, _) in &chats {
        eventually("all is on the log once, in order", || world.log.sequences(*chat) == expected).await;
    }
    eventually("nothing is left", || node.metric("durability_chats_behind") == 0.0).await;
}

#[tokio::test]
async fn a_producer_that_fails_for_good_is_fed_again_from_the_confirmed_point() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    eventually("the first is confirmed", || node.metric("durability_chats_behind") == 0.0).await;
    world.log.go_away();
    for _ in 0..20 {
        node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    }
    eventually("the producer has them", || world.log.pending() == 20).await;
    world.log.fail_for_good();
    eventually("the new producer has them", || world.log.pending() == 20).await;
    world.log.come_back();
    let expected: Vec<u64> = (1..=21).collect();
    eventually("each is on the log once", || world.log.sequences(chat) == expected).await;
}

#[tokio::test]
async fn each_commit_says_what_is_on_the_log() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    for _ in 0..3 {
        node.send(world.draft(chat, members[0], "x")).await.expect("stored");
        eventually("it is confirmed", || node.metric("durability_chats_behind") == 0.0).await;
    }
    world.log.go_away();
    for _ in 0..2 {
        node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    }
    let state = world.store.state();
    let said: Vec<_> = state.commits.iter().map(|batch| batch.published_through.0).collect();
    assert_eq!(said, [0, 1, 2, 3, 3]);
    let marks: std::collections::HashSet<_> = state.commits.iter().map(|batch| batch.publisher).collect();
    assert!(marks.len() <= 2, "the mark changes at most once a slot: {marks:?}");
}

#[tokio::test]
async fn chats_that_are_too_many_to_remember_are_found_again() {
    let mut world = World::new();
    world.limits.publish_chats = 2;
    let chats: Vec<_> = (0..6).map(|_| world.chat(1)).collect();
    let node = world.node().await;
    world.log.go_away();
    for (chat, members) in &chats {
        node.send(world.draft(*chat, members[0], "x")).await.expect("stored");
    }
    assert_eq!(world.log.pending(), 2);
    world.log.come_back();
    for (chat, _) in &chats {
        eventually("every chat is on the log", || world.log.first_occurrences(*chat) == [1]).await;
    }
}
