//! The store: DynamoDB's protocol over HTTP, on a SQLite file.

use std::{net::SocketAddr, path::Path};

use anyhow::Context as _;
use dynoxide::Database;
use platform::Process;

use crate::record;

/// A running store. It ends with the process, after all that may use it.
#[derive(Debug)]
pub struct Store {
    /// What a DynamoDB client takes as its endpoint.
    pub endpoint: String,
}

impl Store {
    /// Starts a store on a file of that folder, or in memory without one.
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

    /// The same store, with every call appended to a file as one JSON line: `service`, `operation`, `table`,
    /// `items` of a transaction, `at` and `done` in epoch milliseconds, HTTP `status`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub async fn recorded_to(self, file: &Path, process: &Process) -> anyhow::Result<Self> {
        Ok(Self { endpoint: record::start(&self.endpoint, file, process).await? })
    }
}
