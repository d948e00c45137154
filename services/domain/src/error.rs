//! What can go wrong, as the caller needs to know it: a closed set (D2.6).
//!
//! `platform::wire` maps each kind to gRPC, HTTP and WebSocket, nothing else does.

use std::{borrow::Cow, fmt};

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The request is not even of the right form.
    BadRequest,
    /// A field has a value that it can't have.
    InvalidArgument,
    /// Not allowed for this chat or target, whoever asks.
    InvalidOperation,
    /// The group has all the members it may have.
    ChatFull,
    /// Content above 4,096 bytes.
    MessageTooLarge,
    /// Not `text/plain`.
    InvalidContentType,
    /// Content that is not UTF-8.
    InvalidEncoding,
    /// Content that may not be stored.
    InvalidContent,
    /// No token, or one that does not hold.
    Unauthorized,
    /// The code is wrong, old, used or unknown: one answer for all.
    InvalidOtp,
    /// The refresh token is wrong, old or used.
    InvalidRefreshToken,
    /// Another device than the session's.
    DeviceMismatch,
    /// A member without the needed role.
    Forbidden,
    /// Not a member of the chat, or no such chat.
    NotAMember,
    /// No such thing.
    NotFound,
    /// No such user.
    UserNotFound,
    /// The state is another one by now.
    Conflict,
    /// Already in the chat.
    AlreadyAMember,
    /// The same key with another body.
    IdempotencyKeyReused,
    /// A body above 64 KB.
    PayloadTooLarge,
    /// Well formed, and impossible.
    Unprocessable,
    /// An acknowledgement above the chat's head.
    InvalidSequence,
    /// Too many, come back later.
    RateLimited,
    /// The client does not read what it is sent.
    SlowConsumer,
    /// This connection has too many requests in flight.
    ServerBusy,
    /// A dependency is away. For a write, the outcome is unknown: the same id goes again (D2.9).
    Unavailable,
    /// A fault of the server. For a write, the outcome is unknown.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 27] = [
        Self::BadRequest,
        Self::InvalidArgument,
        Self::InvalidOperation,
        Self::ChatFull,
        Self::MessageTooLarge,
        Self::InvalidContentType,
        Self::InvalidEncoding,
        Self::InvalidContent,
        Self::Unauthorized,
        Self::InvalidOtp,
        Self::InvalidRefreshToken,
        Self::DeviceMismatch,
        Self::Forbidden,
        Self::NotAMember,
        Self::NotFound,
        Self::UserNotFound,
        Self::Conflict,
        Self::AlreadyAMember,
        Self::IdempotencyKeyReused,
        Self::PayloadTooLarge,
        Self::Unprocessable,
        Self::InvalidSequence,
        Self::RateLimited,
        Self::SlowConsumer,
        Self::ServerBusy,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::ServerBusy | Self::Unavailable)
    }
}

/// One fact about a failure that the caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A field of the request and what is wrong with it: name, code (`REQUIRED`, `TOO_LONG`, …), text.
    Field(Cow<'static, str>, Cow<'static, str>, Cow<'static, str>),
    /// Seconds until a repetition makes sense.
    RetryAfterSeconds(u32),
    /// A name and a number, such as a limit.
    Number(Cow<'static, str>, u64),
    /// A name and a text, such as an id.
    Text(Cow<'static, str>, String),
}

/// A failure: its kind, a generic sentence, and what else the caller may see.
///
/// The message and the details go over the wire, so they must leak nothing; `source` is for the log.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of that kind; the message is shown to the caller.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), details: Vec::new(), source: None }
    }

    /// The same for another caller; the source stays with this one.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { kind: self.kind, message: self.message.clone(), details: self.details.clone(), source: None }
    }

    /// A field with a value that it can't have.
    pub fn field(
        name: impl Into<Cow<'static, str>>,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(ErrorKind::InvalidArgument, message).in_field(name, code)
    }

    /// The same, for it is about this field.
    #[must_use]
    pub fn in_field(self, name: impl Into<Cow<'static, str>>, code: &'static str) -> Self {
        let message = self.message.clone();
        self.with(Detail::Field(name.into(), code.into(), message))
    }

    /// A dependency is away; the cause is for the log.
    pub fn unavailable(what: &'static str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Unavailable, what).caused_by(cause)
    }

    /// A fault of ours; the cause is for the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Internal, "internal error").caused_by(cause)
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }

    /// The same with its cause, which never leaves the process.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// The same with a named number, such as a limit.
    #[must_use]
    pub fn with_number(self, name: &'static str, number: u64) -> Self {
        self.with(Detail::Number(name.into(), number))
    }

    /// The same with a named text, such as an id.
    #[must_use]
    pub fn with_text(self, name: &'static str, text: impl fmt::Display) -> Self {
        self.with(Detail::Text(name.into(), text.to_string()))
    }

    /// Its kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What else the caller may see.
    pub fn details(&self) -> &[Detail] {
        &self.details
    }

    /// Seconds until a repetition makes sense, when that is known.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.iter().find_map(|detail| match detail {
            Detail::RetryAfterSeconds(seconds) => Some(*seconds),
            Detail::Field(..) | Detail::Number(..) | Detail::Text(..) => None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
