//! Chats as the RPCs show them.

use domain::{Millis, chat::Chat, chat::ChatType, ids::UserId, membership::Membership, membership::Role};
use proto::messaging::v1 as wire;

use super::Names;

pub(crate) fn time(at: Millis) -> wire::Timestamp {
    wire::Timestamp { millis: at.0 }
}

pub(crate) fn name(names: &Names, user: UserId) -> Option<String> {
    names.get(&user)?.as_ref().map(|name| name.as_str().to_owned())
}

pub(super) fn role(role: Role) -> i32 {
    match role {
        Role::Member => wire::MemberRole::Member,
        Role::Admin => wire::MemberRole::Admin,
        Role::Owner => wire::MemberRole::Owner,
    }
    .into()
}

pub(super) fn kind(kind: ChatType) -> i32 {
    match kind {
        ChatType::Direct => wire::ChatType::Direct,
        ChatType::Group => wire::ChatType::Group,
    }
    .into()
}

pub(super) fn my_membership(mine: &Membership, acked: Option<u64>) -> wire::MyMembership {
    wire::MyMembership {
        role: role(mine.role),
        joined_at: Some(time(mine.joined_at)),
        muted_until: mine.muted_until.map(time),
        last_acked_sequence: acked,
    }
}

/// A chat with its members: by the time they joined, the owner first.
pub(super) fn chat(chat: &Chat, mut members: Vec<Membership>, names: &Names) -> wire::Chat {
    members.sort_by_key(|member| (member.role != Role::Owner, member.joined_at, member.user));
    let members = members.iter().map(|member| wire::Member {
        user_id: member.user.to_string(),
        role: role(member.role),
        display_name: name(names, member.user),
        joined_at: Some(time(member.joined_at)),
    });
    wire::Chat {
        chat_id: chat.id.to_string(),
        r#type: kind(chat.kind),
        name: chat.name.as_ref().map(|name| name.as_str().to_owned()),
        created_by: chat.created_by.to_string(),
        created_at: Some(time(chat.created_at)),
        updated_at: Some(time(chat.updated_at)),
        members: members.collect(),
        member_count: chat.member_count,
        current_sequence: None,
        my_membership: None,
    }
}
