//! The way to ingest: which pod a chat belongs to, and what happens when it does not answer (D3.5).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use domain::{Error, ErrorKind, error::Detail, ids::ChatId};
use platform::{Gate, Process, grpc::InternalToken, wire};
use prometheus_client::metrics::gauge::Gauge;
use proto::messaging::v1::{
    AckDeliveryRequest, AckDeliveryResponse, HeadsRequest, HeadsResponse, PersistMessageRequest,
    PersistMessageResponse, SyncMessagesRequest, SyncMessagesResponse, ingest_client::IngestClient,
};
use tokio::time::Instant;
use tonic::{
    Code, Request, Response, Status,
    metadata::MetadataMap,
    service::Interceptor as _,
    transport::{Channel, Endpoint},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{config::Limits, limits::Window};

/// Seconds that a client waits when the breaker is open (failures-limits §6).
const BREAKER_RETRY_SECONDS: u32 = 10;

/// One ingest pod.
#[derive(Debug)]
pub struct Pod {
    address: SocketAddr,
    client: IngestClient<Channel>,
    seed: u64,
    /// Not asked until then, if another one is there.
    avoid_until: Mutex<Option<Instant>>,
}

/// All ingest pods.
pub struct Ingest {
    names: Vec<String>,
    pods: RwLock<BTreeMap<SocketAddr, Arc<Pod>>>,
    metadata: MetadataMap,
    limits: Arc<Limits>,
    sends: Breaker,
    reads: Breaker,
}

impl Ingest {
    /// The pods under these names; none is connected to before it is needed.
    ///
    /// # Errors
    /// When the token can't be a header.
    pub fn new(names: Vec<String>, token: &InternalToken, limits: &Arc<Limits>, open: &Gauge) -> anyhow::Result<Self> {
        let attached = token.attach().call(Request::new(())).context("the internal token can't be sent")?;
        Ok(Self {
            names,
            pods: RwLock::default(),
            metadata: attached.metadata().clone(),
            limits: limits.clone(),
            sends: Breaker::new(limits, open.clone()),
            reads: Breaker::new(limits, open.clone()),
        })
    }

    /// Asks the names again, as long as the process runs; the gate opens when there is a pod.
    pub async fn follow(self: Arc<Self>, process: Process, ready: Gate) -> anyhow::Result<()> {
        let stop = process.stop_token();
        let mut ticks = tokio::time::interval(self.limits.ingest_resolve);
        let mut was_unknown = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            match self.resolve().await {
                Ok(()) => {
                    was_unknown = false;
                    ready.open();
                }
                Err(error) if !was_unknown => {
                    was_unknown = true;
                    tracing::warn!("failed to find ingest: {error:#}");
                }
                Err(_) => {}
            }
        }
    }

    /// Asks the names once.
    ///
    /// # Errors
    /// When none has an address; the pods known so far stay.
    pub async fn resolve(&self) -> anyhow::Result<()> {
        let mut found = Vec::new();
        let mut failure = None;
        for name in &self.names {
            match tokio::time::timeout(Duration::from_secs(2), tokio::net::lookup_host(name)).await {
                Ok(Ok(addresses)) => found.extend(addresses),
                Ok(Err(error)) => failure = Some(anyhow::anyhow!("{name}: {error}")),
                Err(_) => failure = Some(anyhow::anyhow!("{name}: no answer")),
            }
        }
        if found.is_empty() {
            return Err(failure.unwrap_or_else(|| anyhow::anyhow!("no name has an address")));
        }
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            pods.retain(|address, _| found.contains(address));
        }
        for address in found {
            if let std::collections::btree_map::Entry::Vacant(vacant) = pods.entry(address) {
                vacant.insert(Arc::new(Pod::new(address)?));
            }
        }
        Ok(())
    }

    /// Stores a message. `pod` is where this connection's sends to the chat go while one is outstanding.
    ///
    /// # Errors
    /// Ingest's; `Unavailable` when nobody knows whether it is stored.
    pub async fn persist(
        &self,
        chat: ChatId,
        request: PersistMessageRequest,
        pod: &mut Option<Arc<Pod>>,
    ) -> Result<PersistMessageResponse, Error> {
        let call = |mut client: IngestClient<Channel>, request| async move { client.persist_message(request).await };
        self.ask(&self.sends, chat, request, pod, call).await
    }

    /// Reads a page of a chat.
    ///
    /// # Errors
    /// Ingest's.
    pub async fn sync(&self, chat: ChatId, request: SyncMessagesRequest) -> Result<SyncMessagesResponse, Error> {
        let call = |mut client: IngestClient<Channel>, request| async move { client.sync_messages(request).await };
        self.ask(&self.reads, chat, request, &mut None, call).await
    }

    /// Reads heads; the first chat decides who is asked.
    ///
    /// # Errors
    /// Ingest's.
    pub async fn heads(&self, first: ChatId, request: HeadsRequest) -> Result<HeadsResponse, Error> {
        let call = |mut client: IngestClient<Channel>, request| async move { client.heads(request).await };
        self.ask(&self.reads, first, request, &mut None, call).await
    }

    /// Advances a watermark.
    ///
    /// # Errors
    /// Ingest's.
    pub async fn acknowledge(&self, chat: ChatId, request: AckDeliveryRequest) -> Result<AckDeliveryResponse, Error> {
        let call = |mut client: IngestClient<Channel>, request| async move { client.ack_delivery(request).await };
        self.ask(&self.reads, chat, request, &mut None, call).await
    }

    async fn ask<Q, A, F, Fut>(
        &self,
        breaker: &Breaker,
        chat: ChatId,
        message: Q,
        pod: &mut Option<Arc<Pod>>,
        call: F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(IngestClient<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let now = Instant::now();
        let pass = breaker.pass(now)?;
        let deadline = now + self.limits.ingest_timeout;
        let mut tried = Vec::new();
        let result = loop {
            let chosen = match pod.take() {
                Some(sticky) if !tried.contains(&sticky.address) => sticky,
                _ => match self.choose(chat, &tried) {
                    Some(chosen) => chosen,
                    None => break Err(away("there is no ingest to ask")),
                },
            };
            tried.push(chosen.address);
            let left = deadline.saturating_duration_since(Instant::now());
            let mut request = Request::new(message.clone());
            *request.metadata_mut() = self.metadata.clone();
            platform::trace::attach(&tracing::Span::current(), request.metadata_mut());
            request.set_timeout(left);
            let answer = tokio::time::timeout(left, call(chosen.client.clone(), request)).await;
            *pod = Some(chosen.clone());
            match answer {
                Ok(Ok(response)) => {
                    chosen.avoid(None);
                    break Ok(response.into_inner());
                }
                Ok(Err(status)) if is_dead(&status) => {
                    tracing::debug!("ingest at {} is not there: {status}", chosen.address);
                    chosen.avoid(Some(Instant::now() + self.limits.ingest_avoid));
                    // The same id on the next one: stored once, whoever stores it.
                    if self.choose(chat, &tried).is_none() {
                        break Err(away(status.to_string()));
                    }
                }
                Ok(Err(status)) => break Err(read(&status)),
                Err(_) => break Err(away("ingest did not answer in time")),
            }
        };
        pass.record(&result, Instant::now());
        result
    }

    /// The pod with the highest weight for the chat among those not tried; those to avoid come last.
    fn choose(&self, chat: ChatId, tried: &[SocketAddr]) -> Option<Arc<Pod>> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let key = chat.0.to_bytes();
        let left = pods.values().filter(|pod| !tried.contains(&pod.address));
        left.max_by_key(|pod| (!pod.is_avoided(now), xxh3_64_with_seed(&key, pod.seed))).cloned()
    }
}

impl Pod {
    fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address} is not an address of ingest"))?
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        let seed = xxh3_64_with_seed(address.to_string().as_bytes(), 0);
        let client = IngestClient::new(endpoint.connect_lazy());
        Ok(Self { address, client, seed, avoid_until: Mutex::default() })
    }

    fn avoid(&self, until: Option<Instant>) {
        *self.avoid_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn is_avoided(&self, now: Instant) -> bool {
        self.avoid_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| until > now)
    }
}

/// Whether the status comes from the transport and not from ingest, which always gives details.
fn is_dead(status: &Status) -> bool {
    let is_broken = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    status.details().is_empty() && is_broken
}

fn read(status: &Status) -> Error {
    if status.details().is_empty() && status.code() == Code::Unauthenticated {
        // Our token, not the client's.
        return Error::internal(status.to_string());
    }
    wire::from_status(status)
}

fn away(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::unavailable("the service is not available at the moment", cause)
}

/// Stops asking when ingest fails again and again.
struct Breaker {
    state: Mutex<State>,
    failures: usize,
    within: Duration,
    open_for: Duration,
    open: Gauge,
}

enum State {
    Closed(Window),
    Open(Instant),
    /// One request is let through, to see.
    Probing,
}

/// A request that the breaker let through; dropped without a result it proves nothing.
struct Pass<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    at: Instant,
}

impl Breaker {
    fn new(limits: &Limits, open: Gauge) -> Self {
        let (failures, within) = (limits.breaker_failures, limits.breaker_within);
        let state = Mutex::new(State::Closed(Window::new(failures, within)));
        Self { state, failures, within, open_for: limits.breaker_open, open }
    }

    fn pass(&self, now: Instant) -> Result<Pass<'_>, Error> {
        let mut state = self.state();
        let is_probe = match &*state {
            State::Closed(_) => false,
            State::Open(since) if now.saturating_duration_since(*since) >= self.open_for => true,
            State::Open(_) | State::Probing => {
                return Err(Error::new(ErrorKind::Unavailable, "the service is not available at the moment")
                    .with(Detail::RetryAfterSeconds(BREAKER_RETRY_SECONDS)));
            }
        };
        if is_probe {
            *state = State::Probing;
        }
        Ok(Pass { breaker: self, is_probe, at: now })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    fn record<A>(mut self, result: &Result<A, Error>, now: Instant) {
        // A refusal shows that ingest is well.
        let failed =
            matches!(result, Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal));
        let breaker = self.breaker;
        let mut state = breaker.state();
        if std::mem::take(&mut self.is_probe) {
            if failed {
                *state = State::Open(now);
            } else {
                tracing::info!("ingest answers again");
                *state = State::Closed(Window::new(breaker.failures, breaker.within));
                breaker.open.dec();
            }
        } else if let State::Closed(window) = &mut *state
            && failed
            && window.is_reached_by(now)
        {
            tracing::warn!("ingest fails again and again: not asking it for {:?}", breaker.open_for);
            *state = State::Open(now);
            breaker.open.inc();
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            *self.breaker.state() = State::Open(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { breaker_failures: 2, breaker_open: Duration::from_secs(30), ..Limits::default() }
    }

    #[test]
    fn a_breaker_opens_probes_and_closes() {
        let gauge = Gauge::default();
        let breaker = Breaker::new(&limits(), gauge.clone());
        let failed: Result<(), Error> = Err(away("away"));
        let refused: Result<(), Error> = Err(Error::new(ErrorKind::NotAMember, "no"));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..2 {
            breaker.pass(start).expect("closed").record(&failed, start);
        }
        assert_eq!(gauge.get(), 1);
        let error = breaker.pass(after(29)).err().expect("open");
        assert_eq!((error.kind(), error.retry_after_seconds()), (ErrorKind::Unavailable, Some(10)));
        let probe = breaker.pass(after(31)).expect("half open");
        assert!(breaker.pass(after(31)).is_err(), "one probe at a time");
        drop(probe);
        assert!(breaker.pass(after(32)).is_err(), "a probe that was given up proves nothing");
        breaker.pass(after(62)).expect("half open").record(&failed, after(62));
        assert!(breaker.pass(after(63)).is_err());
        breaker.pass(after(93)).expect("half open").record(&refused, after(93));
        assert_eq!(gauge.get(), 0, "a refusal shows that ingest is well");
        for _ in 0..5 {
            breaker.pass(after(94)).expect("closed").record(&refused, after(94));
        }
        assert!(breaker.pass(after(94)).is_ok());
    }

    #[tokio::test]
    async fn a_chat_keeps_its_pod_when_another_one_comes() {
        let token = InternalToken::new(&platform::Secret::new("t")).expect("valid");
        let names = |count: u16| (1..=count).map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>();
        let of = async |count| {
            let ingest = Ingest::new(names(count), &token, &Arc::new(limits()), &Gauge::default()).expect("made");
            ingest.resolve().await.expect("resolved");
            ingest
        };
        let (two, three) = (of(2).await, of(3).await);
        let newcomer = SocketAddr::from(([127, 0, 0, 1], 3));
        let mut moved = 0;
        for number in 0..300_u128 {
            let chat = ChatId(ulid::Ulid::from(number));
            let (before, after) = (two.choose(chat, &[]).expect("one"), three.choose(chat, &[]).expect("one"));
            assert!(after.address == before.address || after.address == newcomer);
            moved += usize::from(after.address == newcomer);
            let next = three.choose(chat, &[after.address]).expect("another");
            assert_ne!(next.address, after.address);
            after.avoid(Some(Instant::now() + Duration::from_mins(1)));
            assert_eq!(three.choose(chat, &[]).expect("another").address, next.address, "one to avoid comes last");
            after.avoid(None);
        }
        assert!((50..150).contains(&moved), "about a third moves: {moved}");
    }
}
