//! The four services.

use std::fmt;

/// A service of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Holds the connections of clients.
    Gateway,
    /// Stores messages and gives them their place.
    Ingest,
    /// Finds who is to see a message.
    Fanout,
    /// Logins, chats and history.
    ChatMgmt,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 4] = [Self::Gateway, Self::Ingest, Self::Fanout, Self::ChatMgmt];

    /// Its name in the spec, in images and in the names of objects.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Ingest => "ingest",
            Self::Fanout => "fanout",
            Self::ChatMgmt => "chatmgmt",
        }
    }

    /// Whether it reads and writes tables.
    pub fn uses_store(self) -> bool {
        self != Self::Gateway
    }

    /// Whether it reads or writes topics.
    pub fn uses_log(self) -> bool {
        self != Self::Gateway
    }

    /// Whether it uses the cache.
    pub fn uses_cache(self) -> bool {
        self != Self::Ingest
    }

    /// Whether clients call it by HTTP.
    pub fn serves_clients(self) -> bool {
        matches!(self, Self::Gateway | Self::ChatMgmt)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
