//! `Heads`: heads of the chats one is in, and nothing of the others.

use domain::{
    ids::ChatId,
    message::Sequence,
    ports::{Heads, MessageLog as _, heads::Standing},
};
use platform::clock::SystemIds;

use super::World;
use crate::dynamodb::message_log::MessageLog;

pub(crate) async fn run(world: &World, heads: &dyn Heads) {
    let (alice, bob) = (world.user(), world.user());
    let (mine, theirs) = (world.chat(&[alice]).await, world.chat(&[bob]).await);
    let nowhere = ChatId::new(&SystemIds);
    let log = MessageLog::new(world.store.clone());
    for chat in [(mine, alice), (theirs, bob)] {
        log.commit(&world.batch(vec![world.message(chat.0, chat.1, 1)])).await;
    }
    let found = heads.heads(alice, &[nowhere, mine, theirs, mine]).await.expect("read");
    let standing = |chat, head: Option<u64>| Standing { chat, head: head.map(Sequence) };
    assert_eq!(found, [standing(nowhere, None), standing(mine, Some(1)), standing(theirs, None)]);

    let mut many = vec![mine];
    many.extend((1..domain::limits::HEADS_CHATS).map(|_| ChatId::new(&SystemIds)));
    assert_eq!(heads.heads(alice, &many).await.expect("read").len(), domain::limits::HEADS_CHATS);
    assert!(heads.heads(alice, &[]).await.expect("read").is_empty());
}
