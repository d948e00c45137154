//! `MembershipDirectory`: who is in a chat, and in which chats somebody is.

use domain::{
    Millis,
    membership::{Membership, Role},
    ports::MembershipDirectory,
};

use super::World;

pub(crate) async fn run(world: &World, directory: &dyn MembershipDirectory) {
    let (alice, bob, carol) = (world.user(), world.user(), world.user());
    let chat = world.chat(&[alice, bob]).await;
    let other = world.chat(&[alice]).await;

    let member = directory.membership(chat, bob).await.expect("read");
    let joined_at = Millis(1_700_000_000_123);
    assert_eq!(member, Some(Membership { chat, user: bob, role: Role::Member, joined_at, muted_until: None }));
    assert_eq!(directory.membership(chat, carol).await.expect("read"), None);

    let mut members: Vec<_> =
        directory.members(chat).await.expect("read").into_iter().map(|member| (member.user, member.role)).collect();
    members.sort();
    let mut expected = vec![(alice, Role::Owner), (bob, Role::Member)];
    expected.sort();
    assert_eq!(members, expected);

    let mut chats: Vec<_> =
        directory.chats_of(alice).await.expect("read").into_iter().map(|member| member.chat).collect();
    chats.sort();
    let mut expected = vec![chat, other];
    expected.sort();
    assert_eq!(chats, expected);
    assert!(directory.chats_of(carol).await.expect("read").is_empty());
}
