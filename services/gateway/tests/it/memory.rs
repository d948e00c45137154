//! What gateway keeps in Redis, in memory.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Error, Millis,
    ids::{ConnectionId, SessionId, UserId},
    ports::{ConnectionRegistry, Revocations, connection_registry::Registered},
    route::{Connection, GatewayId},
};

/// The registry in memory; entries don't lapse by themselves.
#[derive(Default)]
pub(crate) struct MemoryRegistry {
    pub(crate) connections: Mutex<HashMap<ConnectionId, Connection>>,
    announced: Mutex<HashSet<GatewayId>>,
    pub(crate) is_away: AtomicBool,
}

impl MemoryRegistry {
    pub(crate) fn wipe(&self) {
        self.connections.lock().expect("whole").clear();
        self.announced.lock().expect("whole").clear();
    }

    pub(crate) fn of(&self, user: UserId) -> usize {
        self.connections.lock().expect("whole").values().filter(|one| one.user == user).count()
    }

    fn reach(&self) -> Result<(), Error> {
        if self.is_away.load(Ordering::SeqCst) { Err(Error::unavailable("away", "told to")) } else { Ok(()) }
    }
}

#[async_trait]
impl ConnectionRegistry for MemoryRegistry {
    async fn register(&self, connection: &Connection, _: Millis, _: Duration) -> Result<Registered, Error> {
        self.reach()?;
        let mut all = self.connections.lock().expect("whole");
        all.insert(connection.id, connection.clone());
        let own = all.values().filter(|one| one.user == connection.user);
        let replaced = own.clone().filter(|one| one.device == connection.device && one.id != connection.id);
        let replaced = replaced.map(|one| (one.id, one.gateway.clone())).collect();
        Ok(Registered { live: u32::try_from(own.count()).expect("few"), replaced })
    }

    async fn deregister(&self, connection: &Connection) -> Result<u32, Error> {
        self.reach()?;
        self.connections.lock().expect("whole").remove(&connection.id);
        Ok(u32::try_from(self.of(connection.user)).expect("few"))
    }

    async fn renew(&self, connections: &[Connection], _: Millis, _: Duration) -> Result<Vec<ConnectionId>, Error> {
        self.reach()?;
        let all = self.connections.lock().expect("whole");
        Ok(connections.iter().map(|one| one.id).filter(|id| !all.contains_key(id)).collect())
    }

    async fn announce(&self, gateway: &GatewayId, _: Duration) -> Result<bool, Error> {
        self.reach()?;
        Ok(!self.announced.lock().expect("whole").insert(gateway.clone()))
    }

    async fn forget(&self, gateway: &GatewayId) -> Result<(), Error> {
        self.reach()?;
        self.announced.lock().expect("whole").remove(gateway);
        Ok(())
    }

    async fn gateways(&self, users: &[UserId]) -> Result<Vec<Vec<GatewayId>>, Error> {
        self.reach()?;
        let all = self.connections.lock().expect("whole");
        let of = |user: &UserId| all.values().filter(|one| one.user == *user).map(|one| one.gateway.clone()).collect();
        Ok(users.iter().map(of).collect())
    }
}

/// Revocations in memory.
#[derive(Default)]
pub(crate) struct MemoryRevocations {
    pub(crate) revoked: Mutex<HashSet<String>>,
    pub(crate) is_away: AtomicBool,
}

#[async_trait]
impl Revocations for MemoryRevocations {
    async fn is_revoked(&self, token_id: &str, session: SessionId) -> Result<bool, Error> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(Error::unavailable("away", "told to"));
        }
        let revoked = self.revoked.lock().expect("whole");
        Ok(revoked.contains(token_id) || revoked.contains(&session.to_string()))
    }

    async fn revoke_token(&self, token_id: &str, _: Duration) -> Result<(), Error> {
        self.revoked.lock().expect("whole").insert(token_id.to_owned());
        Ok(())
    }

    async fn revoke_session(&self, session: SessionId, _: Duration) -> Result<(), Error> {
        self.revoked.lock().expect("whole").insert(session.to_string());
        Ok(())
    }
}
