//! Why a connection ends, and how its client is told (D2.6, websocket-protocol §5.10).

use std::time::Duration;

use domain::{Error, ErrorKind};
use prometheus_client::encoding::EncodeLabelValue;
use proto::messaging::v1::{ConnectionClosing, server_frame::Payload};

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Reason {
    /// The client left, or the network did.
    Gone,
    /// This gateway stops.
    ServerShutdown,
    /// No heartbeat for two intervals.
    IdleTimeout,
    /// Refused for its rate too often.
    RateLimited,
    /// Refused for too many requests in flight too often.
    ServerBusy,
    /// Too many invalid frames, or one that breaks RFC 6455.
    ProtocolError,
    /// A text frame where binary was agreed, or the other way round.
    WrongFrameKind,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A frame above the limit.
    FrameTooLarge,
    /// The same device connected again.
    DuplicateConnection,
    /// The token's time is over.
    TokenExpired,
    /// The client does not read what it is sent.
    SlowConsumer,
    /// The token or its session was revoked.
    SessionRevoked,
    /// Nobody could say for too long whether the session was revoked.
    RevocationUnknown,
    /// The connection is as old as one may get.
    MaximumAge,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::Gone,
        Self::ServerShutdown,
        Self::IdleTimeout,
        Self::RateLimited,
        Self::ServerBusy,
        Self::ProtocolError,
        Self::WrongFrameKind,
        Self::NotUtf8,
        Self::FrameTooLarge,
        Self::DuplicateConnection,
        Self::TokenExpired,
        Self::SlowConsumer,
        Self::SessionRevoked,
        Self::RevocationUnknown,
        Self::MaximumAge,
    ];

    /// The close code.
    pub fn code(self) -> u16 {
        match self {
            Self::Gone => 1000,
            Self::ServerShutdown | Self::MaximumAge => 1001,
            Self::ProtocolError => 1002,
            Self::WrongFrameKind => 1003,
            Self::NotUtf8 => 1007,
            Self::SlowConsumer => 1008,
            Self::FrameTooLarge => 1009,
            Self::ServerBusy | Self::RevocationUnknown => 1013,
            Self::TokenExpired | Self::SessionRevoked => 4001,
            Self::IdleTimeout => 4008,
            Self::DuplicateConnection => 4010,
            Self::RateLimited => 4029,
        }
    }

    /// `reason` of the `connection_closing` frame, and of the close frame.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            // Whoever is asked to move for its age moves as for any other planned end.
            Self::ServerShutdown | Self::MaximumAge => "server_shutdown",
            Self::IdleTimeout => "idle_timeout",
            Self::RateLimited => "rate_limited",
            Self::ServerBusy => "server_busy",
            Self::ProtocolError | Self::WrongFrameKind | Self::NotUtf8 | Self::FrameTooLarge => "protocol_error",
            Self::DuplicateConnection => "duplicate_connection",
            Self::TokenExpired => "token_expired",
            Self::SlowConsumer => "slow_consumer",
            Self::SessionRevoked => "session_revoked",
            Self::RevocationUnknown => "service_unavailable",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Gone => "the connection is gone",
            Self::ServerShutdown => "this gateway is being replaced",
            Self::IdleTimeout => "no heartbeat for two intervals",
            Self::RateLimited => "rate limits were exceeded too often",
            Self::ServerBusy => "too many requests in flight too often",
            Self::ProtocolError => "too many invalid frames",
            Self::WrongFrameKind => "this kind of frame does not fit the subprotocol",
            Self::NotUtf8 => "text that is not UTF-8",
            Self::FrameTooLarge => "a frame is above the limit",
            Self::DuplicateConnection => "this device connected again",
            Self::TokenExpired => "the access token has expired",
            Self::SlowConsumer => "the client does not read fast enough",
            Self::SessionRevoked => "the session was revoked",
            Self::RevocationUnknown => "the session can't be checked at the moment",
            Self::MaximumAge => "the connection is as old as one may get",
        }
    }

    /// Whether the client may still be sending what could not be read.
    pub fn is_unreadable(self) -> bool {
        matches!(self, Self::ProtocolError | Self::FrameTooLarge | Self::NotUtf8)
    }

    /// The error that goes before all else, if this end is one of the error codes (websocket-protocol §6).
    pub fn error(self) -> Option<Error> {
        (self == Self::TokenExpired).then(|| Error::new(ErrorKind::Unauthorized, self.message()))
    }

    /// The frame that goes before the close frame.
    pub fn frame(self, reconnect_delay: Duration) -> Payload {
        // A second connection of the same device took over: coming back would end that one.
        let reconnect_allowed = self != Self::DuplicateConnection;
        Payload::ConnectionClosing(ConnectionClosing {
            reason: self.name().to_owned(),
            message: self.message().to_owned(),
            reconnect_delay_ms: u32::try_from(reconnect_delay.as_millis()).unwrap_or(u32::MAX),
            reconnect_allowed,
        })
    }
}
