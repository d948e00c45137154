//! gateway: holds the WebSocket connections of clients, hops 1 and 6 of a message.

pub mod addresses;
pub mod clocks;
pub mod closing;
pub mod config;
pub mod connections;
pub mod deliver;
pub mod handshake;
pub mod heartbeat;
pub mod inbound;
pub mod ingest;
pub mod limits;
pub mod metrics;
pub mod outbound;
pub mod receive;
pub mod replace;
pub mod session;
pub mod socket;
pub mod sync;
pub mod wire_up;

use std::{sync::Arc, time::Duration};

use domain::{
    Clock, Ids,
    ids::{ChatId, UserId},
    ports::{ConnectionRegistry, Revocations},
    route::GatewayId,
};
use platform::{Process, grpc::InternalToken, tokens::Verifier, wire};

use crate::{
    addresses::Addresses,
    config::Limits,
    connections::{Connections, Link},
    ingest::Ingest,
    limits::{Buckets, Tallies, Windows},
    metrics::Metrics,
};

/// What the parts of a gateway share.
pub struct Gateway {
    /// This run of this gateway.
    pub id: GatewayId,
    /// Where fanout looks connections up.
    pub registry: Arc<dyn ConnectionRegistry>,
    /// Tokens and sessions that no longer count.
    pub revocations: Arc<dyn Revocations>,
    /// Checks access tokens.
    pub verifier: Arc<Verifier>,
    /// The way to ingest.
    pub ingest: Arc<Ingest>,
    /// The connections held here.
    pub connections: Connections,
    /// Where clients come from.
    pub addresses: Addresses,
    /// Proxies that say where.
    pub trusted_proxy_hops: usize,
    /// What services show each other.
    pub token: InternalToken,
    /// How often a user may send to a chat.
    pub sends: Buckets<(UserId, ChatId)>,
    /// How often a user may send at all.
    pub senders: Buckets<UserId>,
    /// The same over an hour.
    pub hourly: Tallies<UserId>,
    /// How often a user may connect.
    pub newcomers: Windows<UserId>,
    /// Settings.
    pub limits: Arc<Limits>,
    /// What is measured.
    pub metrics: Metrics,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and randomness.
    pub ids: Arc<dyn Ids>,
    /// The process that all of it belongs to.
    pub process: Process,
}

impl Gateway {
    /// How long the registry remembers a connection or this gateway: two heartbeats.
    pub fn registry_ttl(&self) -> Duration {
        self.limits.heartbeat_interval * 2
    }

    /// Takes a connection out of the registry; when that fails, it lapses by itself.
    pub async fn deregister(&self, link: &Link) {
        if let Err(error) = self.registry.deregister(&link.record).await {
            tracing::info!(
                event = "connection.deregister_failed",
                connection.id = %link.record.id,
                error.code = wire::code(&error),
                error.message = %error,
                "connection {} is left to lapse", link.record.id
            );
        }
    }

    /// A random part of a time.
    pub fn part_of(&self, whole: Duration) -> Duration {
        let mut random = [0; 2];
        self.ids.fill(&mut random);
        whole.mul_f64(f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX))
    }
}
