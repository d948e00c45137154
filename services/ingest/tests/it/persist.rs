//! Hop 2: what is acknowledged is stored once, in its place.

use std::{collections::HashSet, sync::Arc, time::Duration};

use domain::{ErrorKind, message::Sequence, ports::Publication};
use proto::{
    messaging::v1::{
        PersistMessageRequest, PersistMessagesRequest, ingest_server::Ingest as _, persist_outcome::Outcome,
    },
    topics::header,
};
use tonic::Request;

use crate::{
    store::{Fault, message},
    world::{World, eventually, kind, sequence},
};

fn traceparent(record: &Publication) -> Option<String> {
    let named = record.headers.iter().find(|(name, _)| *name == header::TRACEPARENT);
    named.map(|(_, value)| value.clone())
}

#[tokio::test]
async fn one_store_round_trip_for_a_chat_whose_head_is_known() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    assert_eq!(sequence(node.send(world.draft(chat, members[0], "first")).await), 1);
    let calls = || {
        let state = world.store.state();
        (state.head_reads, state.commits.len())
    };
    assert_eq!(calls(), (1, 1), "the first batch reads the head");
    assert_eq!(sequence(node.send(world.draft(chat, members[0], "second")).await), 2);
    assert_eq!(calls(), (1, 2));
}

#[tokio::test]
async fn what_arrives_during_a_commit_is_the_next_batch_in_its_order() {
    let world = World::new();
    let (chat, members) = world.chat(41);
    let node = world.node().await;
    world.store.shut();
    let mut posted = Vec::new();
    for (place, member) in members.iter().enumerate() {
        posted.push(node.post(world.draft(chat, *member, &place.to_string())).await);
        if place == 0 {
            eventually("the first batch is under way", || world.store.state().head_reads == 1).await;
        }
    }
    world.store.reopen();
    for (sent, expected) in posted.into_iter().zip(1..) {
        assert_eq!(sequence(sent.await.expect("no panic")), expected);
    }
    let sizes: Vec<_> = world.store.state().commits.iter().map(|batch| batch.messages.len()).collect();
    assert_eq!(sizes, [1, 33, 7]);
    assert_eq!(world.store.texts(chat), (0..41).map(|place| place.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn equal_ids_that_wait_together_are_one_message() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    world.store.shut();
    let draft = world.draft(chat, members[0], "once");
    let (first, second) = (node.post(draft.clone()).await, node.post(draft).await);
    world.store.reopen();
    let (first, second) = (first.await.expect("no panic"), second.await.expect("no panic"));
    let (first, second) = (first.expect("stored"), second.expect("stored"));
    assert_eq!(first.original, second.original);
    assert_eq!((first.is_duplicate, second.is_duplicate), (false, true));
    assert_eq!(world.store.texts(chat), ["once"]);
}

#[tokio::test]
async fn a_repetition_gets_the_stored_answer_even_when_its_sender_has_left() {
    let world = World::new();
    let (chat, members) = world.chat(2);
    let node = world.node().await;
    let draft = world.draft(chat, members[0], "original");
    let first = node.send(draft.clone()).await.expect("stored");
    node.send(world.draft(chat, members[1], "other")).await.expect("stored");
    let mut again = draft.clone();
    again.content = domain::message::Content::new("", "changed").expect("valid");
    let second = node.send(again).await.expect("stored");
    assert_eq!((second.original, second.is_duplicate), (first.original, true));
    world.store.state().members.remove(&(chat, members[0]));
    assert!(node.send(draft).await.expect("stored").is_duplicate);
    assert_eq!(kind(node.send(world.draft(chat, members[0], "new")).await), ErrorKind::NotAMember);
    assert_eq!(world.store.texts(chat), ["original", "other"]);
}

#[tokio::test]
async fn who_is_not_a_member_is_refused_and_the_rest_of_the_batch_is_stored() {
    let world = World::new();
    let (chat, members) = world.chat(2);
    let node = world.node().await;
    world.store.shut();
    let first = node.post(world.draft(chat, members[0], "a")).await;
    let stranger = node.post(world.draft(chat, world.user(), "b")).await;
    let third = node.post(world.draft(chat, members[1], "c")).await;
    world.store.reopen();
    assert_eq!(sequence(first.await.expect("no panic")), 1);
    assert_eq!(kind(stranger.await.expect("no panic")), ErrorKind::NotAMember);
    assert_eq!(sequence(third.await.expect("no panic")), 2);
}

#[tokio::test]
async fn an_unknown_chat_is_told_from_a_lost_counter() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    let nowhere = domain::ids::ChatId(ulid::Ulid(u128::MAX));
    assert_eq!(kind(node.send(world.draft(nowhere, members[0], "x")).await), ErrorKind::NotAMember);
    node.send(world.draft(chat, members[0], "stored")).await.expect("stored");
    let head = world.store.state().heads.remove(&chat).expect("a head");
    assert_eq!(kind(node.send(world.draft(chat, members[0], "lost")).await), ErrorKind::Internal);
    assert!(node.metric("durability_counter_missing_total") > 0.0);
    world.store.state().heads.insert(chat, head);
    assert_eq!(sequence(node.send(world.draft(chat, members[0], "repaired")).await), 2);
}

#[tokio::test]
async fn a_lost_race_goes_on_at_the_new_head() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    node.send(world.draft(chat, members[0], "mine")).await.expect("stored");
    let rivals = [message(chat, members[0], 1 << 100, "theirs"), message(chat, members[0], 1 << 101, "theirs too")];
    world.store.state().rivals.extend(rivals);
    assert_eq!(sequence(node.send(world.draft(chat, members[0], "mine again")).await), 4);
    assert_eq!(world.store.texts(chat), ["mine", "theirs", "theirs too", "mine again"]);
    eventually("all is on the log", || world.log.first_occurrences(chat) == [1, 2, 3, 4]).await;
    assert_eq!(world.store.state().head_reads, 1, "the reasons tell the head");
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_again_under_the_same_token_while_the_next_batch_waits() {
    for fault in [Fault::LoseAnswer, Fault::LoseRequest] {
        let world = World::new();
        let (chat, members) = world.chat(1);
        let node = world.node().await;
        world.store.shut();
        let first = node.post(world.draft(chat, members[0], "first")).await;
        eventually("the first batch is under way", || world.store.state().head_reads == 1).await;
        let second = node.post(world.draft(chat, members[0], "second")).await;
        // What a repetition meets says nothing about the first request.
        world.store.fail_next([fault, Fault::Conflict, Fault::NotNow, fault]);
        world.store.reopen();
        let first = first.await.expect("no panic").expect("stored");
        assert_eq!((first.original.sequence, first.is_duplicate), (Sequence(1), false), "{fault:?}");
        assert_eq!(sequence(second.await.expect("no panic")), 2, "{fault:?}");
        let state = world.store.state();
        let (last, repeated) = state.commits.split_last().expect("commits");
        assert_eq!(repeated.len(), 5, "{fault:?}");
        assert!(repeated.iter().all(|batch| *batch == repeated[0]), "{fault:?}");
        assert_ne!(last.token, repeated[0].token, "{fault:?}");
    }
}

#[tokio::test]
async fn a_conflict_is_tried_again_and_given_up_within_bounds() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    world.store.fail_next([Fault::Conflict, Fault::NotNow, Fault::Conflict]);
    assert_eq!(sequence(node.send(world.draft(chat, members[0], "patient")).await), 1);
    for (fault, expected, commits) in [
        (Fault::NotNow, ErrorKind::Unavailable, 12),
        // Known not to be stored, and no word about other chats.
        (Fault::Throttle, ErrorKind::ServerBusy, 20),
        (Fault::Conflict, ErrorKind::ServerBusy, 28),
    ] {
        world.store.fail_next([fault; 8]);
        let refused = node.send(world.draft(chat, members[0], "refused")).await.expect_err("refused");
        assert_eq!((refused.kind(), refused.retry_after_seconds().is_some()), (expected, fault != Fault::NotNow));
        assert_eq!(world.store.state().commits.len(), commits, "{fault:?}");
    }
    assert_eq!(sequence(node.send(world.draft(chat, members[0], "later")).await), 2);
}

#[tokio::test]
async fn an_invalid_message_does_not_take_its_batch_down() {
    let world = World::new();
    let (chat, members) = world.chat(7);
    let node = world.node().await;
    world.store.state().poison = Some("3".to_owned());
    world.store.shut();
    let mut posted = Vec::new();
    for (place, member) in members.iter().enumerate() {
        posted.push(node.post(world.draft(chat, *member, &place.to_string())).await);
    }
    world.store.reopen();
    for (place, sent) in posted.into_iter().enumerate() {
        let result = sent.await.expect("no panic");
        if place == 3 {
            assert_eq!(kind(result), ErrorKind::Internal);
        } else {
            assert!(result.is_ok(), "{place}");
        }
    }
    assert_eq!(world.store.texts(chat), ["0", "1", "2", "4", "5", "6"]);
}

#[tokio::test]
async fn a_place_taken_above_the_counter_stops_the_chat() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let (other, others) = world.chat(1);
    let node = world.node().await;
    let mut intruder = message(chat, members[0], 1 << 100, "intruder");
    intruder.sequence = Sequence(1);
    world.store.state().messages.insert((chat, Sequence(1)), intruder);
    for _ in 0..2 {
        assert_eq!(kind(node.send(world.draft(chat, members[0], "x")).await), ErrorKind::Internal);
    }
    assert_eq!(world.store.state().commits.len(), 1, "it is not tried again");
    assert!((node.metric("durability_duplicate_sequence_total") - 1.0).abs() < f64::EPSILON);
    assert_eq!(sequence(node.send(world.draft(other, others[0], "x")).await), 1, "other chats go on");
}

#[tokio::test]
async fn full_queues_refuse_before_anything_is_stored() {
    let mut world = World::new();
    (world.limits.chat_queue, world.limits.total_queue, world.limits.known_chats) = (2, 3, 2);
    let chats = [world.chat(1), world.chat(1), world.chat(1)];
    let node = world.node().await;
    world.store.shut();
    let draft = |chat: usize| world.draft(chats[chat].0, chats[chat].1[0], "x");
    let mut posted = vec![node.post(draft(0)).await, node.post(draft(0)).await];
    assert_eq!(kind(node.send(draft(0)).await), ErrorKind::ServerBusy, "the chat is full");
    posted.push(node.post(draft(1)).await);
    assert_eq!(kind(node.send(draft(1)).await), ErrorKind::ServerBusy, "all are full");
    world.store.reopen();
    for sent in posted {
        assert!(sent.await.expect("no panic").is_ok());
    }
    eventually("all is done", || node.api.persist.is_idle()).await;
    assert_eq!(sequence(node.send(draft(2)).await), 1, "idle chats make room");
    assert_eq!(world.store.texts(chats[0].0).len(), 2);
}

#[tokio::test]
async fn who_waits_too_long_is_told_that_nobody_knows_and_is_not_stored_later() {
    let mut world = World::new();
    world.limits.persist_deadline = Duration::from_millis(50);
    let (chat, members) = world.chat(2);
    let node = world.node().await;
    world.store.shut();
    let first = node.post(world.draft(chat, members[0], "under way")).await;
    eventually("the first batch is under way", || world.store.state().head_reads == 1).await;
    let second = node.post(world.draft(chat, members[1], "queued")).await;
    assert_eq!(kind(first.await.expect("no panic")), ErrorKind::Unavailable);
    assert_eq!(kind(second.await.expect("no panic")), ErrorKind::Unavailable);
    world.store.reopen();
    eventually("all is done", || node.api.persist.is_idle()).await;
    assert_eq!(world.store.texts(chat), ["under way"]);
    eventually("what is stored is published", || world.log.sequences(chat) == [1]).await;
}

#[tokio::test]
async fn messages_of_one_call_are_stored_in_their_order_each_with_its_own_outcome() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    let message = |text: &str| {
        let draft = world.draft(chat, members[0], text);
        PersistMessageRequest {
            chat_id: chat.to_string(),
            sender_id: draft.sender.to_string(),
            client_message_id: draft.client_id.to_string(),
            content: text.to_owned(),
            ..PersistMessageRequest::default()
        }
    };
    let call = |messages| node.api.persist_messages(Request::new(PersistMessagesRequest { messages }));
    let mut messages: Vec<_> = (0..40).map(|place| message(&place.to_string())).collect();
    messages[7].content = "x".repeat(4097);
    let trace = |place: usize| format!("00-4bf92f3577b34da6a3ce929d0e0e47{place:02}-00f067aa0ba902b7-01");
    for (place, message) in messages.iter_mut().take(2).enumerate() {
        message.traceparent = trace(place);
    }
    messages.push(messages[3].clone());
    let outcomes = call(messages).await.expect("an answer").into_inner().outcomes;
    let told: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome.outcome.expect("one") {
            Outcome::Stored(stored) => Ok(stored.sequence),
            Outcome::Refused(refused) => Err(refused.code),
        })
        .collect();
    let mut expected: Vec<_> = (1..=40).map(Ok).collect();
    expected.insert(7, Err(tonic::Code::InvalidArgument.into()));
    expected.truncate(40);
    expected.push(Ok(4));
    assert_eq!(told, expected);
    let texts: Vec<_> = (0..40).filter(|place| *place != 7).map(|place| place.to_string()).collect();
    assert_eq!(world.store.texts(chat), texts);
    assert!(world.store.state().commits.len() <= 3, "natural batches, not one call a message");
    eventually("all are on the log", || world.log.records().len() == 39).await;
    let traces: Vec<_> = world.log.records().iter().take(3).map(traceparent).collect();
    assert_eq!(traces, [Some(trace(0)), Some(trace(1)), None], "each message has its own trace");
    for count in [0, 65] {
        let messages = (0..count).map(|_| message("too few, or too many")).collect();
        let status = call(messages).await.expect_err("refused");
        assert_eq!(platform::wire::from_status(&status).kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn what_a_caller_waits_for_no_longer_is_dropped() {
    let world = World::new();
    let (chat, members) = world.chat(2);
    let node = world.node().await;
    world.store.shut();
    let first = node.post(world.draft(chat, members[0], "under way")).await;
    eventually("the first batch is under way", || world.store.state().head_reads == 1).await;
    let draft = world.draft(chat, members[1], "queued");
    let mut request = Request::new(PersistMessageRequest {
        chat_id: chat.to_string(),
        sender_id: draft.sender.to_string(),
        client_message_id: draft.client_id.to_string(),
        content: draft.content.as_str().to_owned(),
        ..PersistMessageRequest::default()
    });
    // The deadline of the call, far below that of the service.
    request.set_timeout(Duration::from_millis(20));
    let status = node.api.persist_message(request).await.expect_err("nobody knows");
    assert_eq!(platform::wire::from_status(&status).kind(), ErrorKind::Unavailable);
    world.store.reopen();
    assert_eq!(sequence(first.await.expect("no panic")), 1);
    eventually("all is done", || node.api.persist.is_idle()).await;
    assert_eq!(world.store.texts(chat), ["under way"]);
}

#[tokio::test]
async fn a_stopping_process_takes_on_nothing_and_says_so_in_the_words_of_the_transport() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    node.process.shut_down().await;
    let request = PersistMessageRequest {
        chat_id: chat.to_string(),
        sender_id: members[0].to_string(),
        client_message_id: uuid::Uuid::nil().to_string(),
        content: "late".to_owned(),
        ..PersistMessageRequest::default()
    };
    let status = node.api.persist_message(Request::new(request)).await.expect_err("refused");
    assert_eq!((status.code(), status.details().len()), (tonic::Code::Unavailable, 0), "another one may be asked");
    assert!(world.store.state().commits.is_empty());
}

/// `sequence_gapless`, `commit_order_is_sequence_order`, `first_occurrence_in_order`: two nodes write to the
/// same chats while the store fails in every way it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequence_gapless_whatever_the_store_does() {
    const SENDS: usize = 400;
    let world = Arc::new(World::new());
    let chats = [world.chat(3), world.chat(3)];
    let nodes = [world.node().await, world.node().await];
    let faults = [Fault::LoseAnswer, Fault::Conflict, Fault::LoseRequest, Fault::NotNow];
    let mut posted = Vec::new();
    for place in 0..SENDS {
        if place % 3 == 0 {
            // Calls that meet nothing lie between: a batch that meets fault upon fault is given up at last, as it should be.
            world.store.fail_next([faults[place / 3 % 4], Fault::Nothing, Fault::Nothing]);
        }
        let (chat, members) = &chats[place % 2];
        let draft = world.draft(*chat, members[place % 3], &place.to_string());
        let node = &nodes[place / 2 % 2];
        posted.push((draft.clone(), node.post(draft.clone()).await));
        if place % 10 == 0 {
            // The same id on the other node, as a client does that lost its connection.
            let other = &nodes[(place / 2 + 1) % 2];
            posted.push((draft.clone(), other.post(draft).await));
        }
    }
    let mut originals = HashSet::new();
    for (draft, sent) in posted {
        let stored = sent.await.expect("no panic").expect("stored");
        let state = world.store.state();
        let message = &state.messages[&(draft.chat, stored.original.sequence)];
        assert_eq!((message.id, message.client_id), (stored.original.id, draft.client_id));
        originals.insert(stored.original.id);
    }
    assert_eq!(originals.len(), SENDS, "each id is one message");
    for (chat, _) in &chats {
        let count = world.store.texts(*chat).len() as u64;
        assert_eq!(count, SENDS as u64 / 2);
        let expected: Vec<u64> = (1..=count).collect();
        eventually("all is on the log, first occurrences in order", || world.log.first_occurrences(*chat) == expected)
            .await;
    }
}
