//! Order: what is passed on, in which order, to whom.

use std::sync::atomic::Ordering;

use domain::{ids::UserId, message::Sequence, ports::event_source::Occurrence};
use proto::{
    events::v1::{ChatCreated, ChatUpdated, envelope},
    messaging::v1::delivery_frame::Push,
    topics::Topic,
};
use ulid::Ulid;

use crate::world::{
    ANNA, BEN, CHAT, MEMBERSHIPS, MESSAGES, World, change, changed, envelope, eventually, message, stored,
};

#[tokio::test]
async fn a_message_goes_to_all_members_in_one_frame_with_its_origin() {
    let world = World::start().await;
    let end = world.log(MESSAGES, [message(1)]);
    world.finished(MESSAGES, end).await;
    let frames = world.gateway.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].user_ids, [ANNA.to_string(), BEN.to_string()]);
    assert_eq!(frames[0].origin_connection, "conn_1");
    assert_eq!(frames[0].gateway_id, world.gateway.id.to_string());
    let Some(Push::Message(push)) = &frames[0].push else { panic!("not a message") };
    assert_eq!((push.sequence, push.content.as_str()), (1, "text 1"));
    assert!(push.client_message_id.is_some());
    world.stop().await;
}

#[tokio::test]
async fn messages_of_a_chat_keep_their_order_over_many_batches_and_members_are_asked_once() {
    let world = World::start().await;
    let mut end = 0;
    for batch in 0..20 {
        end = world.log(MESSAGES, (1..=25).map(|place| message(batch * 25 + place)));
    }
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), (1..=500).collect::<Vec<_>>());
    assert_eq!(world.outside.look_ups.load(Ordering::SeqCst), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_delivery_before_its_commit_is_counted_and_not_measured() {
    let world = World::start().await;
    let mut ahead = message(2);
    if let Some(envelope::Event::MessagePersisted(message)) = &mut ahead.event {
        message.created_at = i64::MAX;
    }
    let end = world.log(MESSAGES, [message(1), ahead]);
    world.finished(MESSAGES, end).await;
    let page = world.process.metrics_text();
    let skewed = r#"messaging_clock_skew_samples_total{source_plane="durability",dest_plane="fanout"} 1"#;
    assert!(page.contains(skewed) && page.contains("fanout_delivery_latency_seconds_count 1"), "{page}");
    world.stop().await;
}

#[tokio::test]
async fn what_a_chat_has_passed_already_is_dropped() {
    let world = World::start().await;
    let end = world.log(MESSAGES, [5, 6, 6, 5, 1, 7].map(message));
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [5, 6, 7]);
    world.stop().await;
}

#[tokio::test]
async fn what_the_log_skipped_is_fetched_from_the_store() {
    let world = World::start().await;
    *world.outside.stored.lock().expect("whole") = (1..=9).map(stored).collect();
    let end = world.log(MESSAGES, [1, 7, 4, 8].map(message));
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [1, 2, 3, 4, 5, 6, 7, 8]);
    world.stop().await;
}

#[tokio::test]
async fn what_a_restore_took_out_of_use_is_no_hole() {
    let world = World::start().await;
    let head = 1 << 20;
    // 2 and 3 came before the restore, which knows of 1 alone; the log skipped the first after it.
    *world.outside.stored.lock().expect("whole") = [1, head + 1, head + 2].map(stored).to_vec();
    *world.outside.gap.lock().expect("whole") = (Sequence(2), Sequence(head));
    let end = world.log(MESSAGES, [1, 2, 3, head + 2].map(message));
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [1, 2, 3, head + 1, head + 2]);
    let metrics = world.process.metrics_text();
    for line in ["fanout_holes_total{status=\"Filled\"} 1\n", "fanout_holes_total{status=\"PassedOver\"} 0\n"] {
        assert!(metrics.contains(line), "no {line}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_hole_that_the_store_has_too_is_passed_over() {
    let world = World::start().await;
    let end = world.log(MESSAGES, [message(1), message(1 << 20)]);
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [1, 1 << 20]);
    world.stop().await;
}

#[tokio::test]
async fn a_removed_member_gets_the_removal_as_the_last_push_of_the_chat() {
    let world = World::start().await;
    let end = world.log(MESSAGES, [message(1)]);
    world.finished(MESSAGES, end).await;
    *world.outside.members.lock().expect("whole") = vec![ANNA];
    let end = world.log(MEMBERSHIPS, [changed(1, change(1, BEN, "removed"))]);
    world.finished(MEMBERSHIPS, end).await;
    let end = world.log(MESSAGES, [message(2)]);
    world.finished(MESSAGES, end).await;
    let for_ben: Vec<_> =
        world.gateway.frames().into_iter().filter(|frame| frame.user_ids.contains(&BEN.to_string())).collect();
    assert!(matches!(&for_ben.last().expect("a frame").push, Some(Push::MemberRemoved(event)) if event.at == 1));
    let removal = for_ben.last().expect("a frame");
    assert_eq!(removal.user_ids, [ANNA.to_string(), BEN.to_string()]);
    assert_eq!(world.gateway.frames().last().expect("a frame").user_ids, [ANNA.to_string()]);
    world.stop().await;
}

#[tokio::test]
async fn a_new_member_is_announced_to_all_and_gets_what_follows() {
    let world = World::start().await;
    let end = world.log(MESSAGES, [message(1)]);
    world.finished(MESSAGES, end).await;
    let carl = UserId(Ulid(13));
    world.outside.members.lock().expect("whole").push(carl);
    world.outside.routes.lock().expect("whole").insert(carl, vec![world.gateway.id.clone()]);
    let mut at_creation = change(2, carl, "added");
    at_creation.at_creation = true;
    let added = changed(1, change(1, carl, "added"));
    let role = changed(3, change(3, carl, "role_changed"));
    let end = world.log(MEMBERSHIPS, [added.clone(), changed(2, at_creation), role, added]);
    world.finished(MEMBERSHIPS, end).await;
    let end = world.log(MESSAGES, [message(2)]);
    world.finished(MESSAGES, end).await;
    let frames = world.gateway.frames();
    assert_eq!(frames.len(), 3, "one push for four events: repeated, silent and at creation are none");
    assert!(matches!(frames[1].push, Some(Push::MemberAdded(_))));
    assert_eq!(frames[1].user_ids.len(), 3);
    assert_eq!(frames[2].user_ids.len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_new_and_a_renamed_chat_are_announced_to_all() {
    let world = World::start().await;
    let chat_id = CHAT.to_string();
    let created = envelope::Event::ChatCreated(ChatCreated {
        chat_id: chat_id.clone(),
        created_by: ANNA.to_string(),
        initial_members: vec![ANNA.to_string(), BEN.to_string()],
        ..ChatCreated::default()
    });
    let updated = envelope::Event::ChatUpdated(ChatUpdated {
        chat_id,
        updated_by: BEN.to_string(),
        updated_at: 7,
        ..ChatUpdated::default()
    });
    let events = [envelope(Topic::ChatsCreated, 1, created), envelope(Topic::ChatsCreated, 2, updated)];
    let end = world.log(MEMBERSHIPS, events);
    world.finished(MEMBERSHIPS, end).await;
    let frames = world.gateway.frames();
    assert!(matches!(&frames[0].push, Some(Push::ChatCreated(event)) if event.user_ids.len() == 2));
    assert!(matches!(&frames[1].push, Some(Push::ChatUpdated(event)) if event.at == 7));
    world.stop().await;
}

#[tokio::test]
async fn a_partition_that_comes_back_begins_anew() {
    let world = World::start().await;
    let end = world.log(MESSAGES, [message(8)]);
    world.finished(MESSAGES, end).await;
    world.outside.occur(Occurrence::Revoked(vec![MESSAGES]));
    world.outside.occur(Occurrence::Assigned(vec![MESSAGES]));
    let end = world.log(MESSAGES, [message(3), message(4)]);
    world.finished(MESSAGES, end).await;
    eventually("passed on", || world.sequences() == [8, 3, 4]).await;
    world.stop().await;
}
