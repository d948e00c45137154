//! Two people exchange messages.

use std::time::Duration;

use tests::{
    client::{Client, Event, Options},
    history::{Violations, check_view},
    world::World,
};
use tokio::time::Instant;

const WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn two_people_exchange_messages_and_history_shows_them() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (ana, ben) = (world.client("+12025550100").await?, world.client("+12025550101").await?);
    let mut news = ben.events();
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;

    // Ben's client learns of the chat without asking.
    tokio::time::timeout(WITHIN, async { while !matches!(news.recv().await, Ok(Event::Chat(new)) if new == chat) {} })
        .await?;
    let first = ana.send(&chat, "Meet at the north gate ☕").await?;
    assert_eq!(first.sequence, 1);
    ben.wait_for(&chat, 1, WITHIN).await?;
    ben.send(&chat, "On my way").await?;

    let expected = ["Meet at the north gate ☕", "On my way"];
    for person in [&ana, &ben] {
        let view = person.wait_for(&chat, 2, WITHIN).await?;
        assert_eq!(view.iter().map(|kept| kept.content.as_str()).collect::<Vec<_>>(), expected);
        let history = person.rest().history(&chat).await?;
        assert_eq!(history.iter().map(|item| item.content.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(check_view(&view, &history), Violations::new());
        let own = history.iter().filter(|item| item.client_message_id.is_some());
        assert!(own.into_iter().all(|item| item.sender_id == person.user_id()), "client ids go to their sender only");
    }
    let list = ben.rest().chats().await?;
    assert_eq!(list[0].last_message.as_ref().map(|last| last["content_preview"].clone()), Some("On my way".into()));

    println!("{}", cost(&world, &ana, &ben, &chat).await?);
    ana.stop().await;
    ben.stop().await;
    assert!(world.stop().await?, "it did not end well:\n{}", world.log_end());
    Ok(())
}

/// What a message costs here and now, for whoever reads the output; machines differ, so nothing is asserted.
async fn cost(world: &World, ana: &Client, ben: &Client, chat: &str) -> anyhow::Result<String> {
    let (mut acknowledged, mut shown) = (Vec::new(), Vec::new());
    for number in 0..50 {
        let begun = Instant::now();
        let answer = ana.begin_send(chat, &format!("number {number}")).await?;
        let sent = answer.await??;
        acknowledged.push(begun.elapsed());
        ben.wait_for(chat, usize::try_from(sent.sequence)?, WITHIN).await?;
        shown.push(begun.elapsed());
    }
    acknowledged.sort_unstable();
    shown.sort_unstable();
    Ok(format!(
        "median of 50: acknowledged after {:?}, shown to the other after {:?}; memory with two connected: {} KB",
        acknowledged[25],
        shown[25],
        world.memory_kilobytes()?
    ))
}

#[tokio::test]
async fn who_was_away_gets_all_they_missed() -> anyhow::Result<()> {
    let world = World::start().await?;
    let folder = world.folder().join("ben");
    let options = Options { data: Some(folder), ..Options::quick(world.server()) };
    let (ana, ben) = (world.client("+12025550100").await?, world.client_with("+12025550101", options.clone()).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    ana.send(&chat, "before").await?;
    ben.wait_for(&chat, 1, WITHIN).await?;
    ben.stop().await;
    for number in 0..250 {
        ana.send(&chat, &format!("while away {number}")).await?;
    }
    let second = ana.rest().group("Later", &[]).await;
    assert!(second.is_err(), "a group needs others");

    let ben = Client::resume(options).await?.expect("a login is in the folder");
    let view = ben.wait_for(&chat, 251, WITHIN).await?;
    assert_eq!(check_view(&view, &ana.rest().history(&chat).await?), Violations::new());
    Ok(())
}

#[tokio::test]
async fn a_lost_connection_loses_nothing_and_doubles_nothing() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (ana, ben) = (world.client("+12025550100").await?, world.client("+12025550101").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let mut answers = Vec::new();
    for number in 0..200 {
        answers.push(ana.begin_send(&chat, &format!("message {number}")).await?);
        if number % 40 == 20 {
            ana.drop_connection().await?;
        }
        if number % 60 == 30 {
            ben.drop_connection().await?;
        }
    }
    let mut places = Vec::new();
    for answer in answers {
        places.push(answer.await??.sequence);
    }
    places.sort_unstable();
    assert_eq!(places, (1..=200).collect::<Vec<u64>>(), "each was stored once");
    let history = ana.rest().history(&chat).await?;
    for person in [&ana, &ben] {
        let view = person.wait_for(&chat, 200, WITHIN).await?;
        assert_eq!(check_view(&view, &history), Violations::new());
    }
    assert!(ana.wire().connections() > 1 && ben.wire().connections() > 1);
    println!("wire duplicates: {} and {}", ana.wire().duplicates(), ben.wire().duplicates());
    Ok(())
}
