//! Hop 6 of 6: what fanout routed here goes to every connection of the users it names.
//!
//! In order per chat and never twice to one connection, or the hole is left to the client's sync. The
//! connection that sent the message is left out, for its acknowledgement was the delivery. This is the last hop.

use std::{pin::Pin, sync::Arc, sync::atomic::Ordering};

use domain::{
    Error,
    ids::{ChatId, ConnectionId, UserId},
    message::Sequence,
};
use futures_util::{Stream, stream};
use platform::{broken, failpoint};
use proto::messaging::v1::{
    DeliveryAnswer, DeliveryFrame, ServerFrame, delivery_answer::Outcome, delivery_frame::Push,
    delivery_server::Delivery, server_frame::Payload,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Gateway,
    metrics::{self, count},
    outbound::{SharedFrame, Taken},
};

/// The server of the delivery stream.
pub struct Deliver {
    gateway: Arc<Gateway>,
    id: String,
}

/// A push in the forms in which it may go out.
enum Prepared {
    Message { at: (ChatId, Sequence), sender: UserId, own: Box<SharedFrame>, others: Box<SharedFrame> },
    Event(Box<SharedFrame>),
}

impl Deliver {
    /// Serves the connections of that gateway.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let id = gateway.id.to_string();
        Self { gateway, id }
    }

    fn take(&self, frame: DeliveryFrame) -> DeliveryAnswer {
        let mut answer = DeliveryAnswer { frame_id: frame.frame_id, ..DeliveryAnswer::default() };
        if frame.gateway_id != self.id {
            answer.set_outcome(Outcome::Unknown);
            return answer;
        }
        if frame.is_everybody_owed {
            for link in self.gateway.connections.all() {
                link.resync.store(true, Ordering::Release);
            }
        }
        for user in frame.owed_user_ids.iter().filter_map(|user| user.parse().ok()) {
            for link in self.gateway.connections.of(user) {
                link.resync.store(true, Ordering::Release);
            }
        }
        let Some(push) = frame.push else {
            answer.set_outcome(Outcome::Delivered);
            return answer;
        };
        failpoint::reached("push.before");
        let kind = name(&push);
        let push = match self.prepare(push) {
            Ok(push) => push,
            Err(error) => {
                // Only fanout of another version could send it: its clients find it by sync.
                tracing::warn!(event = "push.unreadable", error.message = %error, "a push can't be read");
                answer.set_outcome(Outcome::Delivered);
                answer.unknown_user_ids = frame.user_ids;
                return answer;
            }
        };
        let span = tracing::info_span!(
            parent: None,
            "gateway.deliver",
            trace_id = tracing::field::Empty,
            "message.type" = kind,
            recipient.count = frame.user_ids.len(),
            connection.count = tracing::field::Empty,
        );
        let span = platform::trace::follow(span, Some(&frame.traceparent));
        let span = span.entered();
        let origin = frame.origin_connection.parse().ok();
        let (mut queued, mut connections) = (0_usize, 0_usize);
        for user_id in frame.user_ids {
            match self.push(&push, &user_id, origin, &mut connections) {
                Reached::Nobody => answer.unknown_user_ids.push(user_id),
                Reached::All => queued += 1,
                Reached::Some => {
                    queued += 1;
                    answer.full_user_ids.push(user_id);
                }
                Reached::Full => answer.full_user_ids.push(user_id),
            }
        }
        span.record("connection.count", connections);
        let is_full = queued == 0 && !answer.full_user_ids.is_empty();
        answer.set_outcome(if is_full { Outcome::Full } else { Outcome::Delivered });
        answer
    }

    fn prepare(&self, push: Push) -> Result<Prepared, Error> {
        let timestamp = self.gateway.clock.now().0;
        let shared = |payload| {
            Box::new(SharedFrame::new(ServerFrame { request_id: String::new(), timestamp, payload: Some(payload) }))
        };
        Ok(match push {
            Push::Message(message) => {
                let at = (message.chat_id.parse()?, Sequence(message.sequence));
                let sender = message.sender_id.parse()?;
                // The sender's own id of it is nobody else's business (D2.10).
                let mut others = message.clone();
                others.client_message_id = None;
                let (own, others) = (shared(Payload::Message(message)), shared(Payload::Message(others)));
                Prepared::Message { at, sender, own, others }
            }
            Push::ChatCreated(event) => Prepared::Event(shared(Payload::ChatCreated(event))),
            Push::ChatUpdated(event) => Prepared::Event(shared(Payload::ChatUpdated(event))),
            Push::MemberAdded(event) => Prepared::Event(shared(Payload::MemberAdded(event))),
            Push::MemberRemoved(event) => Prepared::Event(shared(Payload::MemberRemoved(event))),
        })
    }

    /// Counts the connections for which it waits now.
    fn push(&self, push: &Prepared, user_id: &str, origin: Option<ConnectionId>, connections: &mut usize) -> Reached {
        let gateway = &*self.gateway;
        let Ok(user) = user_id.parse::<UserId>() else { return Reached::Nobody };
        let (mut took, mut full) = (false, false);
        for link in gateway.connections.of(user) {
            let taken = match push {
                Prepared::Message { at: (chat, sequence), .. } if origin == Some(link.record.id) => {
                    link.passed_over(*chat, *sequence, gateway.limits.fence_chats);
                    took = true;
                    count(&gateway.metrics.pushes, metrics::Push::Origin);
                    continue;
                }
                Prepared::Message { at, sender, own, others } => {
                    let frame = if *sender == user { own } else { others };
                    if broken::one_in(40, "drop_delivery") {
                        took = true;
                        continue;
                    }
                    if broken::one_in(20, "swap_deliveries") {
                        let (gateway, link, late) = (self.gateway.clone(), link.clone(), frame.encoded(link.encoding));
                        drop(self.gateway.process.spawn_child(async move {
                            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                            link.line.outbound.push(late, tokio::time::Instant::now(), &gateway.limits);
                        }));
                        took = true;
                        continue;
                    }
                    if broken::one_in(40, "double_delivery") {
                        link.push(gateway, frame);
                    }
                    let Some(taken) = link.push_message(gateway, *at, frame) else {
                        took = true;
                        count(&gateway.metrics.pushes, metrics::Push::Fenced);
                        continue;
                    };
                    taken
                }
                Prepared::Event(frame) => link.push(gateway, frame),
            };
            match taken {
                Taken::Queued | Taken::Warned(..) => {
                    took = true;
                    *connections += 1;
                    count(&gateway.metrics.pushes, metrics::Push::Queued);
                }
                Taken::Full => {
                    full = true;
                    count(&gateway.metrics.pushes, metrics::Push::Full);
                }
                // It is on its way out, and its client syncs when it is back.
                Taken::Closing => count(&gateway.metrics.pushes, metrics::Push::Absent),
            }
        }
        match (took, full) {
            (true, false) => Reached::All,
            (true, true) => Reached::Some,
            (false, true) => Reached::Full,
            (false, false) => Reached::Nobody,
        }
    }
}

/// The type of its frame.
fn name(push: &Push) -> &'static str {
    match push {
        Push::Message(_) => "message",
        Push::ChatCreated(_) => "chat_created",
        Push::ChatUpdated(_) => "chat_updated",
        Push::MemberAdded(_) => "member_added",
        Push::MemberRemoved(_) => "member_removed",
    }
}

/// How many of a user's connections took a push.
enum Reached {
    Nobody,
    All,
    Some,
    Full,
}

#[tonic::async_trait]
impl Delivery for Deliver {
    type DeliverStream = Pin<Box<dyn Stream<Item = Result<DeliveryAnswer, Status>> + Send>>;

    async fn deliver(
        &self,
        request: Request<Streaming<DeliveryFrame>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let server = Self::new(self.gateway.clone());
        let stop = self.gateway.process.stop_token();
        let answers = stream::unfold((request.into_inner(), server, stop), |(mut frames, server, stop)| async move {
            let frame = tokio::select! {
                () = stop.cancelled() => return None,
                frame = frames.message() => frame,
            };
            match frame {
                Ok(Some(frame)) => Some((Ok(server.take(frame)), (frames, server, stop))),
                Ok(None) => None,
                Err(status) => {
                    tracing::debug!("a delivery stream broke: {status}");
                    None
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
