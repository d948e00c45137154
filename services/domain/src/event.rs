//! What happens to chats, as those who follow the log learn it.

use ulid::Ulid;

use crate::{
    Millis,
    chat::{Chat, ChatName},
    ids::{ChatId, EventId, UserId},
    membership::Role,
};

/// Something that happened to a chat. It is on the log at least once, under one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id, the same on each publication.
    pub id: EventId,
    /// To which chat.
    pub chat: ChatId,
    /// W3C trace context of the request that caused it.
    pub traceparent: Option<String>,
    /// What happened.
    pub what: Happening,
}

impl Event {
    /// The id of the n-th record that tells of it; the first has its own id.
    pub fn record_id(&self, n: u32) -> EventId {
        EventId(Ulid(self.id.0.0.wrapping_add(u128::from(n))))
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The chat was made, with these members, the maker first.
    ChatCreated {
        /// As it was made.
        chat: Chat,
        /// Everybody in it then.
        members: Vec<UserId>,
    },
    /// Somebody came, went, or has another role.
    MembershipChanged(MembershipChange),
    /// The chat was renamed.
    ChatUpdated {
        /// Its name now.
        name: Option<ChatName>,
        /// Who did it.
        by: UserId,
        /// When.
        at: Millis,
    },
}

/// One change of one membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipChange {
    /// Whose.
    pub user: UserId,
    /// Which way.
    pub kind: ChangeKind,
    /// The role after it; on a removal, the one before.
    pub role: Role,
    /// Who did it.
    pub by: UserId,
    /// When.
    pub at: Millis,
    /// How many members the chat has after it.
    pub member_count_after: u32,
}

/// Which way a membership changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Now a member.
    Added,
    /// Not a member any more.
    Removed,
    /// A member with another role.
    RoleChanged,
}

impl ChangeKind {
    /// The stored form, which is also that of the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::RoleChanged => "role_changed",
        }
    }

    /// Reads the stored form.
    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::Added, Self::Removed, Self::RoleChanged].into_iter().find(|kind| kind.as_str() == text)
    }
}
