//! `MessageHistory`: pages are contiguous, and only a hole that stays is passed over.

use std::time::Duration;

use domain::{
    ids::ChatId,
    message::{Sequence, StoredMessage},
    ports::MessageHistory,
};

use super::World;

pub(crate) async fn run(world: &World, history: &dyn MessageHistory) {
    pages_go_up_and_down(world, history).await;
    a_page_ends_at_a_hole_and_the_next_waits_until_it_is_filled(world, history).await;
    a_hole_that_stays_is_passed_over(world, history).await;
}

async fn after(history: &dyn MessageHistory, chat: ChatId, after: u64, limit: u32) -> Vec<StoredMessage> {
    let page = history.after(chat, Sequence(after), limit).await.expect("read");
    let last = page.messages.last().map_or(after, |message| message.sequence.0);
    assert_eq!((page.through.0, page.gap), (last, 0), "nobody restored anything");
    page.messages
}

fn sequences(page: &[StoredMessage]) -> Vec<u64> {
    page.iter().map(|message| message.sequence.0).collect()
}

async fn pages_go_up_and_down(world: &World, history: &dyn MessageHistory) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    assert!(after(history, chat, 0, 10).await.is_empty());
    assert!(history.before(chat, None, 10).await.expect("read").is_empty());
    let mut stored = Vec::new();
    for sequence in 1..=12 {
        let message = world.message(chat, alice, sequence);
        world.put(&message).await;
        stored.push(message);
    }
    assert_eq!(after(history, chat, 0, 100).await, stored);
    assert_eq!(sequences(&after(history, chat, 2, 3).await), [3, 4, 5]);
    assert!(after(history, chat, 12, 3).await.is_empty());
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
    assert_eq!(sequences(&after(history, chat, 0, 10).await), [1, 2]);
    assert_eq!(sequences(&history.before(chat, None, 10).await.expect("read")), [4]);

    let late = world.message(chat, alice, 3);
    let fill = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.put(&late).await;
    };
    let (page, ()) = tokio::join!(after(history, chat, 2, 10), fill);
    assert_eq!(sequences(&page), [3, 4]);
    assert_eq!(sequences(&history.before(chat, Some(Sequence(4)), 10).await.expect("read")), [3, 2, 1]);
}

async fn a_hole_that_stays_is_passed_over(world: &World, history: &dyn MessageHistory) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    for sequence in [1, 3] {
        world.put(&world.message(chat, alice, sequence)).await;
    }
    assert_eq!(sequences(&after(history, chat, 1, 10).await), [3]);
}
