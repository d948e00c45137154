//! The gRPC service: reads requests, calls, writes answers and logs failures once.

use std::{fmt::Display, str::FromStr, sync::Arc, time::Duration};

use domain::{
    Error, ErrorKind,
    ids::{ChatId, UserId},
    limits::CALL_MESSAGES,
    message::{self, Content, Draft, Sequence, StoredMessage},
};
use futures_util::future::join_all;
use platform::trace;
use proto::messaging::v1::{
    AckDeliveryRequest, AckDeliveryResponse, ChatHead, HeadsRequest, HeadsResponse, PersistMessageRequest,
    PersistMessageResponse, PersistMessagesRequest, PersistMessagesResponse, PersistOutcome, Refusal, SyncItem,
    SyncMessagesRequest, SyncMessagesResponse, ingest_server::Ingest, persist_outcome,
};
use proto::topics::header;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, metadata::MetadataMap};
use tracing::Instrument as _;

use crate::{acknowledge::Acknowledge, persist::Persist, sync::Sync};

/// `messaging.v1.Ingest`.
pub struct Api {
    /// Sends.
    pub persist: Arc<Persist>,
    /// What was missed.
    pub sync: Arc<Sync>,
    /// Watermarks.
    pub acknowledge: Acknowledge,
    /// Cancelled when the process takes on nothing new.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl Ingest for Api {
    async fn persist_message(
        &self,
        request: Request<PersistMessageRequest>,
    ) -> Result<Response<PersistMessageResponse>, Status> {
        let traceparent = request
            .metadata()
            .get(header::TRACEPARENT)
            .and_then(|value| value.to_str().ok())
            .filter(|context| !context.is_empty())
            .map(str::to_owned);
        let within = self.begin(request.metadata())?;
        let request = PersistMessageRequest { traceparent: traceparent.unwrap_or_default(), ..request.into_inner() };
        self.persist_one(&request, within).await.map(Response::new)
    }

    async fn persist_messages(
        &self,
        request: Request<PersistMessagesRequest>,
    ) -> Result<Response<PersistMessagesResponse>, Status> {
        let within = self.begin(request.metadata())?;
        let messages = request.into_inner().messages;
        if !(1..=CALL_MESSAGES).contains(&messages.len()) {
            let message = format!("a call has 1 to {CALL_MESSAGES} messages");
            return Err(Call::of("persist").refuse(Error::field("messages", "INVALID", message)));
        }
        // Each is asked for before any is waited for, in their order: so they are stored.
        let all = messages.iter().map(|message| self.persist_one(message, within));
        let outcomes = join_all(all).await.into_iter().map(|result| {
            let outcome = match result {
                Ok(stored) => persist_outcome::Outcome::Stored(stored),
                Err(status) => persist_outcome::Outcome::Refused(Refusal {
                    code: status.code().into(),
                    message: status.message().to_owned(),
                    details: status.details().to_vec(),
                }),
            };
            PersistOutcome { outcome: Some(outcome) }
        });
        Ok(Response::new(PersistMessagesResponse { outcomes: outcomes.collect() }))
    }

    async fn sync_messages(
        &self,
        request: Request<SyncMessagesRequest>,
    ) -> Result<Response<SyncMessagesResponse>, Status> {
        let request = request.into_inner();
        let call = Call { chat_id: Some(&request.chat_id), user_id: Some(&request.user_id), ..Call::of("sync") };
        let refuse = |error| call.refuse(error);
        let (chat, user) = chat_and_user(&request.chat_id, &request.user_id).map_err(refuse)?;
        let after = Sequence(request.after_sequence);
        let page = self.sync.page(chat, user, after, request.limit).await.map_err(refuse)?;
        let messages = page.messages.iter().map(|message| item(message, user)).collect();
        Ok(Response::new(SyncMessagesResponse { messages, has_more: page.has_more }))
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsResponse>, Status> {
        let request = request.into_inner();
        let call = Call { user_id: Some(&request.user_id), ..Call::of("heads") };
        let refuse = |error| call.refuse(error);
        let user = field("user_id", &request.user_id).map_err(refuse)?;
        let chats: Result<Vec<ChatId>, Error> = request.chat_ids.iter().map(|chat| field("chat_ids", chat)).collect();
        let chats = chats.map_err(refuse)?;
        let mut answer = HeadsResponse::default();
        for standing in self.sync.heads(user, &chats).await.map_err(refuse)? {
            let chat_id = standing.chat.to_string();
            match standing.head {
                Some(head) => answer.chats.push(ChatHead { chat_id, current_sequence: head.0 }),
                None => answer.not_member.push(chat_id),
            }
        }
        Ok(Response::new(answer))
    }

    async fn ack_delivery(
        &self,
        request: Request<AckDeliveryRequest>,
    ) -> Result<Response<AckDeliveryResponse>, Status> {
        let request = request.into_inner();
        let call = Call { chat_id: Some(&request.chat_id), user_id: Some(&request.user_id), ..Call::of("ack") };
        let refuse = |error| call.refuse(error);
        let (chat, user) = chat_and_user(&request.chat_id, &request.user_id).map_err(refuse)?;
        let (acked, read) = (Sequence(request.last_acked_sequence), request.last_read_sequence.map(Sequence));
        let stored = self.acknowledge.acknowledge(chat, user, acked, read).await.map_err(refuse)?;
        Ok(Response::new(AckDeliveryResponse { last_acked_sequence: stored.0 }))
    }
}

impl Api {
    /// How long the caller of a new request waits.
    fn begin(&self, metadata: &MetadataMap) -> Result<Duration, Status> {
        if self.stop.is_cancelled() {
            // In the transport's own words: nothing was begun, so the caller asks another one with the same id.
            return Err(Status::unavailable("this process stops"));
        }
        Ok(platform::grpc::time_left(metadata).unwrap_or(Duration::MAX))
    }

    async fn persist_one(
        &self,
        request: &PersistMessageRequest,
        within: Duration,
    ) -> Result<PersistMessageResponse, Status> {
        let span = tracing::info_span!(
            parent: None,
            "durability.persist",
            trace_id = tracing::field::Empty,
            chat.id = request.chat_id,
            client_message.id = request.client_message_id,
        );
        let told = Some(request.traceparent.as_str()).filter(|context| !context.is_empty());
        let span = trace::follow(span, told);
        let traceparent = trace::carry(&span).or_else(|| told.map(str::to_owned));
        let (chat_id, user_id) = (Some(request.chat_id.as_str()), Some(request.sender_id.as_str()));
        let call = Call { chat_id, user_id, ..Call::of("persist") };
        let storing = async {
            let stored = match read_draft(request) {
                Ok(draft) => self.persist.persist(draft, traceparent, within).await,
                Err(error) => Err(error),
            };
            // In the hop, so that the line has its ids.
            stored.map_err(|error| call.refuse(error))
        };
        let stored = storing.instrument(span).await?;
        Ok(PersistMessageResponse {
            message_id: stored.original.id.to_string(),
            sequence: stored.original.sequence.0,
            created_at: stored.original.created_at.0,
            is_duplicate: stored.is_duplicate,
        })
    }
}

/// Checks again what gateway has checked: it is trusted to say who sends, not to be free of errors.
fn read_draft(request: &PersistMessageRequest) -> Result<Draft, Error> {
    let origin = match request.origin_connection.as_str() {
        "" => None,
        connection => Some(field("origin_connection", connection)?),
    };
    Ok(Draft {
        chat: field("chat_id", &request.chat_id)?,
        sender: field("sender_id", &request.sender_id)?,
        client_id: field("client_message_id", &request.client_message_id)?,
        content: Content::new(&request.content_type, &request.content)?,
        origin,
    })
}

fn chat_and_user(chat: &str, user: &str) -> Result<(ChatId, UserId), Error> {
    Ok((field("chat_id", chat)?, field("user_id", user)?))
}

fn field<T: FromStr<Err = E>, E: Display>(name: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: E| Error::field(name, "INVALID", error.to_string()))
}

fn item(message: &StoredMessage, reader: UserId) -> SyncItem {
    SyncItem {
        message_id: message.id.to_string(),
        sequence: message.sequence.0,
        sender_id: message.sender.to_string(),
        content: message.content.as_str().to_owned(),
        content_type: message::TEXT.to_owned(),
        created_at: message.created_at.0,
        client_message_id: (message.sender == reader).then(|| message.client_id.to_string()),
    }
}

/// What log lines say of a call.
#[derive(Clone, Copy)]
struct Call<'a> {
    operation: &'static str,
    chat_id: Option<&'a str>,
    user_id: Option<&'a str>,
}

impl Call<'_> {
    /// A call about no chat and no user.
    fn of(operation: &'static str) -> Self {
        Self { operation, chat_id: None, user_id: None }
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is the end of the error")]
    fn refuse(self, error: Error) -> Status {
        macro_rules! line {
            ($level:ident, $($message:tt)+) => {
                tracing::$level!(
                    operation = self.operation,
                    chat.id = self.chat_id,
                    user.id = self.user_id,
                    error.code = platform::wire::code(&error),
                    error.message = %error,
                    $($message)+
                )
            };
        }
        let kind = error.kind();
        if kind == ErrorKind::Internal {
            line!(error, event = "request.failed", "a request failed");
        } else if kind == ErrorKind::Unavailable {
            line!(warn, event = "request.failed", "a request failed");
        } else {
            line!(debug, event = "request.refused", "a request was refused");
        }
        platform::wire::to_status(&error)
    }
}
