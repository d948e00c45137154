//! An ingest that stores in memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::AtomicUsize, atomic::Ordering},
};

use domain::{Error, ErrorKind, Ids as _, ids::ChatId};
use platform::{Process, clock::SystemIds, grpc::InternalToken, trace::TRACEPARENT, wire};
use proto::messaging::v1::{
    AckDeliveryRequest, AckDeliveryResponse, ChatHead, HeadsRequest, HeadsResponse, PersistMessageRequest,
    PersistMessageResponse, PersistMessagesRequest, PersistMessagesResponse, PersistOutcome, Refusal, SyncItem,
    SyncMessagesRequest, SyncMessagesResponse,
    ingest_server::{Ingest, IngestServer},
    persist_outcome::Outcome,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

pub(crate) async fn serve_ingest(process: &Process, ingest: Arc<FakeIngest>, token: &InternalToken) -> SocketAddr {
    let (listener, address) = process.bind("ingest", SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("bound");
    let server = IngestServer::with_interceptor(IngestDoor(ingest), token.require());
    process.serve_grpc("ingest", listener, tonic::service::Routes::new(server));
    address
}

/// Stores messages in memory; a content of `!KIND` is refused with that kind.
#[derive(Default)]
pub(crate) struct FakeIngest {
    pub(crate) stored: Mutex<BTreeMap<ChatId, Vec<PersistMessageRequest>>>,
    pub(crate) acks: Mutex<Vec<AckDeliveryRequest>>,
    /// While it is set, sends wait for permits of `gate`.
    pub(crate) is_gated: AtomicBool,
    pub(crate) gate: Semaphore0,
    pub(crate) under_way: AtomicUsize,
    pub(crate) syncs_under_way: AtomicUsize,
    pub(crate) most_syncs: AtomicUsize,
    /// How many messages each call for many had.
    pub(crate) calls_of_many: Mutex<Vec<usize>>,
}

/// A semaphore that begins empty.
pub(crate) struct Semaphore0(pub(crate) Semaphore);

impl Default for Semaphore0 {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl FakeIngest {
    pub(crate) fn texts(&self, chat: ChatId) -> Vec<String> {
        let stored = self.stored.lock().expect("whole");
        stored.get(&chat).map(|list| list.iter().map(|send| send.content.clone()).collect()).unwrap_or_default()
    }
}

pub(crate) struct IngestDoor(pub(crate) Arc<FakeIngest>);

#[tonic::async_trait]
impl Ingest for IngestDoor {
    async fn persist_message(
        &self,
        request: Request<PersistMessageRequest>,
    ) -> Result<Response<PersistMessageResponse>, Status> {
        let told = request.metadata().get(TRACEPARENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut send = request.into_inner();
        send.traceparent = told.unwrap_or(send.traceparent);
        self.0.under_way.fetch_add(1, Ordering::SeqCst);
        if self.0.is_gated.load(Ordering::SeqCst) {
            self.0.gate.0.acquire().await.expect("open").forget();
        }
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        let kind = ErrorKind::ALL.into_iter().find(|kind| send.content == format!("!{kind:?}"));
        if let Some(kind) = kind {
            return Err(wire::to_status(&Error::new(kind, "refused")));
        }
        let mut stored = self.0.stored.lock().expect("whole");
        let list = stored.entry(send.chat_id.parse().expect("a chat")).or_default();
        let at = list.iter().position(|old| old.client_message_id == send.client_message_id);
        let is_duplicate = at.is_some();
        let at = at.unwrap_or_else(|| {
            list.push(send);
            list.len() - 1
        });
        let message_id = format!("msg_{}", SystemIds.ulid());
        Ok(Response::new(PersistMessageResponse { message_id, sequence: at as u64 + 1, created_at: 7, is_duplicate }))
    }

    async fn persist_messages(
        &self,
        request: Request<PersistMessagesRequest>,
    ) -> Result<Response<PersistMessagesResponse>, Status> {
        let messages = request.into_inner().messages;
        self.0.calls_of_many.lock().expect("whole").push(messages.len());
        let mut outcomes = Vec::new();
        for message in messages {
            let outcome = match self.persist_message(Request::new(message)).await {
                Ok(stored) => Outcome::Stored(stored.into_inner()),
                Err(status) => Outcome::Refused(Refusal {
                    code: status.code().into(),
                    message: status.message().to_owned(),
                    details: status.details().to_vec(),
                }),
            };
            outcomes.push(PersistOutcome { outcome: Some(outcome) });
        }
        Ok(Response::new(PersistMessagesResponse { outcomes }))
    }

    async fn sync_messages(
        &self,
        request: Request<SyncMessagesRequest>,
    ) -> Result<Response<SyncMessagesResponse>, Status> {
        let request = request.into_inner();
        let now = self.0.syncs_under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_syncs.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.0.syncs_under_way.fetch_sub(1, Ordering::SeqCst);
        let stored = self.0.stored.lock().expect("whole");
        let Some(list) = stored.get(&request.chat_id.parse().expect("a chat")) else {
            return Err(wire::to_status(&Error::new(ErrorKind::NotAMember, "not a member")));
        };
        let above = list.iter().zip(1_u64..).filter(|(_, sequence)| *sequence > request.after_sequence);
        let page = above.take(request.limit as usize).map(|(send, sequence)| SyncItem {
            sequence,
            sender_id: send.sender_id.clone(),
            content: send.content.clone(),
            client_message_id: Some(send.client_message_id.clone()),
            ..SyncItem::default()
        });
        let messages: Vec<_> = page.collect();
        let end = messages.last().map_or(request.after_sequence, |item| item.sequence);
        let has_more = end < list.len() as u64;
        Ok(Response::new(SyncMessagesResponse { messages, has_more }))
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsResponse>, Status> {
        let stored = self.0.stored.lock().expect("whole");
        let mut response = HeadsResponse::default();
        for chat_id in request.into_inner().chat_ids {
            match stored.get(&chat_id.parse().expect("a chat")) {
                Some(list) => response.chats.push(ChatHead { chat_id, current_sequence: list.len() as u64 }),
                None => response.not_member.push(chat_id),
            }
        }
        Ok(Response::new(response))
    }

    async fn ack_delivery(
        &self,
        request: Request<AckDeliveryRequest>,
    ) -> Result<Response<AckDeliveryResponse>, Status> {
        let ack = request.into_inner();
        let last_acked_sequence = ack.last_acked_sequence;
        self.0.acks.lock().expect("whole").push(ack);
        Ok(Response::new(AckDeliveryResponse { last_acked_sequence }))
    }
}
