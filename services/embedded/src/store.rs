//! The store: DynamoDB's protocol over HTTP, on a SQLite file.

use std::{net::SocketAddr, path::Path};

use anyhow::Context as _;
use dynoxide::Database;
use platform::Process;

/// A running store.
#[derive(Debug)]
pub struct Store {
    /// What a DynamoDB client takes as its endpoint.
    pub endpoint: String,
}

impl Store {
    /// Starts a store on a file of that folder, or in memory without one. It ends with the process.
    ///
    /// # Errors
    /// When the file can't be used or there is no loopback.
    pub async fn start(folder: Option<&Path>, process: &Process) -> anyhow::Result<Self> {
        let database = match folder {
            Some(folder) => {
                let file = folder.join("store.sqlite");
                let path = file.to_str().context("the data folder's path is not UTF-8")?;
                Database::new(path).with_context(|| format!("failed to open {path}"))?
            }
            None => Database::memory().context("failed to open a store in memory")?,
        };
        let (listener, address) = process.bind("the embedded store", SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        process.spawn_last("embedded store", |stop| async move {
            let served = dynoxide::server::serve_with_shutdown(listener, database, stop.cancelled_owned()).await;
            served.map_err(anyhow::Error::msg)
        });
        Ok(Self { endpoint: format!("http://{address}") })
    }
}
