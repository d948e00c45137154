//! The way to ingest: which pod a chat belongs to, and what happens when it does not answer (D3.5).

mod breaker;
mod pod;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use domain::{Error, ErrorKind, error::Detail, ids::ChatId};
use platform::{Gate, Process, grpc::InternalToken, wire};
use prometheus_client::metrics::gauge::Gauge;
use proto::messaging::v1::{
    AckDeliveryRequest, AckDeliveryResponse, HeadsRequest, HeadsResponse, PersistMessageRequest,
    PersistMessageResponse, PersistMessagesRequest, PersistOutcome, Refusal, SyncMessagesRequest, SyncMessagesResponse,
    ingest_client::IngestClient, persist_outcome,
};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap, service::Interceptor as _, transport::Channel};

pub use self::pod::Pod;
use self::{
    breaker::{Others, Shown, Way},
    pod::{Operation, Pass},
};
use crate::config::Limits;

/// How long a pod may take for the request that shows whether it is well, before another pod is asked.
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// All ingest pods.
pub struct Ingest {
    names: Vec<String>,
    pods: RwLock<BTreeMap<SocketAddr, Arc<Pod>>>,
    metadata: MetadataMap,
    limits: Arc<Limits>,
    open: Gauge,
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
            open: open.clone(),
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
                    tracing::warn!(
                        event = "ingest.not_found",
                        error.message = %format_args!("{error:#}"),
                        "failed to find ingest"
                    );
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
            if let Entry::Vacant(vacant) = pods.entry(address) {
                vacant.insert(Arc::new(Pod::new(address, &self.limits, &self.open)?));
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
        self.ask(Operation::Send, chat, request, pod, call).await
    }

    /// Stores messages of one connection, in their order, each with its own outcome.
    ///
    /// # Errors
    /// When nobody knows whether any is stored.
    pub async fn persist_all(
        &self,
        chat: ChatId,
        messages: Vec<PersistMessageRequest>,
        pod: &mut Option<Arc<Pod>>,
    ) -> Result<Vec<Result<PersistMessageResponse, Error>>, Error> {
        let count = messages.len();
        // What is said of each message would have been said of its own call.
        let call = |mut client: IngestClient<Channel>, request| async move {
            let response = client.persist_messages(request).await?;
            match response.get_ref().outcomes.first().and_then(failing) {
                Some(status) if response.get_ref().outcomes.iter().all(|outcome| failing(outcome).is_some()) => {
                    Err(status)
                }
                _ => Ok(response),
            }
        };
        let request = PersistMessagesRequest { messages };
        let answer = self.ask(Operation::Send, chat, request, pod, call).await?;
        let mut outcomes: Vec<_> = answer.outcomes.into_iter().map(told).collect();
        outcomes.resize_with(count, || Err(away("ingest left a message out")));
        Ok(outcomes)
    }

    /// Reads a page of a chat.
    ///
    /// # Errors
    /// Ingest's.
    pub async fn sync(&self, chat: ChatId, request: SyncMessagesRequest) -> Result<SyncMessagesResponse, Error> {
        let call = |mut client: IngestClient<Channel>, request| async move { client.sync_messages(request).await };
        self.ask(Operation::Read, chat, request, &mut None, call).await
    }

    /// Reads heads; the first chat decides who is asked.
    ///
    /// # Errors
    /// Ingest's.
    pub async fn heads(&self, first: ChatId, request: HeadsRequest) -> Result<HeadsResponse, Error> {
        let call = |mut client: IngestClient<Channel>, request| async move { client.heads(request).await };
        self.ask(Operation::Read, first, request, &mut None, call).await
    }

    /// Advances a watermark.
    ///
    /// # Errors
    /// Ingest's.
    pub async fn acknowledge(&self, chat: ChatId, request: AckDeliveryRequest) -> Result<AckDeliveryResponse, Error> {
        let call = |mut client: IngestClient<Channel>, request| async move { client.ack_delivery(request).await };
        self.ask(Operation::Acknowledge, chat, request, &mut None, call).await
    }

    async fn ask<Q, A, F, Fut>(
        &self,
        operation: Operation,
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
        let deadline = Instant::now() + self.limits.ingest_timeout;
        let mut tried = Vec::new();
        let mut failure = None;
        loop {
            let Some(pass) = self.choose(operation, chat, &tried, pod.take()) else {
                return Err(failure.unwrap_or_else(|| self.nobody(operation)));
            };
            tried.push(pass.pod.address);
            *pod = Some(pass.pod.clone());
            let left = deadline.saturating_duration_since(Instant::now());
            let is_last = pass.way == Way::Free || self.count() <= tried.len();
            let within = if is_last { left } else { left.min(PROBE_WITHIN) };
            let mut request = Request::new(message.clone());
            *request.metadata_mut() = self.metadata.clone();
            platform::trace::attach(&tracing::Span::current(), request.metadata_mut());
            // What is not done by then, nobody waits for.
            request.set_timeout(within);
            let (address, until) = (pass.pod.address, Instant::now() + within);
            let answer = tokio::time::timeout_at(until, call(pass.pod.client.clone(), request)).await;
            // The library keeps the time too, and says so as it says that a stream was broken.
            let is_late = |status: &Status| status.code() == Code::Cancelled && Instant::now() >= until;
            match answer {
                Ok(Ok(response)) => {
                    pass.tell(Shown::Well);
                    return Ok(response.into_inner());
                }
                // The same id on the next one: stored once, whoever stores it.
                Ok(Err(status)) if is_dead(&status) && !is_late(&status) => {
                    tracing::debug!("ingest at {address} is not there: {status}");
                    pass.tell(Shown::Dead);
                    failure = Some(away(status.to_string()));
                }
                Ok(Err(status)) if !is_late(&status) => {
                    // A refusal shows that it is well.
                    pass.tell(if is_failing(&status) { Shown::Failing } else { Shown::Well });
                    return Err(read(&status));
                }
                Ok(Err(_)) | Err(_) => {
                    pass.tell(Shown::Failing);
                    let error = away("ingest did not answer in time");
                    if is_last {
                        return Err(error);
                    }
                    failure = Some(error);
                }
            }
        }
    }

    /// The pod with the highest weight for the chat among those not tried that may be asked. A connection stays with
    /// the pod of its last send to the chat as long as that one is well.
    fn choose(&self, operation: Operation, chat: ChatId, tried: &[SocketAddr], last: Option<Arc<Pod>>) -> Option<Pass> {
        let now = Instant::now();
        if let Some(last) = last
            && !tried.contains(&last.address)
            && last.breaker(operation).is_closed()
        {
            return Pass::take(&last, operation, now, Others::Unknown);
        }
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let mut left: Vec<&Arc<Pod>> = pods.values().filter(|pod| !tried.contains(&pod.address)).collect();
        left.sort_by_cached_key(|pod| Reverse(pod.weight(chat)));
        let first = |others| left.iter().find_map(|pod| Pass::take(pod, operation, now, others));
        // Who was asked already and failed may be all there is.
        first(Others::Unknown).or_else(|| first(Others::None))
    }

    fn count(&self) -> usize {
        self.pods.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Why there is nobody to ask, and when there may be.
    fn nobody(&self, operation: Operation) -> Error {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = pods.values().filter_map(|pod| pod.breaker(operation).asked_again()).min() else {
            return away("there is no ingest to ask").with(Detail::RetryAfterSeconds(1));
        };
        let left = at.saturating_duration_since(Instant::now());
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let seconds = u32::try_from(seconds.max(1)).unwrap_or(u32::MAX);
        away("every ingest fails at the moment").with(Detail::RetryAfterSeconds(seconds))
    }
}

/// Whether the status comes from the transport and not from ingest, which always gives details.
fn is_dead(status: &Status) -> bool {
    let is_broken = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    status.details().is_empty() && is_broken
}

fn told(outcome: PersistOutcome) -> Result<PersistMessageResponse, Error> {
    match outcome.outcome {
        Some(persist_outcome::Outcome::Stored(stored)) => Ok(stored),
        Some(persist_outcome::Outcome::Refused(refused)) => Err(read(&status(&refused))),
        None => Err(away("ingest said nothing of a message")),
    }
}

fn status(refused: &Refusal) -> Status {
    Status::with_details(Code::from_i32(refused.code), refused.message.clone(), refused.details.clone().into())
}

/// What is said of a message that ingest could not store, though nothing is wrong with it.
fn failing(outcome: &PersistOutcome) -> Option<Status> {
    match &outcome.outcome {
        Some(persist_outcome::Outcome::Refused(refused)) => Some(status(refused)).filter(is_failing),
        Some(persist_outcome::Outcome::Stored(_)) | None => None,
    }
}

fn is_failing(status: &Status) -> bool {
    matches!(read(status).kind(), ErrorKind::Unavailable | ErrorKind::Internal)
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn ingests(count: u16) -> Ingest {
        let token = InternalToken::new(&platform::Secret::new("t")).expect("valid");
        let names = (1..=count).map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>();
        let limits = Arc::new(Limits { breaker_first: Duration::from_mins(1), ..Limits::default() });
        let ingest = Ingest::new(names, &token, &limits, &Gauge::default()).expect("made");
        ingest.resolve().await.expect("resolved");
        ingest
    }

    fn chosen(ingest: &Ingest, chat: ChatId, tried: &[SocketAddr]) -> Pass {
        ingest.choose(Operation::Send, chat, tried, None).expect("one")
    }

    #[tokio::test]
    async fn a_chat_keeps_its_pod_when_another_one_comes() {
        let (two, three) = (ingests(2).await, ingests(3).await);
        let newcomer = SocketAddr::from(([127, 0, 0, 1], 3));
        let mut moved = 0;
        for number in 0..300_u128 {
            let chat = ChatId(ulid::Ulid::from(number));
            let (before, after) = (chosen(&two, chat, &[]).pod.address, chosen(&three, chat, &[]).pod.address);
            assert!(after == before || after == newcomer);
            moved += usize::from(after == newcomer);
            assert_ne!(chosen(&three, chat, &[after]).pod.address, after);
        }
        assert!((50..150).contains(&moved), "about a third moves: {moved}");
    }

    #[tokio::test]
    async fn a_pod_that_fails_is_judged_alone() {
        let three = ingests(3).await;
        let chat = ChatId(ulid::Ulid::from(7_u128));
        let first = chosen(&three, chat, &[]);
        let (sticky, address) = (first.pod.clone(), first.pod.address);
        first.tell(Shown::Dead);
        let next = chosen(&three, chat, &[]).pod.address;
        assert_ne!(next, address);
        let again = three.choose(Operation::Send, chat, &[], Some(sticky.clone())).expect("one");
        assert_eq!(again.pod.address, next, "nobody stays with a pod that fails");
        let read = three.choose(Operation::Read, chat, &[], None).expect("one");
        assert_eq!(read.pod.address, address, "reads are judged apart from sends");
        for _ in 0..2 {
            chosen(&three, chat, &[]).tell(Shown::Dead);
        }
        assert!(three.choose(Operation::Send, chat, &[], Some(sticky)).is_none());
        let error = three.nobody(Operation::Send);
        assert_eq!((error.kind(), error.retry_after_seconds()), (ErrorKind::Unavailable, Some(60)));
    }
}
