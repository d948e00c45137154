//! A message: what a client sends, and what is stored.

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::{
    Error, ErrorKind, Millis,
    ids::{ChatId, ClientMessageId, ConnectionId, MessageId, UserId},
    limits,
};

/// A message's place in its chat: 1, 2, 3, … without holes (D3.6). 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The only content type so far.
pub const TEXT: &str = "text/plain";

/// Text that may be stored: 1 to 4,096 bytes, no NUL, no control characters but newline and tab, NFC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content(String);

impl Content {
    /// Checks a text and brings it into the form in which it is stored (auth-security §10).
    ///
    /// # Errors
    /// `InvalidArgument` when empty, `MessageTooLarge` above 4,096 bytes, `InvalidContent` with a NUL,
    /// `InvalidContentType` for anything but `text/plain` (an empty type means that).
    pub fn new(content_type: &str, text: &str) -> Result<Self, Error> {
        if !content_type.is_empty() && content_type != TEXT {
            let error = Error::new(ErrorKind::InvalidContentType, "content_type must be text/plain");
            return Err(error.in_field("content_type", "INVALID"));
        }
        if text.is_empty() {
            return Err(Error::field("content", "REQUIRED", "content is empty"));
        }
        if text.len() > limits::CONTENT_BYTES {
            return Err(too_large());
        }
        if text.contains('\0') {
            let error = Error::new(ErrorKind::InvalidContent, "content has a NUL character");
            return Err(error.in_field("content", "INVALID"));
        }
        let is_stripped = |c: char| c.is_control() && c != '\n' && c != '\t';
        let stored = if text.contains(is_stripped) || !is_nfc(text) {
            text.chars().filter(|c| !is_stripped(*c)).nfc().collect()
        } else {
            text.to_owned()
        };
        if stored.is_empty() {
            return Err(Error::field("content", "REQUIRED", "content is empty"));
        }
        // NFC makes a few texts longer.
        if stored.len() > limits::CONTENT_BYTES {
            return Err(too_large());
        }
        Ok(Self(stored))
    }

    /// A text that was checked when it was stored.
    pub fn from_store(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 100 characters, for a chat list.
    pub fn preview(&self) -> &str {
        match self.0.char_indices().nth(limits::PREVIEW_CHARS) {
            Some((end, _)) => &self.0[..end],
            None => &self.0,
        }
    }
}

fn too_large() -> Error {
    let error = Error::new(ErrorKind::MessageTooLarge, "content is above 4096 bytes");
    error.in_field("content", "TOO_LONG").with_number("limit", limits::CONTENT_BYTES as u64)
}

/// A valid message that has no place yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Where it goes.
    pub chat: ChatId,
    /// Who sent it, from the authenticated connection.
    pub sender: UserId,
    /// The client's own id of it.
    pub client_id: ClientMessageId,
    /// Its text.
    pub content: Content,
    /// The connection that sent it.
    pub origin: Option<ConnectionId>,
}

/// A message as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// The server's id of it.
    pub id: MessageId,
    /// Its chat.
    pub chat: ChatId,
    /// Its place there.
    pub sequence: Sequence,
    /// Who sent it.
    pub sender: UserId,
    /// The client's own id of it.
    pub client_id: ClientMessageId,
    /// Its text.
    pub content: Content,
    /// When ingest stored it: the one time everybody shows.
    pub created_at: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Detail;

    #[test]
    fn content_is_stored_or_refused_with_a_reason() {
        let long = "x".repeat(4096);
        let too_long = "x".repeat(4097);
        // NFC makes four bytes of each of these three.
        let grows = "\u{fb1d}".repeat(1365);
        let cases: [(&str, &str, &str, Result<&str, ErrorKind>); 12] = [
            ("shortest", "", "a", Ok("a")),
            ("at the limit", TEXT, &long, Ok(&long)),
            ("one over the limit", TEXT, &too_long, Err(ErrorKind::MessageTooLarge)),
            ("over the limit when composed", TEXT, &grows, Err(ErrorKind::MessageTooLarge)),
            ("empty", TEXT, "", Err(ErrorKind::InvalidArgument)),
            ("only control characters", TEXT, "\u{7}\u{8}", Err(ErrorKind::InvalidArgument)),
            ("NUL", TEXT, "a\0b", Err(ErrorKind::InvalidContent)),
            ("another type", "text/html", "a", Err(ErrorKind::InvalidContentType)),
            ("newline and tab stay", TEXT, "a\n\tb", Ok("a\n\tb")),
            ("bell and C1 go", TEXT, "a\u{7}b\u{85}", Ok("ab")),
            ("composed", TEXT, "e\u{301}", Ok("é")),
            ("an emoji of several code points stays", TEXT, "👩‍👩‍👧", Ok("👩‍👩‍👧")),
        ];
        for (name, kind, text, expected) in cases {
            let result = Content::new(kind, text);
            match (&result, expected) {
                (Ok(content), Ok(text)) => assert_eq!(content.as_str(), text, "{name}"),
                (Err(error), Err(kind)) => {
                    let field = if kind == ErrorKind::InvalidContentType { "content_type" } else { "content" };
                    let is_named = |detail: &Detail| matches!(detail, Detail::Field(name, ..) if name == field);
                    let limit = Detail::Number("limit".into(), 4096);
                    assert_eq!(error.kind(), kind, "{name}");
                    assert!(error.details().iter().any(is_named), "{name}: {error:?}");
                    let has_limit = error.details().contains(&limit);
                    assert_eq!(has_limit, kind == ErrorKind::MessageTooLarge, "{name}: {error:?}");
                }
                _ => panic!("{name}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_preview_is_cut_at_a_character() {
        let content = Content::new(TEXT, &"é".repeat(150)).expect("valid");
        assert_eq!(content.preview(), "é".repeat(100));
    }
}
