//! Who is in a chat, and as what.

use crate::{
    Millis,
    ids::{ChatId, UserId},
};

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Talks.
    Member,
    /// Also adds and removes members.
    Admin,
    /// Also appoints admins; there is one.
    Owner,
}

impl Role {
    /// The stored form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Reads the stored form.
    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::Member, Self::Admin, Self::Owner].into_iter().find(|role| role.as_str() == text)
    }

    /// Whether somebody with this role may add somebody as `added` (auth-security §12).
    pub fn may_add(self, added: Self) -> bool {
        match self {
            Self::Owner => added != Self::Owner,
            Self::Admin => added == Self::Member,
            Self::Member => false,
        }
    }

    /// Whether somebody with this role may remove somebody else who is `removed`.
    pub fn may_remove(self, removed: Self) -> bool {
        self.may_add(removed)
    }
}

/// One person's place in one chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Which chat.
    pub chat: ChatId,
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: Role,
    /// Since when.
    pub joined_at: Millis,
    /// Notifications are off until then.
    pub muted_until: Option<Millis>,
}
