//! Which gateway holds each live connection of a user. gateway writes it, fanout reads it.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Error, Millis,
    ids::{ConnectionId, UserId},
    route::{Connection, GatewayId},
};

/// What a registration found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Live connections of the user, this one included; 1 means the user just came online.
    pub live: u32,
    /// Older live connections of the same device, with their gateways: each is to be closed.
    pub replaced: Vec<(ConnectionId, GatewayId)>,
}

/// Which gateway holds each live connection of a user.
///
/// Entries lapse after the TTL unless renewed, so a gateway that dies is forgotten without help.
#[async_trait]
pub trait ConnectionRegistry: Send + Sync {
    /// Records the connection; repeating it refreshes everything.
    async fn register(&self, connection: &Connection, now: Millis, ttl: Duration) -> Result<Registered, Error>;

    /// Forgets the connection; repeating it is harmless. Returns how many live ones the user has left.
    async fn deregister(&self, connection: &Connection) -> Result<u32, Error>;

    /// Renews the connections of this gateway. Returns those that were gone, and so must be registered again.
    async fn renew(&self, connections: &[Connection], now: Millis, ttl: Duration) -> Result<Vec<ConnectionId>, Error>;

    /// Says that the gateway lives, for one TTL. Returns whether it was known: `false` after the first
    /// call, and after the registry lost its memory.
    async fn announce(&self, gateway: &GatewayId, ttl: Duration) -> Result<bool, Error>;

    /// Forgets that the gateway lives: if it does, it finds out when it says so again, registers its connections
    /// anew, and has their clients sync.
    async fn forget(&self, gateway: &GatewayId) -> Result<(), Error>;

    /// The gateways of each user's live connections, in the order of `users`; empty means offline,
    /// never "unknown". One round trip, on the primary.
    async fn gateways(&self, users: &[UserId]) -> Result<Vec<Vec<GatewayId>>, Error>;
}
