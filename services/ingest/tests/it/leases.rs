//! Who publishes what: leases, takeover, clean ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use domain::{
    Millis,
    publisher::{Claim, Incarnation},
};
use tokio::time::Instant;
use ulid::Ulid;

use crate::{
    store::Fault,
    world::{World, Wrong, eventually, sequence},
};

#[tokio::test]
async fn what_a_killed_process_stored_is_published_by_another() {
    let world = World::new();
    let chats = [world.chat(1), world.chat(1)];
    let dead = world.node().await;
    world.log.go_away();
    for _ in 0..3 {
        for (chat, members) in &chats {
            dead.send(world.draft(*chat, members[0], "x")).await.expect("stored");
        }
    }
    dead.kill();
    // What the dead process's producer held dies with it.
    world.log.fail_for_good();
    let alive = world.node().await;
    world.log.come_back();
    let killed = Instant::now();
    for (chat, _) in &chats {
        eventually("the tail is on the log", || world.log.first_occurrences(*chat) == [1, 2, 3]).await;
    }
    assert!(killed.elapsed() < Duration::from_secs(10));
    eventually("the lease is closed", || world.store.state().leases.len() == 1).await;
    let (chat, members) = &chats[0];
    assert_eq!(sequence(alive.send(world.draft(*chat, members[0], "x")).await), 4);
}

#[tokio::test]
async fn what_was_stored_before_a_restore_is_published_over_the_gap() {
    let world = World::new();
    let (before, after) = (world.chat(1), world.chat(1));
    let dead = world.node().await;
    world.log.go_away();
    for (chat, members) in [&before, &after] {
        for _ in 0..2 {
            dead.send(world.draft(*chat, members[0], "x")).await.expect("stored");
        }
    }
    dead.kill();
    world.log.fail_for_good();
    let tops = [before.0, after.0].map(|chat| world.store.raise(chat, 1 << 20).0);
    let alive = world.node().await;
    world.log.come_back();
    // One chat is silent, the other goes on.
    assert_eq!(sequence(alive.send(world.draft(after.0, after.1[0], "x")).await), tops[1] + 1);
    eventually("the tail is on the log", || world.log.first_occurrences(before.0) == [1, 2]).await;
    eventually("both sides are", || world.log.first_occurrences(after.0) == [1, 2, tops[1] + 1]).await;
    eventually("the lease is closed", || world.store.state().leases.len() == 1).await;
    eventually("nothing is left", || alive.metric("durability_chats_behind") == 0.0).await;
}

#[tokio::test]
async fn a_commit_whose_answer_a_killed_process_never_saw_is_published() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let dead = world.node().await;
    world.store.fail_next([Fault::LoseAnswer]);
    world.store.shut();
    let sent = dead.post(world.draft(chat, members[0], "x")).await;
    eventually("it is under way", || world.store.state().head_reads == 1).await;
    dead.kill();
    let _alive = world.node().await;
    world.store.reopen();
    eventually("it is stored and published", || world.log.first_occurrences(chat) == [1]).await;
    sent.abort();
}

#[tokio::test]
async fn a_live_lease_is_never_claimed_so_an_outage_of_the_log_makes_no_duplicates() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let owner = world.node().await;
    let _other = world.node().await;
    world.log.go_away();
    for _ in 0..5 {
        owner.send(world.draft(chat, members[0], "x")).await.expect("stored");
    }
    let until = Instant::now() + world.limits.lease_ttl + Duration::from_millis(500);
    eventually("longer than a lease", || Instant::now() > until).await;
    world.log.come_back();
    eventually("all is on the log", || world.log.sequences(chat).len() >= 5).await;
    assert_eq!(world.log.sequences(chat), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_process_that_lost_its_lease_stores_under_a_new_incarnation() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    let first = world.store.state().commits[0].publisher.incarnation;
    let thief = Claim { by: Incarnation(Ulid(1)), until: Millis(i64::MAX) };
    world.store.state().leases.get_mut(&first).expect("a lease").claim = Some(thief);
    eventually("a new incarnation", || world.store.state().leases.len() == 2).await;
    assert_eq!(sequence(node.send(world.draft(chat, members[0], "x")).await), 2);
    let second = world.store.state().commits[1].publisher.incarnation;
    assert_ne!(first, second);
    assert!((node.metric("durability_leases_lost_total") - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn an_unknown_outcome_outlives_the_lease_it_was_asked_under() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    world.store.fail_next([Fault::LoseAnswer; 100]);
    let sent = node.post(world.draft(chat, members[0], "x")).await;
    eventually("it is stored", || !world.store.state().commits.is_empty()).await;
    let first = world.store.state().commits[0].publisher.incarnation;
    let thief = Claim { by: Incarnation(Ulid(1)), until: Millis(i64::MAX) };
    world.store.state().leases.get_mut(&first).expect("a lease").claim = Some(thief);
    let stored = sent.await.expect("no panic").expect("stored");
    assert!(!stored.is_duplicate);
    assert_eq!(world.store.texts(chat), ["x"]);
    eventually("it is on the log", || world.log.sequences(chat) == [1]).await;
}

#[tokio::test]
async fn a_clean_stop_leaves_no_lease_behind() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    node.process.shut_down().await;
    assert!(world.store.state().leases.is_empty());
    assert_eq!(world.log.sequences(chat), [1]);
}

#[tokio::test]
async fn a_stop_while_the_log_is_away_leaves_the_rest_to_others_at_once() {
    let mut world = World::new();
    world.limits.lease_ttl = Duration::from_hours(1);
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    world.log.go_away();
    node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    node.process.shut_down().await;
    assert_eq!(world.store.state().leases.len(), 1);
    world.log.fail_for_good();
    world.log.come_back();
    let _next = world.node().await;
    eventually("the rest is on the log, although the lease was long", || world.log.sequences(chat) == [1]).await;
}

#[tokio::test]
async fn clocks_that_are_wrong_take_no_lease_from_the_living() {
    const HOUR: i64 = 3_600_000;
    let world = World::new();
    let (chat, members) = world.chat(1);
    let nodes = [world.node_off_by(-HOUR).await, world.node().await, world.node_off_by(HOUR).await];
    let until = Instant::now() + 2 * world.limits.lease_ttl;
    eventually("longer than two leases", || Instant::now() > until).await;
    for (node, expected) in nodes.iter().zip(1..) {
        assert!(node.metric("durability_leases_lost_total") == 0.0);
        assert_eq!(sequence(node.send(world.draft(chat, members[0], "x")).await), expected);
    }
    assert_eq!(world.store.state().leases.len(), 3);
}

#[tokio::test]
async fn a_clock_that_is_put_right_hides_nothing_and_loses_no_lease() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let clock = Arc::new(Wrong(AtomicI64::new(20 * 60_000)));
    let node = world.node_by(clock.clone()).await;
    let living = world.node().await;
    node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    clock.0.store(0, Ordering::Relaxed);
    let until = Instant::now() + 2 * world.limits.lease_ttl;
    eventually("longer than two leases", || Instant::now() > until).await;
    assert!(node.metric("durability_leases_lost_total") == 0.0, "it is renewed, and all can see that");
    world.log.go_away();
    node.send(world.draft(chat, members[0], "y")).await.expect("stored");
    node.kill();
    world.log.fail_for_good();
    world.log.come_back();
    eventually("the tail is on the log", || world.log.first_occurrences(chat) == [1, 2]).await;
    drop(living);
}

#[tokio::test]
async fn clocks_that_are_wrong_hide_nothing_that_a_dead_process_left() {
    const HOUR: i64 = 3_600_000;
    for (of_the_dead, of_the_living) in [(HOUR, 0), (0, -HOUR), (-HOUR, HOUR)] {
        let world = World::new();
        let (chat, members) = world.chat(1);
        let dead = world.node_off_by(of_the_dead).await;
        world.log.go_away();
        dead.send(world.draft(chat, members[0], "x")).await.expect("stored");
        dead.kill();
        world.log.fail_for_good();
        world.log.come_back();
        let _alive = world.node_off_by(of_the_living).await;
        eventually("the tail is on the log", || world.log.sequences(chat) == [1]).await;
    }
}
