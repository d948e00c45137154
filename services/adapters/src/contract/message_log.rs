//! `MessageLog`: a batch is stored whole and once, or not at all and for a stated reason.

use domain::{
    message::Sequence,
    ports::{
        MessageLog,
        message_log::{Cancelled, Commit, Head, Original, Verdict},
    },
};

use super::World;

pub(crate) async fn run(world: &World, log: &dyn MessageLog) {
    a_batch_moves_the_head_and_marks_the_chat(world, log).await;
    the_same_request_again_is_stored_once(world, log).await;
    a_lost_race_tells_the_head(world, log).await;
    a_used_client_id_tells_the_original(world, log).await;
    who_is_not_a_member_is_named(world, log).await;
    a_taken_place_is_told_from_a_lost_race(world, log).await;
    an_unknown_chat_has_no_head(world, log).await;
    a_full_batch_fits(world, log).await;
}

fn cancelled(commit: Commit) -> Cancelled {
    let Commit::Cancelled(reasons) = commit else { unreachable!("not cancelled: {commit:?}") };
    reasons
}

async fn a_batch_moves_the_head_and_marks_the_chat(world: &World, log: &dyn MessageLog) {
    let (alice, bob) = (world.user(), world.user());
    let chat = world.chat(&[alice, bob]).await;
    let before = log.head(chat).await.expect("read");
    assert_eq!(before, Some(Head { sequence: Sequence(0), published_through: Sequence(0), publisher: None }));

    let mut batch = world.batch(vec![world.message(chat, alice, 1), world.message(chat, bob, 2)]);
    assert!(matches!(log.commit(&batch).await, Commit::Committed));
    let publisher = Some(batch.publisher);
    let expected = Head { sequence: Sequence(2), published_through: Sequence(0), publisher };
    assert_eq!(log.head(chat).await.expect("read"), Some(expected));
    assert_eq!(log.marked(batch.publisher).await.expect("read"), [chat]);

    let old = batch.publisher;
    batch = world.batch(vec![world.message(chat, alice, 3)]);
    batch.published_through = Sequence(2);
    assert!(matches!(log.commit(&batch).await, Commit::Committed));
    assert_eq!(log.head(chat).await.expect("read").expect("a head").published_through, Sequence(2));
    assert!(log.marked(old).await.expect("read").is_empty());
}

async fn the_same_request_again_is_stored_once(world: &World, log: &dyn MessageLog) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    let batch = world.batch(vec![world.message(chat, alice, 1)]);
    for _ in 0..2 {
        assert!(matches!(log.commit(&batch).await, Commit::Committed));
    }
    assert_eq!(log.head(chat).await.expect("read").expect("a head").sequence, Sequence(1));
}

async fn a_lost_race_tells_the_head(world: &World, log: &dyn MessageLog) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    let won = world.batch(vec![world.message(chat, alice, 1)]);
    assert!(matches!(log.commit(&won).await, Commit::Committed));
    let lost = world.batch(vec![world.message(chat, alice, 1)]);
    let reasons = cancelled(log.commit(&lost).await);
    let head = Head { sequence: Sequence(1), published_through: Sequence(0), publisher: Some(won.publisher) };
    assert_eq!(reasons.counter, Verdict::Failed(Some(head)));
    assert_eq!(reasons.keys, [Verdict::Nothing]);
}

async fn a_used_client_id_tells_the_original(world: &World, log: &dyn MessageLog) {
    let (alice, bob) = (world.user(), world.user());
    let chat = world.chat(&[alice, bob]).await;
    let first = world.message(chat, alice, 1);
    assert!(matches!(log.commit(&world.batch(vec![first.clone()])).await, Commit::Committed));

    let mut again = world.message(chat, alice, 3);
    again.client_id = first.client_id;
    let reasons = cancelled(log.commit(&world.batch(vec![world.message(chat, bob, 2), again])).await);
    let original = Original { id: first.id, sequence: Sequence(1), created_at: first.created_at };
    assert_eq!(reasons.keys, [Verdict::Nothing, Verdict::Failed(original)]);

    assert_eq!(log.original(chat, alice, first.client_id).await.expect("read"), Some(original));
    assert_eq!(log.original(chat, bob, first.client_id).await.expect("read"), None);

    let mut theirs = world.message(chat, bob, 2);
    theirs.client_id = first.client_id;
    assert!(matches!(log.commit(&world.batch(vec![theirs])).await, Commit::Committed), "ids are a sender's own");
}

async fn who_is_not_a_member_is_named(world: &World, log: &dyn MessageLog) {
    let (alice, stranger) = (world.user(), world.user());
    let chat = world.chat(&[alice]).await;
    let batch = world.batch(vec![world.message(chat, alice, 1), world.message(chat, stranger, 2)]);
    let reasons = cancelled(log.commit(&batch).await);
    assert_eq!(reasons.members, [Verdict::Nothing, Verdict::Failed(())]);
    assert_eq!(log.head(chat).await.expect("read").expect("a head").sequence, Sequence(0), "all or nothing");
}

async fn a_taken_place_is_told_from_a_lost_race(world: &World, log: &dyn MessageLog) {
    let alice = world.user();
    let chat = world.chat(&[alice]).await;
    world.put(&world.message(chat, alice, 1)).await;
    let reasons = cancelled(log.commit(&world.batch(vec![world.message(chat, alice, 1)])).await);
    assert_eq!(reasons.places, [Verdict::Failed(())]);
    assert_eq!(reasons.counter, Verdict::Nothing);
}

async fn an_unknown_chat_has_no_head(world: &World, log: &dyn MessageLog) {
    let alice = world.user();
    let chat = world.message(world.chat(&[]).await, alice, 1).chat;
    let nowhere = domain::ids::ChatId(ulid_next(chat));
    assert_eq!(log.head(nowhere).await.expect("read"), None);
    let reasons = cancelled(log.commit(&world.batch(vec![world.message(nowhere, alice, 1)])).await);
    assert_eq!(reasons.counter, Verdict::Failed(None));
    assert_eq!(reasons.members, [Verdict::Failed(())]);
}

async fn a_full_batch_fits(world: &World, log: &dyn MessageLog) {
    let members: Vec<_> = (0..domain::limits::BATCH_MESSAGES).map(|_| world.user()).collect();
    let chat = world.chat(&members).await;
    let messages = members.iter().zip(1..).map(|(member, sequence)| {
        let mut message = world.message(chat, *member, sequence);
        message.content = domain::message::Content::new("", &"é".repeat(2048)).expect("valid");
        message
    });
    assert!(matches!(log.commit(&world.batch(messages.collect())).await, Commit::Committed));
}

fn ulid_next(chat: domain::ids::ChatId) -> ulid::Ulid {
    ulid::Ulid(chat.0.0 ^ 1)
}
