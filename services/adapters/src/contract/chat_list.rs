//! Contract of `ChatList`: heads, last messages and watermarks of many chats.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use domain::{
    Millis,
    ids::{ChatId, MessageId},
    message::Sequence,
    ports::{ChatList as _, Chats as _, chat_list::LastMessage, chats::DirectChat},
};
use platform::clock::SystemIds;

use super::On;
use super::chats::{World, cause, user, users};
use crate::dynamodb::{chat_list::ChatList, layout::Table};

async fn a_listed_chat_has_its_head_its_last_message_and_the_members_watermark(on: On) {
    let world = World::start(on).await;
    let (ada, ben) = (user(), user());
    let list = ChatList::new(world.store.clone(), Arc::new(SystemIds));
    let answer = world.chats.create_direct(ChatId::new(&SystemIds), ben, &cause(ada)).await.expect("created");
    let DirectChat::Created(chat) = answer else { panic!("{answer:?}") };

    assert_eq!(list.direct(ben, ada).await.expect("read").as_ref(), Some(&chat));
    assert_eq!(list.direct(ben, user()).await.expect("read"), None);
    let empty = list.chat(ben, chat.id).await.expect("read").expect("there");
    assert_eq!((&empty.chat, empty.other, empty.head, &empty.last), (&chat, Some(ada), Sequence(0), &None));
    assert_eq!((empty.acked, empty.pending_ack_count(), empty.updated_at()), (None, 0, chat.updated_at));

    let newest = LastMessage {
        id: MessageId::new(&SystemIds),
        sender: ada,
        created_at: Millis(1_999_999_999_999),
        preview: "see you".to_owned(),
    };
    let (text, number) = (AttributeValue::S, AttributeValue::N);
    world
        .store
        .client
        .update_item()
        .table_name(world.store.table(Table::ChatCounters))
        .key("chat_id", text(chat.id.to_string()))
        .update_expression(
            "SET sequence_counter = :head, last_message_id = :id, last_sender_id = :sender, \
             last_message_at = :at, last_message_preview = :preview",
        )
        .expression_attribute_values(":head", number("12".to_owned()))
        .expression_attribute_values(":id", text(newest.id.to_string()))
        .expression_attribute_values(":sender", text(ada.to_string()))
        .expression_attribute_values(":at", number(newest.created_at.to_string()))
        .expression_attribute_values(":preview", text(newest.preview.clone()))
        .send()
        .await
        .expect("updated");
    world
        .store
        .client
        .put_item()
        .table_name(world.store.table(Table::DeliveryState))
        .item("user_id", text(ben.to_string()))
        .item("chat_id", text(chat.id.to_string()))
        .item("last_acked_sequence", number("10".to_owned()))
        .send()
        .await
        .expect("put");

    for listed in [
        list.chat(ben, chat.id).await.expect("read").expect("there"),
        list.chats(ben, &[chat.id]).await.expect("read").remove(0),
    ] {
        assert_eq!((listed.head, listed.last.as_ref()), (Sequence(12), Some(&newest)));
        assert_eq!((listed.acked, listed.pending_ack_count()), (Some(Sequence(10)), 2));
        assert_eq!(listed.updated_at(), newest.created_at);
    }
    assert_eq!(list.chat(ada, chat.id).await.expect("read").expect("there").acked, None, "a watermark is personal");
}

async fn more_chats_than_one_batch_holds_are_all_listed(on: On) {
    let world = World::start(on).await;
    let owner = user();
    let list = ChatList::new(world.store.clone(), Arc::new(SystemIds));
    let mut made = Vec::new();
    for _ in 0..75 {
        made.push(world.group(owner, &users(1)).await);
    }
    let unknown = ChatId::new(&SystemIds);
    let asked: Vec<ChatId> = made.iter().copied().chain([unknown]).collect();
    let mut listed: Vec<ChatId> =
        list.chats(owner, &asked).await.expect("read").iter().map(|listed| listed.chat.id).collect();
    listed.sort();
    made.sort();
    assert_eq!(listed, made);
    assert_eq!(list.chat(owner, unknown).await.expect("read"), None);
}

on_all_systems! {
    a_listed_chat_has_its_head_its_last_message_and_the_members_watermark,
    more_chats_than_one_batch_holds_are_all_listed,
}
