//! Who may make, see and change chats.

use chatmgmt::config::Limits;
use domain::ErrorKind;
use platform::wire::from_status;
use proto::messaging::v1::{
    AddMemberRequest, Chat, ChatSummary, ChatType, CreateChatRequest, GetChatRequest, LeaveChatRequest,
    ListChatsRequest, MemberRole, RemoveMemberRequest, chats_client::ChatsClient,
};
use tonic::{Status, metadata::MetadataMap, transport::Channel};

use crate::chat_world::{Person, World};

type Client = ChatsClient<Channel>;

pub(crate) fn direct(with: &Person) -> CreateChatRequest {
    CreateChatRequest { r#type: ChatType::Direct.into(), name: None, member_ids: vec![with.id.to_string()] }
}

pub(crate) fn group(others: &[Person]) -> CreateChatRequest {
    CreateChatRequest {
        r#type: ChatType::Group.into(),
        name: Some("Sunday hike".to_owned()),
        member_ids: others.iter().map(|other| other.id.to_string()).collect(),
    }
}

pub(crate) async fn create(client: &mut Client, by: &Person, request: CreateChatRequest) -> Chat {
    client.create_chat(by.ask(request)).await.expect("created").into_inner()
}

pub(crate) async fn add(
    client: &mut Client,
    by: &Person,
    chat: &Chat,
    who: &Person,
    role: MemberRole,
) -> Result<(), Status> {
    let request = AddMemberRequest { chat_id: chat.chat_id.clone(), user_id: who.id.to_string(), role: role.into() };
    let response = client.add_member(by.ask(request)).await?;
    assert_eq!(status(response.metadata()), "201");
    let added = response.into_inner();
    assert_eq!((added.user_id, added.added_by, added.role), (who.id.to_string(), by.id.to_string(), role.into()));
    Ok(())
}

async fn remove(client: &mut Client, by: &Person, chat: &Chat, who: &Person) -> Result<(), Status> {
    let request = RemoveMemberRequest { chat_id: chat.chat_id.clone(), user_id: who.id.to_string() };
    let response = client.remove_member(by.ask(request)).await?;
    assert_eq!(status(response.metadata()), "204");
    Ok(())
}

async fn leave(client: &mut Client, who: &Person, chat: &Chat) -> Result<(), Status> {
    let response = client.leave_chat(who.ask(LeaveChatRequest { chat_id: chat.chat_id.clone() })).await?;
    assert_eq!(status(response.metadata()), "204");
    Ok(())
}

async fn get(client: &mut Client, by: &Person, chat: &Chat) -> Result<Chat, Status> {
    Ok(client.get_chat(by.ask(GetChatRequest { chat_id: chat.chat_id.clone() })).await?.into_inner())
}

async fn list_all(client: &mut Client, by: &Person, limit: u32) -> Vec<ChatSummary> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let request = ListChatsRequest { limit: Some(limit), cursor };
        let page = client.list_chats(by.ask(request)).await.expect("a page").into_inner();
        assert!(page.data.len() <= limit as usize);
        all.extend(page.data);
        let pagination = page.pagination.expect("pagination");
        assert_eq!(pagination.has_more, pagination.next_cursor.is_some());
        cursor = pagination.next_cursor;
        if cursor.is_none() {
            return all;
        }
    }
}

fn status(metadata: &MetadataMap) -> &str {
    metadata.get("x-http-status").map_or("200", |status| status.to_str().expect("ASCII"))
}

pub(crate) fn kind<T>(result: Result<T, Status>) -> Option<ErrorKind> {
    result.err().map(|status| from_status(&status).kind())
}

#[tokio::test]
async fn a_second_direct_chat_of_two_is_the_first_one() {
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let mut client = server.client();
    let (ada, ben) = (world.person("Ada"), world.person("Ben"));
    let first = client.create_chat(ada.ask(direct(&ben))).await.expect("created");
    assert_eq!(status(first.metadata()), "201");
    assert!(first.metadata().get("x-idempotent-replay").is_none());
    let second = client.create_chat(ben.ask(direct(&ada))).await.expect("found");
    assert_eq!(status(second.metadata()), "200");
    assert_eq!(second.metadata().get("x-idempotent-replay").expect("the flag"), "true");
    let (first, second) = (first.into_inner(), second.into_inner());
    assert_eq!(first, second);
    assert_eq!((first.member_count, first.members.len(), first.name.as_deref()), (2, 2, None));
    assert!(first.members.iter().all(|member| member.role() == MemberRole::Member));
    let mut names: Vec<_> = first.members.iter().filter_map(|member| member.display_name.clone()).collect();
    names.sort();
    assert_eq!(names, ["Ada", "Ben"]);
    server.process.shut_down().await;
}

#[tokio::test]
async fn a_group_has_all_its_members_when_it_is_answered() {
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let mut client = server.client();
    let (owner, others) = (world.person("Ada"), world.persons(99));
    let made = client.create_chat(owner.ask(group(&others))).await.expect("created");
    assert_eq!(status(made.metadata()), "201");
    let made = made.into_inner();
    assert_eq!((made.member_count, made.members.len()), (100, 100));
    assert_eq!((made.members[0].role(), made.members[0].user_id.as_str()), (MemberRole::Owner, &*owner.id.to_string()));
    let shown = get(&mut client, &others[98], &made).await.expect("a member sees it");
    assert_eq!((shown.members.len(), shown.current_sequence), (100, Some(0)));
    let mine = shown.my_membership.expect("mine");
    assert_eq!((mine.role(), mine.last_acked_sequence), (MemberRole::Member, Some(0)));
    server.process.shut_down().await;
}

#[tokio::test]
async fn what_cannot_be_a_chat_is_refused() {
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let mut client = server.client();
    let (ada, ben, nobody) = (world.person("Ada"), world.person("Ben"), World::start().await.person("nobody"));
    let named =
        |name: Option<&str>, others: &[Person]| CreateChatRequest { name: name.map(str::to_owned), ..group(others) };
    let many = world.persons(100);
    let cases = [
        ("no type", CreateChatRequest { r#type: 0, ..direct(&ben) }, ErrorKind::InvalidArgument),
        ("with oneself", direct(&ada), ErrorKind::InvalidArgument),
        (
            "with two",
            CreateChatRequest { r#type: ChatType::Direct.into(), ..group(&many[..2]) },
            ErrorKind::InvalidArgument,
        ),
        ("with nobody known", direct(&nobody), ErrorKind::UserNotFound),
        ("no name", named(None, &many[..1]), ErrorKind::InvalidArgument),
        ("a blank name", named(Some("  "), &many[..1]), ErrorKind::InvalidArgument),
        ("a long name", named(Some(&"x".repeat(129)), &many[..1]), ErrorKind::InvalidArgument),
        ("alone", group(&[]), ErrorKind::InvalidArgument),
        ("too many", group(&many), ErrorKind::InvalidArgument),
        ("twice the same", group(&[ben.clone(), ben.clone()]), ErrorKind::InvalidArgument),
        ("a stranger among them", group(&[ben.clone(), nobody.clone()]), ErrorKind::UserNotFound),
    ];
    for (name, request, expected) in cases {
        assert_eq!(kind(client.create_chat(ada.ask(request)).await), Some(expected), "{name}");
    }
    let anonymous = tonic::Request::new(direct(&ben));
    assert_eq!(kind(client.create_chat(anonymous).await), Some(ErrorKind::Unauthorized));
    assert!(list_all(&mut client, &ada, 20).await.is_empty());
    server.process.shut_down().await;
}

#[tokio::test]
async fn roles_decide_who_adds_and_removes_whom() {
    use ErrorKind::{AlreadyAMember, Forbidden, InvalidOperation, NotAMember, NotFound, UserNotFound};
    use MemberRole::{Admin, Member};
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let c = &mut server.client();
    let (owner, admin, member) = (world.person("owner"), world.person("admin"), world.person("member"));
    let (other_admin, new, outsider) = (world.person("admin 2"), world.person("new"), world.person("outsider"));
    let chat = create(c, &owner, group(std::slice::from_ref(&member))).await;
    add(c, &owner, &chat, &admin, Admin).await.expect("the owner adds admins");
    add(c, &owner, &chat, &other_admin, Admin).await.expect("the owner adds admins");

    for (by, role, expected) in [
        (&outsider, Member, NotAMember),
        (&member, Member, Forbidden),
        (&member, Admin, Forbidden),
        (&admin, Admin, Forbidden),
    ] {
        assert_eq!(kind(add(c, by, &chat, &new, role).await), Some(expected));
    }
    let as_owner = add(c, &owner, &chat, &new, MemberRole::Owner).await;
    assert_eq!(kind(as_owner), Some(ErrorKind::InvalidArgument));
    assert_eq!(kind(add(c, &admin, &chat, &member, Member).await), Some(AlreadyAMember));
    let stranger = World::start().await.person("stranger");
    assert_eq!(kind(add(c, &owner, &chat, &stranger, Member).await), Some(UserNotFound));
    add(c, &admin, &chat, &new, Member).await.expect("an admin adds members");

    for (by, who, expected) in [
        (&outsider, &member, NotAMember),
        (&member, &new, Forbidden),
        (&admin, &other_admin, Forbidden),
        (&admin, &owner, InvalidOperation),
        (&admin, &admin, InvalidOperation),
        (&owner, &owner, InvalidOperation),
        (&owner, &outsider, NotFound),
    ] {
        assert_eq!(kind(remove(c, by, &chat, who).await), Some(expected));
    }
    remove(c, &admin, &chat, &new).await.expect("an admin removes members");
    remove(c, &owner, &chat, &other_admin).await.expect("the owner removes admins");
    assert_eq!(kind(leave(c, &owner, &chat).await), Some(InvalidOperation));
    assert_eq!(kind(leave(c, &outsider, &chat).await), Some(NotAMember));
    leave(c, &admin, &chat).await.expect("an admin leaves");
    leave(c, &member, &chat).await.expect("a member leaves");
    assert_eq!(kind(leave(c, &member, &chat).await), Some(NotAMember));

    let shown = get(c, &owner, &chat).await.expect("shown");
    assert_eq!((shown.member_count, shown.members.len()), (1, 1));
    assert_eq!(kind(get(c, &member, &chat).await), Some(NotAMember), "who left sees nothing");
    assert_eq!(kind(get(c, &member, &Chat { chat_id: "chat_x".to_owned(), ..chat.clone() }).await), Some(NotAMember));

    let two = create(c, &owner, direct(&member)).await;
    assert_eq!(kind(add(c, &owner, &two, &new, Member).await), Some(InvalidOperation));
    assert_eq!(kind(remove(c, &owner, &two, &member).await), Some(InvalidOperation));
    assert_eq!(kind(leave(c, &owner, &two).await), Some(InvalidOperation));
    server.process.shut_down().await;
}

#[tokio::test]
async fn limits_are_conflicts_that_name_the_limit() {
    let world = World::start().await;
    let limits = Limits { groups_per_day: 2, chats_per_user: 4, group_members: 3, ..Limits::default() };
    let server = world.server(&limits).await;
    let mut client = server.client();
    let (ada, others) = (world.person("Ada"), world.persons(5));
    let first = create(&mut client, &ada, group(&others[..2])).await;
    create(&mut client, &ada, group(&others[..1])).await;
    let refused = client.create_chat(ada.ask(group(&others[..1]))).await.expect_err("the third group of the day");
    let error = from_status(&refused);
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.details(), domain::Error::new(ErrorKind::Conflict, "").with_number("limit", 2).details());
    create(&mut client, &ada, direct(&others[0])).await;
    let last = create(&mut client, &ada, direct(&others[1])).await;
    assert_eq!(kind(client.create_chat(ada.ask(direct(&others[2]))).await), Some(ErrorKind::Conflict));
    assert_eq!(create(&mut client, &ada, direct(&others[1])).await.chat_id, last.chat_id, "an existing one is found");
    let full = add(&mut client, &ada, &first, &others[4], MemberRole::Member).await;
    assert_eq!(kind(full), Some(ErrorKind::ChatFull));
    server.process.shut_down().await;
}

#[tokio::test]
async fn chats_are_listed_newest_first_and_completely() {
    let world = World::start().await;
    let server = world.server(&Limits::default()).await;
    let mut client = server.client();
    let (ada, others) = (world.person("Ada"), world.persons(23));
    let mut made = Vec::new();
    for other in &others {
        made.push(create(&mut client, &ada, direct(other)).await.chat_id);
    }
    let listed = list_all(&mut client, &ada, 5).await;
    let times: Vec<i64> = listed.iter().map(|chat| chat.updated_at.expect("a time").millis).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    let mut ids: Vec<String> = listed.iter().map(|chat| chat.chat_id.clone()).collect();
    ids.sort();
    made.sort();
    assert_eq!(ids, made);
    for chat in &listed {
        let other = chat.other_member.as_ref().expect("the other one");
        assert!(others.iter().any(|person| person.id.to_string() == other.user_id));
        assert!(other.display_name.as_deref().is_some_and(|name| name.starts_with("person ")));
        assert_eq!((chat.current_sequence, chat.pending_ack_count, &chat.last_message), (0, 0, &None));
    }
    let others_view = list_all(&mut client, &others[3], 20).await;
    assert_eq!(others_view[0].other_member.as_ref().and_then(|other| other.display_name.as_deref()), Some("Ada"));
    for limit in [0, 101] {
        let request = ListChatsRequest { limit: Some(limit), cursor: None };
        assert_eq!(kind(client.list_chats(ada.ask(request)).await), Some(ErrorKind::InvalidArgument));
    }
    server.process.shut_down().await;
}
