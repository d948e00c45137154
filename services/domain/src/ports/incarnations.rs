//! Leases of the processes that store messages.

use async_trait::async_trait;

use crate::{
    Error, Millis,
    publisher::{Claim, Incarnation, Lease, Slot},
};

/// Leases of the processes that store messages (D4.3).
#[async_trait]
pub trait Incarnations: Send + Sync {
    /// Writes a new lease.
    async fn open(&self, lease: &Lease) -> Result<(), Error>;

    /// Moves the end of one's own lease. `false` when it is lost: claimed or closed by another.
    async fn renew(&self, own: Incarnation, expires_at: Millis, oldest_slot: Slot) -> Result<bool, Error>;

    /// Every lease, each by a strong read; very new ones may be missing.
    async fn list(&self) -> Result<Vec<Lease>, Error>;

    /// Takes over a lease, or renews the claim, if the lease is still as it was seen. `false` when it is not.
    async fn claim(&self, seen: &Lease, claim: Claim) -> Result<bool, Error>;

    /// Deletes a lease, if it is still claimed as it was seen; else does nothing.
    async fn close(&self, seen: &Lease) -> Result<(), Error>;
}
