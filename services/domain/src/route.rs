//! Where a live connection is.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{
    Error, ErrorKind, Millis,
    ids::{ConnectionId, DeviceId, UserId},
};

/// One run of one gateway: the address of its delivery stream, and an epoch that no other run has (D5.1).
///
/// The text form is `<address>#<epoch>`. Copies share their text: every user of a batch has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId {
    /// `host:port` of its gRPC server.
    pub address: Arc<str>,
    /// New with each start of the process.
    pub epoch: Arc<str>,
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.address, self.epoch)
    }
}

impl FromStr for GatewayId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('#') {
            Some((address, epoch)) if !address.is_empty() && !epoch.is_empty() => {
                Ok(Self { address: address.into(), epoch: epoch.into() })
            }
            _ => Err(Error::new(ErrorKind::InvalidArgument, "not a gateway id")),
        }
    }
}

/// A connection as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Whose it is.
    pub user: UserId,
    /// From which installation.
    pub device: DeviceId,
    /// Where it ends.
    pub gateway: GatewayId,
    /// Since when.
    pub connected_at: Millis,
}
