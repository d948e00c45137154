//! Sync, heads and delivery acknowledgements, as gateway calls them.

use domain::{
    ErrorKind,
    ids::{ChatId, UserId},
    message::Content,
};
use proto::messaging::v1::{
    AckDeliveryRequest, HeadsRequest, PersistMessageRequest, SyncMessagesRequest, SyncMessagesResponse,
    ingest_server::Ingest as _,
};
use tonic::Request;

use crate::world::{Node, World};

fn error_kind(status: &tonic::Status) -> ErrorKind {
    platform::wire::from_status(status).kind()
}

async fn page(
    node: &Node,
    chat: ChatId,
    user: UserId,
    after: u64,
    limit: u32,
) -> Result<SyncMessagesResponse, tonic::Status> {
    let (chat_id, user_id) = (chat.to_string(), user.to_string());
    let request = SyncMessagesRequest { chat_id, user_id, after_sequence: after, limit };
    node.api.sync_messages(Request::new(request)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_page_is_contiguous_says_whether_there_is_more_and_shows_ones_own_ids() {
    let world = World::new();
    let (chat, members) = world.chat(2);
    let node = world.node().await;
    for place in 0..5 {
        node.send(world.draft(chat, members[place % 2], "x")).await.expect("stored");
    }
    let page = async |after, limit, user| page(&node, chat, user, after, limit).await;
    let first = page(1, 3, members[0]).await.expect("a page");
    let sequences: Vec<_> = first.messages.iter().map(|item| item.sequence).collect();
    assert_eq!((sequences.as_slice(), first.has_more), (&[2, 3, 4][..], true));
    let own: Vec<_> = first.messages.iter().map(|item| item.client_message_id.is_some()).collect();
    assert_eq!(own, [false, true, false]);
    let last = page(4, 3, members[0]).await.expect("a page");
    assert_eq!((last.messages.len(), last.has_more), (1, false));
    let past = page(5, 3, members[0]).await.expect("a page");
    assert_eq!((past.messages.len(), past.has_more), (0, false));
    assert_eq!(error_kind(&page(0, 3, world.user()).await.expect_err("refused")), ErrorKind::NotAMember);
    assert_eq!(error_kind(&page(0, 501, members[0]).await.expect_err("refused")), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn behind_a_gap_there_is_more_only_when_there_is_a_message() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    for _ in 0..3 {
        node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    }
    let top = world.store.raise(chat, 1 << 20).0;
    let page = async |after, limit| {
        let page = page(&node, chat, members[0], after, limit).await.expect("a page");
        (page.messages.iter().map(|item| item.sequence).collect::<Vec<_>>(), page.has_more)
    };
    assert_eq!(page(1, 2).await, (vec![2, 3], false));
    assert_eq!(page(3, 9).await, (vec![], false));
    assert_eq!(page(700, 9).await, (vec![], false), "who was given what is lost");
    assert_eq!(node.send(world.draft(chat, members[0], "x")).await.expect("stored").original.sequence.0, top + 1);
    assert_eq!(page(700, 9).await, (vec![top + 1], false));
    assert_eq!(page(2, 1).await, (vec![3], true));
}

#[tokio::test]
async fn a_page_stays_within_256_kilobytes_of_json() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    for _ in 0..70 {
        let mut draft = world.draft(chat, members[0], "x");
        draft.content = Content::new("", &"\"".repeat(4096)).expect("valid");
        node.send(draft).await.expect("stored");
    }
    let page = page(&node, chat, members[0], 0, 500).await.expect("a page");
    assert!(page.has_more);
    assert_eq!(page.messages.len(), 31);
}

#[tokio::test]
async fn heads_name_the_chats_one_is_not_in() {
    let world = World::new();
    let (mine, members) = world.chat(1);
    let (theirs, _) = world.chat(1);
    let node = world.node().await;
    node.send(world.draft(mine, members[0], "x")).await.expect("stored");
    let chat_ids = vec![mine.to_string(), theirs.to_string()];
    let request = HeadsRequest { user_id: members[0].to_string(), chat_ids };
    let heads = node.api.heads(Request::new(request)).await.expect("heads").into_inner();
    assert_eq!((heads.chats[0].chat_id.clone(), heads.chats[0].current_sequence), (mine.to_string(), 1));
    assert_eq!(heads.not_member, [theirs.to_string()]);
    let chat_ids = vec![mine.to_string(); 51];
    let request = HeadsRequest { user_id: members[0].to_string(), chat_ids };
    assert_eq!(
        error_kind(&node.api.heads(Request::new(request)).await.expect_err("refused")),
        ErrorKind::InvalidArgument
    );
}

async fn acknowledge(node: &Node, chat: String, user: String, acked: u64, read: Option<u64>) -> Result<u64, ErrorKind> {
    let request =
        AckDeliveryRequest { chat_id: chat, user_id: user, last_acked_sequence: acked, last_read_sequence: read };
    match node.api.ack_delivery(Request::new(request)).await {
        Ok(answer) => Ok(answer.into_inner().last_acked_sequence),
        Err(status) => Err(error_kind(&status)),
    }
}

#[tokio::test]
async fn acknowledgements_only_rise_and_never_pass_the_head() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    for _ in 0..5 {
        node.send(world.draft(chat, members[0], "x")).await.expect("stored");
    }
    let other = world.node().await;
    let (chat, user) = (chat.to_string(), members[0].to_string());
    // The second node has never seen the chat and reads the head.
    for node in [&node, &other] {
        assert_eq!(acknowledge(node, chat.clone(), user.clone(), 4, Some(2)).await, Ok(4));
        assert_eq!(acknowledge(node, chat.clone(), user.clone(), 3, None).await, Ok(4));
        assert_eq!(acknowledge(node, chat.clone(), user.clone(), 6, None).await, Err(ErrorKind::InvalidSequence));
        assert_eq!(acknowledge(node, chat.clone(), user.clone(), 0, None).await, Err(ErrorKind::InvalidArgument));
        assert_eq!(acknowledge(node, chat.clone(), user.clone(), 3, Some(4)).await, Err(ErrorKind::InvalidArgument));
    }
    assert_eq!(acknowledge(&other, chat, world.user().to_string(), 1, None).await, Err(ErrorKind::NotAMember));
}

#[tokio::test]
async fn a_send_is_checked_again_before_anything_is_stored() {
    let world = World::new();
    let (chat, members) = world.chat(1);
    let node = world.node().await;
    let good = PersistMessageRequest {
        chat_id: chat.to_string(),
        sender_id: members[0].to_string(),
        client_message_id: "EAEFC4D2-d3bf-4d01-abae-4b5b844a7034".to_owned(),
        content_type: "text/plain".to_owned(),
        content: "hello".to_owned(),
        origin_connection: String::new(),
        traceparent: String::new(),
    };
    let bad = [
        (PersistMessageRequest { chat_id: "chat_x".to_owned(), ..good.clone() }, ErrorKind::InvalidArgument),
        (PersistMessageRequest { sender_id: String::new(), ..good.clone() }, ErrorKind::InvalidArgument),
        (PersistMessageRequest { client_message_id: "1".to_owned(), ..good.clone() }, ErrorKind::InvalidArgument),
        (PersistMessageRequest { content_type: "text/html".to_owned(), ..good.clone() }, ErrorKind::InvalidContentType),
        (PersistMessageRequest { content: "x".repeat(4097), ..good.clone() }, ErrorKind::MessageTooLarge),
    ];
    for (request, expected) in bad {
        let status = node.api.persist_message(Request::new(request)).await.expect_err("refused");
        assert_eq!(error_kind(&status), expected);
    }
    assert!(world.store.state().commits.is_empty());
    let stored = node.api.persist_message(Request::new(good.clone())).await.expect("stored").into_inner();
    let again = PersistMessageRequest { client_message_id: good.client_message_id.to_lowercase(), ..good };
    let again = node.api.persist_message(Request::new(again)).await.expect("stored").into_inner();
    assert_eq!((again.message_id, again.is_duplicate), (stored.message_id, true), "ids have no letter case");
}
