//! Identifiers: prefixed ULIDs made by the server, UUIDs made by clients (D2.4).

use std::{fmt, str::FromStr};

use ulid::Ulid;
use uuid::Uuid;

use crate::{Error, ErrorKind, Ids};

macro_rules! prefixed {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Ulid);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new one.
            pub fn new(ids: &dyn Ids) -> Self {
                Self(ids.ulid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads the prefix and 26 characters of a ULID, upper case only, nothing else.
            fn from_str(text: &str) -> Result<Self, Error> {
                let refuse = || Error::new(ErrorKind::InvalidArgument, concat!("not an id of the form ", $prefix, "<ULID>"));
                let ulid = text.strip_prefix($prefix).ok_or_else(refuse)?;
                let parsed = Ulid::from_string(ulid).map_err(|_| refuse())?;
                // Crockford's alphabet reads lower case and look-alikes too; one id has one spelling here.
                if parsed.to_string() == ulid { Ok(Self(parsed)) } else { Err(refuse()) }
            }
        }
    };
}

prefixed!(
    /// A person.
    UserId, "user_"
);
prefixed!(
    /// A direct chat or a group.
    ChatId, "chat_"
);
prefixed!(
    /// A stored message.
    MessageId, "msg_"
);
prefixed!(
    /// A login on one device.
    SessionId, "sess_"
);
prefixed!(
    /// One WebSocket, new on each connect.
    ConnectionId, "conn_"
);
prefixed!(
    /// A record on the log.
    EventId, "evt_"
);

macro_rules! client_uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads the hyphenated form of 36 characters, any version, either case.
            fn from_str(text: &str) -> Result<Self, Error> {
                let refuse = || Error::new(ErrorKind::InvalidArgument, "not a hyphenated UUID of 36 characters");
                if text.len() != 36 {
                    return Err(refuse());
                }
                Uuid::try_parse(text).map(Self).map_err(|_| refuse())
            }
        }
    };
}

client_uuid!(
    /// One logical message of a client, the same on each retry; shown in lower case.
    ClientMessageId
);
client_uuid!(
    /// One installation of a client: a label, not a proof.
    DeviceId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let good = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2";
        assert_eq!(good.parse::<ChatId>().expect("valid").to_string(), good);
        for bad in [
            "",
            "chat_",
            "01KKNTQ2BCF5KZNWJ47TAN9ZT2",
            "user_01KKNTQ2BCF5KZNWJ47TAN9ZT2",
            "chat_01kkntq2bcf5kznwj47tan9zt2",
            "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2 ",
            "chat_81KKNTQ2BCF5KZNWJ47TAN9ZT2",
        ] {
            assert!(bad.parse::<ChatId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn client_ids_are_shown_in_lower_case() {
        let upper = "EAEFC4D2-D3BF-4D01-ABAE-4B5B844A7034";
        assert_eq!(upper.parse::<ClientMessageId>().expect("valid").to_string(), upper.to_lowercase());
        for bad in [
            "",
            "eaefc4d2d3bf4d01abae4b5b844a7034",
            "{eaefc4d2-d3bf-4d01-abae-4b5b844a70}",
            "eaefc4d2-d3bf-4d01-abae-4b5b844a703g",
        ] {
            assert!(bad.parse::<ClientMessageId>().is_err(), "{bad:?}");
        }
    }
}
