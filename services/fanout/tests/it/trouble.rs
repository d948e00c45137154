//! Trouble: dependencies that are away, gateways that do not take frames, records that nobody can read.

use std::{sync::atomic::Ordering, time::Duration};

use domain::{
    ids::UserId,
    ports::event_source::{Occurrence, Partition},
};
use fanout::config::Limits;
use proto::events::v1::Envelope;

use crate::{
    gateway::{Answers, Gateway},
    world::{ANNA, BEN, MEMBERSHIPS, MESSAGES, World, change, changed, eventually, limits, message, sequences, stored},
};

#[tokio::test]
async fn without_the_cache_a_partition_is_paused_and_goes_on_without_a_loss() {
    let world = World::start().await;
    world.outside.cache_is_away.store(true, Ordering::SeqCst);
    world.log(MESSAGES, [message(1), message(2)]);
    eventually("paused", || world.outside.paused.lock().expect("whole").contains(&MESSAGES)).await;
    let end = world.log(MESSAGES, [message(3)]);
    assert_eq!(world.outside.committed(MESSAGES), None);
    assert!(world.gateway.frames().is_empty());
    world.outside.cache_is_away.store(false, Ordering::SeqCst);
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [1, 2, 3]);
    assert!(world.outside.paused.lock().expect("whole").is_empty());
    world.stop().await;
}

#[tokio::test]
async fn an_offset_stays_before_a_record_that_waits_for_the_store() {
    let world = World::start().await;
    *world.outside.stored.lock().expect("whole") = (1..=5).map(stored).collect();
    let first = world.log(MESSAGES, [message(1)]);
    world.finished(MESSAGES, first).await;
    world.outside.store_is_away.store(true, Ordering::SeqCst);
    let end = world.log(MESSAGES, [message(2), message(5), message(6)]);
    world.finished(MESSAGES, first + 1).await;
    eventually("paused", || world.outside.paused.lock().expect("whole").contains(&MESSAGES)).await;
    assert_eq!(world.sequences(), [1, 2]);
    assert_eq!(world.outside.committed(MESSAGES), Some(first + 1));
    world.outside.store_is_away.store(false, Ordering::SeqCst);
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [1, 2, 3, 4, 5, 6]);
    world.stop().await;
}

#[tokio::test]
async fn the_lag_of_a_partition_is_shown_as_long_as_it_is_ours() {
    let other = Partition { number: 7, ..MESSAGES };
    let world = World::start().await;
    *world.outside.lag.lock().expect("whole") = vec![(MESSAGES, 12), (MEMBERSHIPS, 0), (other, 5)];
    let shown = || {
        let page = world.process.metrics_text();
        let mut lines: Vec<_> = page.lines().filter(|line| line.starts_with("fanout_consumer_lag{")).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    let both = r#"fanout_consumer_lag{topic="memberships.changed",partition="0"} 0
fanout_consumer_lag{topic="messages.persisted",partition="0"} 12"#;
    eventually("the lag of both", || shown() == both).await;
    world.outside.occur(Occurrence::Revoked(vec![MESSAGES]));
    eventually("one partition's", || shown() == both.lines().next().unwrap_or_default()).await;
    world.stop().await;
}

#[tokio::test]
async fn what_a_stopping_process_has_begun_reaches_its_gateways() {
    let world = World::start().await;
    let first = world.log(MESSAGES, [message(1)]);
    world.finished(MESSAGES, first).await;
    world.outside.is_held.send_replace(true);
    let asked = world.outside.asked.load(Ordering::SeqCst);
    let end = world.log(MESSAGES, [message(2), message(3)]);
    eventually("under way", || world.outside.asked.load(Ordering::SeqCst) > asked).await;
    let go_on = async {
        world.process.stopping().await;
        // Time for all that ends at once.
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.outside.is_held.send_replace(false);
    };
    tokio::join!(world.process.shut_down(), go_on);
    assert_eq!(world.sequences(), [1, 2, 3]);
    assert_eq!(world.outside.committed(MESSAGES), Some(end));
    world.stop().await;
}

#[tokio::test]
async fn records_that_nobody_can_read_become_dead_letters_and_the_rest_goes_on() {
    let world = World::start().await;
    let unknown = Envelope { event: None, ..message(9) };
    let mut newer = message(2);
    newer.event_version = 9;
    let values = vec![
        b"garbage".to_vec(),
        prost::Message::encode_to_vec(&message(1)),
        prost::Message::encode_to_vec(&unknown),
        prost::Message::encode_to_vec(&newer),
    ];
    let end = world.log_bytes(MESSAGES, values);
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [1, 2]);
    let letters = world.outside.letters.lock().expect("whole").clone();
    assert_eq!(
        letters.iter().map(|letter| (letter.record.offset, letter.attempts)).collect::<Vec<_>>(),
        [(0, 1), (2, 1)]
    );
    assert_eq!(letters[1].reason, "an unknown event type");
    world.stop().await;
}

#[tokio::test]
async fn a_record_that_fails_by_a_fault_three_times_becomes_a_dead_letter() {
    let world = World::start().await;
    world.outside.store_is_broken.store(true, Ordering::SeqCst);
    let end = world.log(MESSAGES, [message(1)]);
    world.finished(MESSAGES, end).await;
    let letters = world.outside.letters.lock().expect("whole").clone();
    assert_eq!(letters.iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [3]);
    world.outside.store_is_broken.store(false, Ordering::SeqCst);
    let end = world.log(MESSAGES, [message(2)]);
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [2]);
    world.stop().await;
}

#[tokio::test]
async fn a_record_at_fault_makes_no_dead_letters_of_those_beside_it() {
    let world = World::start().await;
    let culprit = UserId(ulid::Ulid::from(99_u128));
    *world.outside.culprit.lock().expect("whole") = Some(culprit);
    let guilty = changed(1, change(1, culprit, "removed"));
    // While the first attempt waits, the others come together.
    world.outside.cache_is_away.store(true, Ordering::SeqCst);
    let end = world.log(MESSAGES, [message(1), message(2)]);
    let changes = world.log(MEMBERSHIPS, [guilty, changed(2, change(2, BEN, "added"))]);
    world.outside.cache_is_away.store(false, Ordering::SeqCst);
    world.finished(MESSAGES, end).await;
    world.finished(MEMBERSHIPS, changes).await;
    assert_eq!(world.sequences(), [1, 2]);
    let letters = world.outside.letters.lock().expect("whole").clone();
    let told: Vec<_> =
        letters.iter().map(|letter| (letter.record.partition, letter.record.offset, letter.attempts)).collect();
    assert_eq!(told, [(MEMBERSHIPS, 0, 3)]);
    world.stop().await;
}

#[tokio::test]
async fn users_of_a_gateway_that_takes_nothing_are_named_in_a_later_frame() {
    let world = World::start().await;
    for trouble in [Answers::Full, Answers::Breaks] {
        let before = world.gateway.frames().len();
        world.gateway.answer(trouble);
        let sequence = before as u64 + 100;
        let end = world.log(MESSAGES, [message(sequence)]);
        // The gateway is skipped, not the message.
        world.finished(MESSAGES, end).await;
        world.gateway.answer(Answers::Delivered);
        eventually("named", || {
            let frames = world.gateway.frames();
            frames[before..].iter().any(|frame| frame.owed_user_ids == [ANNA.to_string(), BEN.to_string()])
        })
        .await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_gateway_that_answers_late_gets_every_frame_as_long_as_it_answers() {
    let world = World::with(Limits { delivery_timeout: Duration::from_millis(400), ..limits() }).await;
    world.gateway.answer(Answers::Slowly(Duration::from_millis(20)));
    // One burst keeps it busy for two seconds; in that time others come.
    world.log(MESSAGES, (1..=100).map(message));
    eventually("the first attempt is over", || world.outside.committed(MESSAGES) == Some(100)).await;
    assert!(world.gateway.frames().len() < 90, "it is still busy");
    let end = world.log(MESSAGES, (101..=110).map(message));
    world.finished(MESSAGES, end).await;
    eventually("all came", || world.sequences() == (1..=110).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stays_out_of_reach_is_made_to_tell_its_users_itself() {
    let world = World::with(Limits { gateway_idle: Duration::from_millis(300), ..limits() }).await;
    let forgotten = || world.outside.forgotten.lock().expect("whole").clone();
    world.gateway.answer(Answers::Breaks);
    let mut sequence = 0;
    let begun = std::time::Instant::now();
    while forgotten().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody told it");
        sequence += 1;
        let end = world.log(MESSAGES, [message(sequence)]);
        world.finished(MESSAGES, end).await;
    }
    assert_eq!(forgotten()[0], world.gateway.id);
    world.stop().await;
}

#[tokio::test]
async fn what_a_stopping_fanout_still_owes_is_left_to_the_gateway_to_tell() {
    for trouble in [Answers::Breaks, Answers::Delivered] {
        let world = World::start().await;
        world.gateway.answer(trouble);
        let end = world.log(MESSAGES, [message(1)]);
        world.finished(MESSAGES, end).await;
        let (outside, gateway) = (world.outside.clone(), world.gateway.id.clone());
        world.stop().await;
        let expected = if trouble == Answers::Breaks { vec![gateway] } else { Vec::new() };
        assert_eq!(*outside.forgotten.lock().expect("whole"), expected);
    }
}

#[tokio::test]
async fn when_more_are_owed_than_are_remembered_it_is_everybody() {
    let world = World::with(Limits { owed_users: 1, ..limits() }).await;
    world.gateway.answer(Answers::Full);
    let end = world.log(MESSAGES, [message(1)]);
    world.finished(MESSAGES, end).await;
    world.gateway.answer(Answers::Delivered);
    eventually("told", || world.gateway.frames().iter().any(|frame| frame.is_everybody_owed)).await;
    assert!(world.gateway.frames().iter().all(|frame| frame.owed_user_ids.is_empty()));
    world.stop().await;
}

#[tokio::test]
async fn a_gateway_that_is_gone_costs_no_other_gateway_its_frames() {
    let world = World::start().await;
    let gone = domain::route::GatewayId { address: "127.0.0.1:1".into(), epoch: "1".into() };
    world.outside.routes.lock().expect("whole").insert(BEN, vec![gone]);
    let end = world.log(MESSAGES, [message(1), message(2)]);
    world.finished(MESSAGES, end).await;
    assert_eq!(world.sequences(), [1, 2]);
    assert!(world.gateway.frames().iter().all(|frame| frame.user_ids == [ANNA.to_string()]));
    world.stop().await;
}

#[tokio::test]
async fn routes_of_another_epoch_are_looked_up_once_more() {
    let world = World::start().await;
    let other = Gateway::start(&world.gateways, &world.token).await;
    world.gateway.answer(Answers::Unknown);
    world.log(MESSAGES, [message(1), message(2)]);
    // The routes change when the first answer is on its way.
    world.outside.routes.lock().expect("whole").insert(ANNA, vec![world.gateway.id.clone(), other.id.clone()]);
    let end = world.log(MESSAGES, [message(3)]);
    world.finished(MESSAGES, end).await;
    let mut found = sequences(&other);
    found.sort_unstable();
    assert!(found.contains(&3), "{found:?}");
    assert_eq!(world.outside.committed(MESSAGES), Some(end));
    world.stop().await;
}

#[tokio::test]
async fn a_stopping_fanout_commits_what_it_attempted_and_leaves() {
    let world = World::start().await;
    let end = world.log(MESSAGES, (1..=50).map(message));
    eventually("begun", || !world.gateway.frames().is_empty()).await;
    let outside = world.outside.clone();
    let gateway = world.gateway.clone();
    world.stop().await;
    let committed = outside.committed(MESSAGES).expect("committed");
    assert!(committed <= end);
    assert!(i64::try_from(sequences(&gateway).len()).expect("few") >= committed, "never ahead of the attempt");
}
