//! The history of a chat, page by page; and what a list shows of it.

use adapters::dynamodb::message_log::MessageLog;
use chatmgmt::config::Limits;
use domain::{
    Clock as _, ErrorKind, Ids as _,
    ids::{ChatId, ClientMessageId, MessageId},
    message::{Content, Sequence, StoredMessage, TEXT},
    ports::{
        MessageLog as _,
        message_log::{Batch, Commit},
    },
    publisher::{Incarnation, PublisherMark, Slot},
};
use platform::clock::{SystemClock, SystemIds};
use proto::messaging::v1::{HistoryItem, LeaveChatRequest, ListChatsRequest, ListMessagesRequest};

use crate::{
    chat_world::{Person, Server, World},
    chats::{create, direct, group, kind},
};

/// Stores that many messages by turns, as ingest does.
async fn talk(world: &World, chat: &str, people: &[&Person], count: u64) -> Vec<StoredMessage> {
    let log = MessageLog::new(world.store.clone());
    let chat: ChatId = chat.parse().expect("an id");
    let mut said = Vec::new();
    for sequence in 1..=count {
        let turn = usize::try_from(sequence).expect("small") % people.len();
        let digits = format!("{:032x}", SystemIds.ulid().0);
        let client_id = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-");
        let message = StoredMessage {
            id: MessageId::new(&SystemIds),
            chat,
            sequence: Sequence(sequence),
            sender: people[turn].id,
            client_id: client_id.parse::<ClientMessageId>().expect("a UUID"),
            content: Content::new(TEXT, &format!("message {sequence}")).expect("valid"),
            created_at: SystemClock.now(),
        };
        let batch = Batch {
            chat,
            token: SystemIds.ulid().to_string(),
            after: Sequence(sequence - 1),
            messages: vec![message.clone()],
            published_through: Sequence(0),
            publisher: PublisherMark::new(Incarnation::new(&SystemIds), Slot(1), chat),
            at: message.created_at,
        };
        let commit = log.commit(&batch).await;
        assert!(matches!(commit, Commit::Committed), "{commit:?}");
        said.push(message);
    }
    said
}

fn ask(chat: &str) -> ListMessagesRequest {
    ListMessagesRequest { chat_id: chat.to_owned(), ..ListMessagesRequest::default() }
}

/// Every page from the first on.
async fn all(server: &Server, by: &Person, first: ListMessagesRequest) -> Vec<Vec<HistoryItem>> {
    let mut client = server.client();
    let (chat_id, limit) = (first.chat_id.clone(), first.limit);
    let mut pages = Vec::new();
    let mut request = first;
    loop {
        let page = client.list_messages(by.ask(request)).await.expect("a page").into_inner();
        pages.push(page.data);
        let pagination = page.pagination.expect("pagination");
        assert_eq!(pagination.has_more, pagination.next_cursor.is_some());
        let Some(cursor) = pagination.next_cursor else { return pages };
        request = ListMessagesRequest { limit, cursor: Some(cursor), ..ask(&chat_id) };
    }
}

fn sequences(pages: &[Vec<HistoryItem>]) -> Vec<Vec<u64>> {
    pages.iter().map(|page| page.iter().map(|item| item.sequence).collect()).collect()
}

#[tokio::test]
async fn pages_hold_every_message_once_in_either_direction_and_inside_filters() {
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let (ada, ben) = (world.person("Ada"), world.person("Ben"));
    let chat = create(&mut server.client(), &ada, direct(&ben)).await.chat_id;
    let said = talk(&world, &chat, &[&ada, &ben], 10).await;

    let limited = ListMessagesRequest { limit: Some(4), ..ask(&chat) };
    let backward = all(&server, &ada, limited.clone()).await;
    assert_eq!(sequences(&backward), [vec![10, 9, 8, 7], vec![6, 5, 4, 3], vec![2, 1]]);
    let forward = ListMessagesRequest { direction: Some("forward".to_owned()), ..limited.clone() };
    let forward = all(&server, &ada, forward).await;
    assert_eq!(sequences(&forward), [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]);
    let between = ListMessagesRequest { after_sequence: Some(2), before_sequence: Some(9), ..limited.clone() };
    assert_eq!(sequences(&all(&server, &ada, between.clone()).await), [vec![8, 7, 6, 5], vec![4, 3]]);
    let between = ListMessagesRequest { direction: Some("forward".to_owned()), ..between };
    assert_eq!(sequences(&all(&server, &ada, between).await), [vec![3, 4, 5, 6], vec![7, 8]]);
    let exact = ListMessagesRequest { limit: Some(10), ..ask(&chat) };
    assert_eq!(sequences(&all(&server, &ada, exact).await).len(), 1, "no page without messages");
    let none = ListMessagesRequest { after_sequence: Some(10), ..ask(&chat) };
    assert_eq!(sequences(&all(&server, &ada, none).await), [Vec::<u64>::new()]);

    for item in backward.iter().flatten() {
        let message = &said[usize::try_from(item.sequence).expect("small") - 1];
        assert_eq!(item.message_id, message.id.to_string());
        assert_eq!((item.content.as_str(), item.content_type.as_str()), (message.content.as_str(), TEXT));
        assert_eq!(item.created_at.expect("a time").millis, message.created_at.0);
        let own = (message.sender == ada.id).then(|| message.client_id.to_string());
        assert_eq!(item.client_message_id, own, "only on the caller's own messages");
        let name = if message.sender == ada.id { "Ada" } else { "Ben" };
        assert_eq!(item.sender.as_ref().and_then(|sender| sender.display_name.as_deref()), Some(name));
    }
    server.process.shut_down().await;
}

#[tokio::test]
async fn pages_that_cannot_be_are_refused() {
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let (ada, ben) = (world.person("Ada"), world.person("Ben"));
    let mut client = server.client();
    let chat = create(&mut client, &ada, direct(&ben)).await.chat_id;
    talk(&world, &chat, &[&ada], 3).await;
    let first = ListMessagesRequest { limit: Some(1), ..ask(&chat) };
    let page = client.list_messages(ada.ask(first)).await.expect("a page").into_inner();
    let cursor = page.pagination.expect("pagination").next_cursor;
    assert!(cursor.is_some());
    let cases = [
        (
            "a cursor with a filter",
            ListMessagesRequest { cursor: cursor.clone(), after_sequence: Some(1), ..ask(&chat) },
        ),
        (
            "a cursor with the other",
            ListMessagesRequest { cursor: cursor.clone(), before_sequence: Some(1), ..ask(&chat) },
        ),
        ("a cursor turned round", ListMessagesRequest { cursor, direction: Some("forward".to_owned()), ..ask(&chat) }),
        ("no cursor of ours", ListMessagesRequest { cursor: Some("x".to_owned()), ..ask(&chat) }),
        ("no direction", ListMessagesRequest { direction: Some("up".to_owned()), ..ask(&chat) }),
        ("an empty page", ListMessagesRequest { limit: Some(0), ..ask(&chat) }),
        ("a page too long", ListMessagesRequest { limit: Some(101), ..ask(&chat) }),
    ];
    for (name, request) in cases {
        let result = client.list_messages(ada.ask(request)).await;
        assert_eq!(kind(result), Some(ErrorKind::InvalidArgument), "{name}");
    }
    server.process.shut_down().await;
}

#[tokio::test]
async fn who_left_reads_nothing_any_more_and_who_stays_reads_what_they_said() {
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let (ada, ben, eve) = (world.person("Ada"), world.person("Ben"), world.person("Eve"));
    let mut client = server.client();
    let chat = create(&mut client, &ada, group(std::slice::from_ref(&ben))).await.chat_id;
    talk(&world, &chat, &[&ada, &ben], 4).await;
    assert_eq!(kind(client.list_messages(eve.ask(ask(&chat))).await), Some(ErrorKind::NotAMember));
    client.leave_chat(ben.ask(LeaveChatRequest { chat_id: chat.clone() })).await.expect("left");
    assert_eq!(kind(client.list_messages(ben.ask(ask(&chat))).await), Some(ErrorKind::NotAMember));
    assert_eq!(sequences(&all(&server, &ada, ask(&chat)).await), [vec![4, 3, 2, 1]]);
    server.process.shut_down().await;
}

#[tokio::test]
async fn a_message_lifts_its_chat_to_the_top_of_the_list() {
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let (ada, ben, eve) = (world.person("Ada"), world.person("Ben"), world.person("Eve"));
    let mut client = server.client();
    let first = create(&mut client, &ada, direct(&ben)).await.chat_id;
    let second = create(&mut client, &ada, direct(&eve)).await.chat_id;
    let said = talk(&world, &first, &[&ada, &ben], 3).await;
    let shown = client.list_chats(ada.ask(ListChatsRequest::default())).await.expect("a list").into_inner().data;
    assert_eq!(shown.iter().map(|chat| chat.chat_id.as_str()).collect::<Vec<_>>(), [first.as_str(), second.as_str()]);
    let last = shown[0].last_message.as_ref().expect("the last message");
    assert_eq!((last.message_id.as_str(), last.sequence), (&*said[2].id.to_string(), 3));
    assert_eq!((last.sender_id.as_str(), last.content_preview.as_str()), (&*said[2].sender.to_string(), "message 3"));
    assert_eq!(shown[0].updated_at, last.created_at);
    assert_eq!((shown[0].current_sequence, shown[0].pending_ack_count), (3, 3));
    server.process.shut_down().await;
}
