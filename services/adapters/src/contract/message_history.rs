//! `MessageHistory`: pages are contiguous, and only a hole that stays is passed over.

use std::time::Duration;

use domain::{
    message::{Sequence, StoredMessage},
    ports::MessageHistory,
};

use super::World;

pub(crate) async fn run(world: &World, history: &dyn MessageHistory) {
    pages_go_up_and_down(world, history).await;
    a_page_ends_at_a_hole_and_the_next_waits_until_it_is_filled(world, history).await;
    a_hole_that_stays_is_passed_over(world, history).await;
}

fn sequences(page: &[StoredMessage]) -> Vec<u64> {
    page.iter().map(|message| message.sequence.0).collect()
}

async fn pages_go_up_and_down(world: &World, history: &dyn MessageHistory) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    assert!(history.after(chat, Sequence(0), 10).await.expect("read").is_empty());
    assert!(history.before(chat, None, 10).await.expect("read").is_empty());
    let mut stored = Vec::new();
    for sequence in 1..=12 {
        let message = world.message(chat, alice, sequence);
        world.put(&message).await;
        stored.push(message);
    }
    assert_eq!(history.after(chat, Sequence(0), 100).await.expect("read"), stored);
    assert_eq!(sequences(&history.after(chat, Sequence(2), 3).await.expect("read")), [3, 4, 5]);
    assert!(history.after(chat, Sequence(12), 3).await.expect("read").is_empty());
    assert_eq!(sequences(&history.before(chat, None, 2).await.expect("read")), [12, 11]);
    assert_eq!(sequences(&history.before(chat, Some(Sequence(3)), 5).await.expect("read")), [2, 1]);
    assert_eq!(sequences(&history.before(chat, Some(Sequence(900)), 1).await.expect("read")), [12]);
}

async fn a_page_ends_at_a_hole_and_the_next_waits_until_it_is_filled(world: &World, history: &dyn MessageHistory) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    for sequence in [1, 2, 4] {
        world.put(&world.message(chat, alice, sequence)).await;
    }
    assert_eq!(sequences(&history.after(chat, Sequence(0), 10).await.expect("read")), [1, 2]);
    assert_eq!(sequences(&history.before(chat, None, 10).await.expect("read")), [4]);

    let late = world.message(chat, alice, 3);
    let fill = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.put(&late).await;
    };
    let (page, ()) = tokio::join!(history.after(chat, Sequence(2), 10), fill);
    assert_eq!(sequences(&page.expect("read")), [3, 4]);
    assert_eq!(sequences(&history.before(chat, Some(Sequence(4)), 10).await.expect("read")), [3, 2, 1]);
}

async fn a_hole_that_stays_is_passed_over(world: &World, history: &dyn MessageHistory) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    for sequence in [1, 3] {
        world.put(&world.message(chat, alice, sequence)).await;
    }
    assert_eq!(sequences(&history.after(chat, Sequence(1), 10).await.expect("read")), [3]);
}
