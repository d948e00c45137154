//! Where everything listens, for people and for the tools that look inside.

use std::{io::Write as _, net::SocketAddr, path::Path};

use anyhow::Context as _;
use serde_json::json;

/// The addresses of one run.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// REST and WebSocket.
    pub(crate) public: SocketAddr,
    /// DynamoDB's protocol.
    pub(crate) store: String,
    /// Kafka's protocol.
    pub(crate) log: String,
    /// Redis' protocol.
    pub(crate) cache: String,
}

impl Addresses {
    /// Writes `addresses.json` into the data folder.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let file = folder.join("addresses.json");
        let text = json!({
            "public": format!("http://{}", self.public),
            "store_endpoint": self.store,
            "log_brokers": self.log,
            "redis_url": self.cache,
        });
        std::fs::write(&file, format!("{text:#}\n")).with_context(|| format!("failed to write {}", file.display()))
    }

    /// Says on standard output that all is ready, and what to do next.
    pub(crate) fn announce(&self) -> anyhow::Result<()> {
        let public = self.public;
        let server = if public.port() == 8080 { String::new() } else { format!(" SERVER=http://{public}") };
        let mut out = std::io::stdout().lock();
        writeln!(out, "ready: http://{public}")?;
        writeln!(
            out,
            "  talk: in two other terminals, make chat PHONE=+12025550100{server} and make chat PHONE=+12025550101{server}"
        )?;
        writeln!(
            out,
            "  the code that each asks for is in a line `otp_sent` here; Ctrl-C stops everything, the data stay"
        )?;
        out.flush()?;
        Ok(())
    }
}
