//! A chat: direct between two, or a group.

use crate::{
    Error, Millis,
    ids::{ChatId, UserId},
    limits,
};

/// What kind of chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChatType {
    /// Two members, for life.
    Direct,
    /// An owner and up to 99 others.
    Group,
}

impl ChatType {
    /// The stored form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }

    /// Reads the stored form.
    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::Direct, Self::Group].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A group's name: 1 to 128 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChatName(String);

impl ChatName {
    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidArgument` on the field `name`.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::field("name", "REQUIRED", "a group needs a name"));
        }
        if text.chars().count() > limits::CHAT_NAME_CHARS {
            return Err(Error::field("name", "TOO_LONG", "a name has at most 128 characters"));
        }
        if text.chars().any(char::is_control) {
            return Err(Error::field("name", "INVALID", "a name has no control characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// A name that was checked when it was stored.
    pub fn from_store(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A chat's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Its id.
    pub id: ChatId,
    /// Direct or group.
    pub kind: ChatType,
    /// Only groups have one.
    pub name: Option<ChatName>,
    /// Who made it.
    pub created_by: UserId,
    /// When it was made.
    pub created_at: Millis,
    /// When its description or its members last changed.
    pub updated_at: Millis,
    /// How many members are intended: for display and the size limit, never for a decision who is in.
    pub member_count: u32,
}

/// The key under which two users have their one direct chat, whoever asks first.
pub fn pair_key(one: UserId, other: UserId) -> String {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    format!("{low}#{high}")
}
