//! One ingest pod: its connection, its weight for a chat, and whether it is asked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use domain::ids::ChatId;
use prometheus_client::metrics::gauge::Gauge;
use proto::messaging::v1::ingest_client::IngestClient;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::breaker::{Breaker, Others, Shown, Way};
use crate::config::Limits;

/// A pod that hangs is found out within the time that one request may take, so that the request can go elsewhere.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// One ingest pod.
#[derive(Debug)]
pub struct Pod {
    pub(super) address: SocketAddr,
    pub(super) client: IngestClient<Channel>,
    seed: u64,
    sends: Breaker,
    reads: Breaker,
    acks: Breaker,
}

/// What kind of request: each has a breaker of its own, for what keeps one from going well may leave the other alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// It stores something.
    Send,
    /// It reads.
    Read,
    /// It says what was read: a slow one must not hold up a sync.
    Acknowledge,
}

impl Pod {
    pub(super) fn new(address: SocketAddr, limits: &Limits, open: &Gauge) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address} is not an address of ingest"))?
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(true);
        Ok(Self {
            address,
            client: IngestClient::new(endpoint.connect_lazy()),
            seed: xxh3_64_with_seed(address.to_string().as_bytes(), 0),
            sends: Breaker::new(limits, open.clone()),
            reads: Breaker::new(limits, open.clone()),
            acks: Breaker::new(limits, open.clone()),
        })
    }

    /// Its weight for a chat: among all pods the chat belongs to the one with the highest.
    pub(super) fn weight(&self, chat: ChatId) -> u64 {
        xxh3_64_with_seed(&chat.0.to_bytes(), self.seed)
    }

    pub(super) fn breaker(&self, operation: Operation) -> &Breaker {
        match operation {
            Operation::Send => &self.sends,
            Operation::Read => &self.reads,
            Operation::Acknowledge => &self.acks,
        }
    }
}

/// Leave to send one request to a pod. Dropped without a word it shows nothing.
pub(super) struct Pass {
    pub(super) pod: Arc<Pod>,
    pub(super) way: Way,
    operation: Operation,
    is_told: bool,
}

impl Pass {
    pub(super) fn take(pod: &Arc<Pod>, operation: Operation, now: Instant, others: Others) -> Option<Self> {
        let way = pod.breaker(operation).pass(now, others)?;
        Some(Self { pod: pod.clone(), way, operation, is_told: false })
    }

    /// Tells what the request showed.
    pub(super) fn tell(mut self, shown: Shown) {
        self.is_told = true;
        let (address, breaker) = (self.pod.address, self.pod.breaker(self.operation));
        if breaker.saw(self.way, shown, Instant::now()) {
            tracing::warn!(
                event = "breaker.opened",
                ingest = %address,
                "ingest at {address} fails: others are asked, and it is tried again"
            );
        } else if self.way == Way::Probe && shown == Shown::Well {
            tracing::info!(event = "breaker.closed", ingest = %address, "ingest at {address} answers again");
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.is_told {
            self.pod.breaker(self.operation).saw(self.way, Shown::Nothing, Instant::now());
        }
    }
}
