//! The requests of one connection that wait or run: sends one at a time per chat, sync one at a time, the
//! rest at once, and never more than may be (D3.5, D5.6).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use domain::{Error, ErrorKind, error::Detail, ids::ChatId};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use proto::messaging::v1::{
    AckDeliveryRequest, HeadsRequest, HeartbeatAck, ServerFrame, SyncHeadsResponse, SyncMessagesRequest,
    SyncMessagesResponse, SyncResponse, server_frame::Payload,
};
use tokio::time::Instant;

use crate::{
    Gateway,
    closing::Reason,
    connections::{Link, register_again},
    ingest::Pod,
    limits::Window,
    metrics::{self, count},
    receive::{self, Acknowledged, Cursor, Outgoing, PageRequest, Received, Refused},
};

/// Bytes of a sync item besides its text.
const ITEM_BYTES: usize = 300;
/// A heartbeat renews the registration unless it was renewed within this part of the interval.
const RENEWALS_PER_INTERVAL: u32 = 30;
/// How long registry and ingest may hold up the answer to a heartbeat.
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(1);

/// What has ended.
enum Done {
    Sent(ChatId, Option<Arc<Pod>>),
    Acknowledged(ChatId),
    Synced,
    Other,
}

/// The requests of one connection.
pub struct Inbound {
    gateway: Arc<Gateway>,
    link: Arc<Link>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Requests that wait or run.
    count: usize,
    /// Chats with a send that runs, and the sends behind it.
    sends: HashMap<ChatId, VecDeque<Outgoing>>,
    /// Chats with an acknowledgement that runs, and the one that goes next.
    acks: HashMap<ChatId, Option<Acknowledged>>,
    /// Behind the page that is under way.
    pages: VecDeque<PageRequest>,
    is_syncing: bool,
    invalid: Window,
    refused: Window,
    renewed_at: Instant,
    last_heartbeat: Instant,
}

impl Inbound {
    /// Nothing waits yet.
    pub fn new(gateway: Arc<Gateway>, link: Arc<Link>) -> Self {
        let limits = gateway.limits.clone();
        let now = Instant::now();
        Self {
            gateway,
            link,
            running: FuturesUnordered::new(),
            count: 0,
            sends: HashMap::new(),
            acks: HashMap::new(),
            pages: VecDeque::new(),
            is_syncing: false,
            invalid: Window::new(limits.frame_invalid, limits.frame_invalid_within),
            refused: Window::new(limits.frame_refused, Duration::from_mins(1)),
            renewed_at: now,
            last_heartbeat: now,
        }
    }

    /// Whether every request has its answer.
    pub fn is_idle(&self) -> bool {
        self.count == 0
    }

    /// When the client last said that it is there.
    pub fn last_heartbeat(&self) -> Instant {
        self.last_heartbeat
    }

    /// Lets the requests go on until one has ended; `None` when there is none.
    pub async fn progress(&mut self) -> Option<()> {
        match self.running.next().await? {
            Done::Sent(chat, pod) => {
                self.count -= 1;
                match self.sends.get_mut(&chat).and_then(VecDeque::pop_front) {
                    Some(next) => self.start_send(next, pod),
                    None => drop(self.sends.remove(&chat)),
                }
            }
            Done::Acknowledged(chat) => match self.acks.get_mut(&chat).and_then(Option::take) {
                Some(next) => self.start_ack(next),
                None => drop(self.acks.remove(&chat)),
            },
            Done::Synced => {
                self.count -= 1;
                self.is_syncing = false;
                if let Some(next) = self.pages.pop_front() {
                    self.start_sync(next);
                }
            }
            Done::Other => self.count -= 1,
        }
        Some(())
    }

    /// Takes a request on, or refuses it.
    pub fn take(&mut self, received: Result<Received, Refused>) {
        let now = Instant::now();
        let kind = match &received {
            Ok(Received::Send(_)) => metrics::Received::SendMessage,
            Ok(Received::Ack(_)) => metrics::Received::Ack,
            Ok(Received::Sync(_)) => metrics::Received::SyncRequest,
            Ok(Received::Heads(..)) => metrics::Received::SyncHeads,
            Ok(Received::Heartbeat(..)) => metrics::Received::Heartbeat,
            Ok(Received::Unknown(_)) => metrics::Received::Unknown,
            Err(_) => metrics::Received::Invalid,
        };
        count(&self.gateway.metrics.received, kind);
        match received {
            Err(Refused { request_id, error }) => {
                self.link.refuse(&self.gateway, &request_id, &error, None);
                let is_invalid = matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::BadRequest);
                if is_invalid && self.invalid.is_reached_by(now) {
                    self.link.close(Reason::ProtocolError);
                }
            }
            Ok(Received::Unknown(kind)) => {
                tracing::warn!(connection.id = %self.link.record.id, "unknown frame type {kind:?}");
            }
            Ok(Received::Ack(ack)) => self.take_ack(ack),
            Ok(Received::Send(send)) => {
                let key = (self.link.record.user, send.chat);
                if let Err(error) = self.gateway.sends.take(key, now) {
                    count(&self.gateway.metrics.sends, metrics::Send::Limited);
                    self.refuse(&send.request_id, &error, Some(send.chat));
                } else if self.has_room(&send.request_id) {
                    self.count += 1;
                    match self.sends.get_mut(&send.chat) {
                        Some(waiting) => waiting.push_back(send),
                        None => self.start_send(send, None),
                    }
                }
            }
            Ok(Received::Sync(page)) => {
                if self.has_room(&page.request_id) {
                    self.count += 1;
                    if self.is_syncing { self.pages.push_back(page) } else { self.start_sync(page) }
                }
            }
            Ok(Received::Heads(request_id, chats)) => {
                if self.has_room(&request_id) {
                    self.count += 1;
                    self.running.push(Box::pin(heads(self.gateway.clone(), self.link.clone(), request_id, chats)));
                }
            }
            Ok(Received::Heartbeat(request_id, open)) => {
                self.last_heartbeat = now;
                if self.has_room(&request_id) {
                    self.count += 1;
                    let (gateway, link) = (self.gateway.clone(), self.link.clone());
                    let interval = gateway.limits.heartbeat_interval / RENEWALS_PER_INTERVAL;
                    let renewal = if now.saturating_duration_since(self.renewed_at) < interval {
                        Renewal::JustDone
                    } else {
                        self.renewed_at = now;
                        Renewal::Due
                    };
                    self.running.push(Box::pin(heartbeat(gateway, link, request_id, open, renewal)));
                }
            }
        }
    }

    /// Refuses what comes while this gateway stops: it is not stored, and may be sent elsewhere.
    pub fn turn_away(&mut self, received: Result<Received, Refused>) {
        let request_id = match received {
            Ok(Received::Send(send)) => send.request_id,
            Ok(Received::Sync(page)) => page.request_id,
            Ok(Received::Heads(request_id, _)) => request_id,
            Ok(Received::Ack(ack)) => return self.take_ack(ack),
            Ok(Received::Heartbeat(..) | Received::Unknown(_)) | Err(_) => return,
        };
        let error = Error::new(ErrorKind::ServerBusy, "this gateway is being replaced");
        self.link.refuse(&self.gateway, &request_id, &error, None);
    }

    fn has_room(&mut self, request_id: &str) -> bool {
        if self.count < self.gateway.limits.inbound_requests {
            return true;
        }
        let error = Error::new(ErrorKind::ServerBusy, "too many requests of this connection are under way")
            .with(Detail::RetryAfterSeconds(1));
        self.refuse(request_id, &error, None);
        false
    }

    fn refuse(&mut self, request_id: &str, error: &Error, chat: Option<ChatId>) {
        self.link.refuse(&self.gateway, request_id, error, chat);
        if self.refused.is_reached_by(Instant::now()) {
            let is_busy = error.kind() == ErrorKind::ServerBusy;
            self.link.close(if is_busy { Reason::ServerBusy } else { Reason::RateLimited });
        }
    }

    fn take_ack(&mut self, ack: Acknowledged) {
        let has_room = self.acks.len() < self.gateway.limits.inbound_requests;
        match self.acks.get_mut(&ack.chat) {
            // Cumulative: of those that wait, the highest says it all.
            Some(Some(waiting)) if waiting.delivered >= ack.delivered && waiting.read >= ack.read => {}
            Some(waiting) => {
                let read = waiting.and_then(|waiting| waiting.read).max(ack.read);
                *waiting = Some(Acknowledged { read, ..ack });
            }
            None if has_room => self.start_ack(ack),
            None => drop(self.gateway.metrics.lost_acks.inc()),
        }
    }

    fn start_send(&mut self, send: Outgoing, mut pod: Option<Arc<Pod>>) {
        let chat = send.chat;
        self.sends.entry(chat).or_default();
        let (gateway, link) = (self.gateway.clone(), self.link.clone());
        self.running.push(Box::pin(async move {
            receive::send(gateway, link, send, &mut pod).await;
            Done::Sent(chat, pod)
        }));
    }

    fn start_ack(&mut self, ack: Acknowledged) {
        self.acks.entry(ack.chat).or_insert(None);
        let (gateway, link) = (self.gateway.clone(), self.link.clone());
        self.running.push(Box::pin(async move {
            let request = AckDeliveryRequest {
                chat_id: ack.chat.to_string(),
                user_id: link.record.user.to_string(),
                last_acked_sequence: ack.delivered.0,
                last_read_sequence: ack.read.map(|read| read.0),
            };
            if let Err(error) = gateway.ingest.acknowledge(ack.chat, request).await {
                // Silent for the client, which repeats it with its next one (websocket-protocol §5.6).
                gateway.metrics.lost_acks.inc();
                tracing::debug!(connection.id = %link.record.id, chat.id = %ack.chat, "an ack was not taken: {error}");
            }
            Done::Acknowledged(ack.chat)
        }));
    }

    fn start_sync(&mut self, page: PageRequest) {
        self.is_syncing = true;
        self.running.push(Box::pin(sync(self.gateway.clone(), self.link.clone(), page)));
    }
}

async fn sync(gateway: Arc<Gateway>, link: Arc<Link>, page: PageRequest) -> Done {
    let request = SyncMessagesRequest {
        chat_id: page.chat.to_string(),
        user_id: link.record.user.to_string(),
        after_sequence: page.after.0,
        limit: page.limit,
    };
    match gateway.ingest.sync(page.chat, request).await {
        Ok(found) => {
            let response = cut(found, &page, &link.record.user.to_string(), gateway.limits.outbound_page_bytes);
            let frame = ServerFrame {
                request_id: page.request_id,
                timestamp: gateway.clock.now().0,
                payload: Some(Payload::SyncResponse(response)),
            };
            link.outbound.page(link.encoding.encode(&frame)).await;
        }
        Err(error) => link.refuse(&gateway, &page.request_id, &error, Some(page.chat)),
    }
    Done::Synced
}

/// Keeps a page below its limit of bytes, and others' ids of their messages out of it (D2.10).
fn cut(mut found: SyncMessagesResponse, page: &PageRequest, user: &str, bytes: usize) -> SyncResponse {
    let mut total = 0;
    let fits = found.messages.iter().take_while(|item| {
        total += item.content.len() + ITEM_BYTES;
        total <= bytes
    });
    let kept = fits.count().max(1);
    if kept < found.messages.len() {
        found.messages.truncate(kept);
        found.has_more = true;
    }
    for item in found.messages.iter_mut().filter(|item| item.sender_id != user) {
        item.client_message_id = None;
    }
    let last = found.messages.last().map_or(page.after.0, |item| item.sequence);
    SyncResponse {
        chat_id: page.chat.to_string(),
        messages: found.messages,
        has_more: found.has_more,
        next_sequence: found.has_more.then_some(last + 1),
    }
}

async fn heads(gateway: Arc<Gateway>, link: Arc<Link>, request_id: String, chats: Vec<Cursor>) -> Done {
    let response = match ask_heads(&gateway, &link, &chats).await {
        Ok(response) => response,
        Err(error) => {
            link.refuse(&gateway, &request_id, &error, None);
            return Done::Other;
        }
    };
    link.answer(&gateway, &request_id, Payload::SyncHeadsResponse(response));
    Done::Other
}

async fn ask_heads(gateway: &Gateway, link: &Link, chats: &[Cursor]) -> Result<SyncHeadsResponse, Error> {
    let Some(first) = chats.first() else { return Ok(SyncHeadsResponse::default()) };
    let user_id = link.record.user.to_string();
    let chat_ids = chats.iter().map(|cursor| cursor.chat.to_string()).collect();
    let found = gateway.ingest.heads(first.chat, HeadsRequest { user_id, chat_ids }).await?;
    Ok(SyncHeadsResponse { chats: found.chats, not_member: found.not_member })
}

enum Renewal {
    Due,
    JustDone,
}

async fn heartbeat(
    gateway: Arc<Gateway>,
    link: Arc<Link>,
    request_id: String,
    open: Vec<Cursor>,
    renewal: Renewal,
) -> Done {
    let ((), heads) = tokio::join!(
        async {
            if matches!(renewal, Renewal::Due) {
                renew(&gateway, &link).await;
            }
        },
        tokio::time::timeout(HEARTBEAT_WITHIN, ask_heads(&gateway, &link, &open))
    );
    let heads = heads.ok().and_then(Result::ok).unwrap_or_default().chats;
    let is_behind = |chat_id: &str, sequence: u64| {
        open.iter().any(|cursor| cursor.chat.to_string() == chat_id && cursor.last.0 < sequence)
    };
    let ack = HeartbeatAck {
        server_time: gateway.clock.now().0,
        resync: link.resync.swap(false, Ordering::AcqRel),
        heads: heads.into_iter().filter(|head| is_behind(&head.chat_id, head.current_sequence)).collect(),
    };
    link.answer(&gateway, &request_id, Payload::HeartbeatAck(ack));
    Done::Other
}

/// Renews the registration; when it had lapsed, pushes may have been missed (D5.5).
async fn renew(gateway: &Gateway, link: &Link) {
    let now = gateway.clock.now();
    let renewal = gateway.registry.renew(std::slice::from_ref(&link.record), now, gateway.registry_ttl());
    match tokio::time::timeout(HEARTBEAT_WITHIN, renewal).await {
        Ok(Ok(missing)) if missing.is_empty() => {}
        Ok(Ok(_)) => register_again(gateway, link).await,
        Ok(Err(error)) => tracing::debug!(connection.id = %link.record.id, "a registration was not renewed: {error}"),
        Err(_) => tracing::debug!(connection.id = %link.record.id, "a registration was not renewed in time"),
    }
}

#[cfg(test)]
mod tests {
    use domain::message::Sequence;
    use proto::messaging::v1::SyncItem;

    use super::*;

    fn item(sequence: u64, sender: &str, length: usize) -> SyncItem {
        let (sender_id, content) = (sender.to_owned(), "x".repeat(length));
        SyncItem { sequence, sender_id, content, client_message_id: Some("c".into()), ..SyncItem::default() }
    }

    #[test]
    fn a_page_stays_below_its_bytes_and_shows_only_own_client_ids() {
        let chat = ChatId(ulid::Ulid::from(1_u128));
        let page = PageRequest { request_id: "r".into(), chat, after: Sequence(4), limit: 100 };
        let messages = vec![item(5, "me", 700), item(6, "you", 700), item(7, "me", 700)];
        let found = SyncMessagesResponse { messages, has_more: false };
        let whole = cut(found.clone(), &page, "me", 3000);
        assert_eq!((whole.messages.len(), whole.has_more, whole.next_sequence), (3, false, None));
        let ids = whole.messages.iter().map(|item| item.client_message_id.is_some()).collect::<Vec<_>>();
        assert_eq!(ids, [true, false, true]);
        let part = cut(found.clone(), &page, "me", 2000);
        assert_eq!((part.messages.len(), part.has_more, part.next_sequence), (2, true, Some(7)));
        let least = cut(found, &page, "me", 1);
        assert_eq!((least.messages.len(), least.next_sequence), (1, Some(6)), "never an empty page that has more");
        let empty = cut(SyncMessagesResponse::default(), &page, "me", 1);
        assert_eq!((empty.messages.len(), empty.has_more), (0, false));
    }
}
