//! The connections of this gateway: who they belong to, what they got, and that the registry knows them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use domain::{
    Error, ErrorKind,
    error::Detail,
    ids::{ChatId, ConnectionId, UserId},
    message::Sequence,
    route::Connection,
};
use futures_util::{StreamExt as _, stream};
use platform::wire;
use proto::messaging::v1::{ErrorDetails, ErrorFrame, ServerFrame, server_frame::Payload};
use tokio::task::JoinHandle;

use crate::{
    Gateway,
    closing::Reason,
    metrics,
    outbound::{Encoding, SharedFrame, Taken},
    socket::Line,
};

/// Registrations that run at once when all have to be repeated.
const REGISTER_AT_ONCE: usize = 64;

/// The request that something is said about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Of which type.
    pub kind: metrics::Received,
    /// What its answer repeats; empty when there is none.
    pub request_id: &'a str,
    /// Of which chat, if of one.
    pub chat: Option<ChatId>,
}

impl<'a> Asked<'a> {
    /// What log lines say; nothing of a request without an id.
    pub fn named(&self) -> Option<&'a str> {
        (!self.request_id.is_empty()).then_some(self.request_id)
    }
}

/// A log line about a request of a connection (`observability.md` §3).
macro_rules! about {
    ($level:ident, $link:expr, $asked:expr, $($rest:tt)+) => {
        tracing::$level!(
            gateway.id = %$link.record.gateway,
            connection.id = %$link.record.id,
            user.id = %$link.record.user,
            request.id = $asked.named(),
            "message.type" = $asked.kind.name(),
            chat.id = $asked.chat.map(tracing::field::display),
            $($rest)+
        )
    };
}
pub(crate) use about;

/// What the rest of the gateway knows of one connection.
#[derive(Debug)]
pub struct Link {
    /// What the registry knows of it.
    pub record: Connection,
    /// How its frames look.
    pub encoding: Encoding,
    /// What it is sent, and whether it ends.
    pub line: Line,
    /// Pushes may have been missed: its next heartbeat says so.
    pub resync: AtomicBool,
    fence: Mutex<Fence>,
}

impl Link {
    /// A connection that has just come.
    pub fn new(record: Connection, encoding: Encoding) -> Self {
        Self { record, encoding, line: Line::default(), resync: AtomicBool::new(false), fence: Mutex::default() }
    }

    /// Ends it; the first reason counts.
    pub fn close(&self, reason: Reason) {
        self.line.close(reason);
    }

    /// Why it ends, if it does.
    pub fn closing(&self) -> Option<Reason> {
        self.line.closing()
    }

    /// Sends an answer (with `request_id`) or a notice (without). No room means a client that does not read.
    pub fn answer(&self, gateway: &Gateway, request_id: &str, payload: Payload) {
        gateway.metrics.sent(&payload);
        let timestamp = gateway.clock.now().0;
        let frame = ServerFrame { request_id: request_id.to_owned(), timestamp, payload: Some(payload) };
        if !self.line.outbound.reserve(self.encoding.encode(&frame), &gateway.limits) {
            self.close(Reason::SlowConsumer);
        }
    }

    /// Tells a failure: to the request of that id, or to none.
    pub fn refuse(&self, gateway: &Gateway, asked: Asked<'_>, error: &Error) {
        let chat_id = asked.chat.map(|chat| chat.to_string());
        let mut details = ErrorDetails { chat_id, ..ErrorDetails::default() };
        for detail in error.details() {
            match detail {
                Detail::Field(field, ..) => details.field = Some(field.clone().into_owned()),
                Detail::RetryAfterSeconds(seconds) => details.retry_after_seconds = Some(*seconds),
                Detail::Number(name, number) if name == "limit" => details.limit = Some(*number),
                Detail::Number(..) | Detail::Text(..) => {}
            }
        }
        let details = (details != ErrorDetails::default()).then_some(details);
        self.log(asked, error);
        let code = wire::code(error).to_owned();
        let message = error.message().to_owned();
        self.answer(gateway, asked.request_id, Payload::Error(ErrorFrame { code, message, details }));
    }

    /// Logs a failure. Its message may quote what the client sent, so it stays out of the log unless it is ours.
    pub fn log(&self, asked: Asked<'_>, error: &Error) {
        let kind = error.kind();
        let code = wire::code(error);
        if kind == ErrorKind::Internal {
            about!(warn, self, asked, event = "request.failed", error.code = code, error.message = %error, "a request failed");
        } else if kind == ErrorKind::Unavailable {
            about!(debug, self, asked, event = "request.failed", error.code = code, error.message = %error, "a request failed");
        } else {
            about!(debug, self, asked, event = "request.refused", error.code = code, "refused a request: {kind:?}");
        }
    }

    /// Logs a frame of a type that this version does not know.
    pub fn log_unknown(&self, asked: Asked<'_>, name: &str) {
        about!(warn, self, asked, event = "frame.unknown", "unknown frame type {name:?}");
    }

    /// Sends a push.
    pub fn push(&self, gateway: &Gateway, frame: &SharedFrame) -> Taken {
        let message = frame.encoded(self.encoding);
        let taken = self.line.outbound.push(message, tokio::time::Instant::now(), &gateway.limits);
        if matches!(taken, Taken::Queued | Taken::Warned(..)) {
            frame.payload().inspect(|payload| gateway.metrics.sent(payload));
        }
        match taken {
            Taken::Warned(size, limit) => {
                let grace = gateway.limits.outbound_grace.as_secs();
                let details = ErrorDetails {
                    buffer_size: Some(size),
                    buffer_limit: Some(limit),
                    grace_period_seconds: Some(u32::try_from(grace).unwrap_or(u32::MAX)),
                    ..ErrorDetails::default()
                };
                let warning = ErrorFrame {
                    code: wire::codes(ErrorKind::SlowConsumer).frame.to_owned(),
                    message: "outbound queue nearly full; the connection may be closed".to_owned(),
                    details: Some(details),
                };
                self.answer(gateway, "", Payload::Error(warning));
            }
            Taken::Full => self.close(Reason::SlowConsumer),
            Taken::Queued | Taken::Closing => {}
        }
        taken
    }

    /// Sends the push of a message if it is above what this connection got of the chat; `None` if it is not.
    pub fn push_message(
        &self,
        gateway: &Gateway,
        (chat, sequence): (ChatId, Sequence),
        frame: &SharedFrame,
    ) -> Option<Taken> {
        // Held while queueing, so that two delivery streams can't turn the order round.
        let mut fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner);
        fence.passes(chat, sequence, gateway.limits.fence_chats).then(|| self.push(gateway, frame))
    }

    /// Notes that the push of a message was left out, for this connection sent it.
    pub fn passed_over(&self, chat: ChatId, sequence: Sequence, chats: usize) {
        self.fence.lock().unwrap_or_else(PoisonError::into_inner).passes(chat, sequence, chats);
    }

    /// Notes that the connection knows this message from its own acknowledgement.
    pub fn knows(&self, chat: ChatId, sequence: Sequence, chats: usize) {
        self.fence.lock().unwrap_or_else(PoisonError::into_inner).knows(chat, sequence, chats);
    }
}

/// Per chat the highest sequence pushed (D5.3): what is not above it is dropped.
///
/// An acknowledgement must not raise it, for a lower push of somebody else may still be on its way. Own
/// sequences are kept beside it instead, until the pushes have come so far.
#[derive(Debug, Default)]
struct Fence {
    chats: HashMap<ChatId, Pushed>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Pushed {
    highest: Sequence,
    own: Vec<Sequence>,
    touched: u64,
}

/// Own sequences that are kept of one chat.
const OWN: usize = 64;

impl Fence {
    fn passes(&mut self, chat: ChatId, sequence: Sequence, chats: usize) -> bool {
        let pushed = self.of(chat, chats);
        if sequence <= pushed.highest {
            return false;
        }
        pushed.highest = sequence;
        let is_own = pushed.own.contains(&sequence);
        pushed.own.retain(|own| *own > sequence);
        !is_own
    }

    fn knows(&mut self, chat: ChatId, sequence: Sequence, chats: usize) {
        let pushed = self.of(chat, chats);
        if sequence > pushed.highest && pushed.own.len() < OWN {
            pushed.own.push(sequence);
        }
    }

    fn of(&mut self, chat: ChatId, chats: usize) -> &mut Pushed {
        self.clock += 1;
        if self.chats.len() >= chats && !self.chats.contains_key(&chat) {
            let oldest = self.chats.iter().min_by_key(|(_, pushed)| pushed.touched).map(|(chat, _)| *chat);
            oldest.and_then(|oldest| self.chats.remove(&oldest));
        }
        let pushed = self.chats.entry(chat).or_default();
        pushed.touched = self.clock;
        pushed
    }
}

/// The connections of this gateway, by user.
#[derive(Debug, Default)]
pub struct Connections(RwLock<HashMap<UserId, Vec<Arc<Link>>>>);

impl Connections {
    /// Adds one.
    pub fn insert(&self, link: Arc<Link>) {
        let mut users = self.0.write().unwrap_or_else(PoisonError::into_inner);
        users.entry(link.record.user).or_default().push(link);
    }

    /// Takes one out; whether it was there.
    pub fn remove(&self, link: &Link) -> bool {
        let mut users = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(links) = users.get_mut(&link.record.user) else { return false };
        let before = links.len();
        links.retain(|other| other.record.id != link.record.id);
        let removed = links.len() < before;
        if links.is_empty() {
            users.remove(&link.record.user);
        }
        removed
    }

    /// The connections of a user.
    pub fn of(&self, user: UserId) -> Vec<Arc<Link>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&user).cloned().unwrap_or_default()
    }

    /// One connection of a user.
    pub fn find(&self, user: UserId, id: ConnectionId) -> Option<Arc<Link>> {
        self.of(user).into_iter().find(|link| link.record.id == id)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }
}

/// Says in the registry that this gateway lives; when it was forgotten, registers everything again (D5.5).
pub async fn announce(gateway: Arc<Gateway>) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(gateway.limits.registry_announce);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stop = gateway.process.stop_token();
    let alive = gateway.process.liveness("gateway announces itself", gateway.limits.registry_announce * 12);
    let (mut was_away, mut is_forgotten) = (false, false);
    let mut registering: Option<JoinHandle<()>> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => alive.beat(),
        }
        match gateway.registry.announce(&gateway.id, gateway.registry_ttl()).await {
            Ok(is_known) => {
                if was_away {
                    tracing::info!(event = "registry.back", "the connection registry is back");
                }
                was_away = false;
                is_forgotten |= !is_known;
                // Beside this loop, which goes on to say that the gateway lives, however long it takes.
                if is_forgotten && registering.as_ref().is_none_or(JoinHandle::is_finished) {
                    is_forgotten = false;
                    registering = Some(gateway.process.spawn_child(register_all(gateway.clone())));
                }
            }
            Err(error) if !was_away => {
                was_away = true;
                tracing::warn!(
                    event = "registry.away",
                    error.code = wire::code(&error),
                    error.message = %error,
                    "failed to announce this gateway"
                );
            }
            Err(_) => {}
        }
    }
}

async fn register_all(gateway: Arc<Gateway>) {
    let links = gateway.connections.all();
    if links.is_empty() {
        return;
    }
    tracing::warn!(
        event = "registry.forgot",
        connections = links.len(),
        "the registry had forgotten this gateway: registering its connections again"
    );
    stream::iter(links).for_each_concurrent(REGISTER_AT_ONCE, async |link| register_again(&gateway, &link).await).await;
}

/// Registers a connection whose registration had lapsed; its client is to sync.
pub async fn register_again(gateway: &Gateway, link: &Link) {
    let now = gateway.clock.now();
    let registered = gateway.registry.register(&link.record, now, gateway.registry_ttl()).await;
    // Only now: who syncs while the route is not there yet would miss what comes in between.
    link.resync.store(true, Ordering::Release);
    match registered {
        // It ended meanwhile, and its deregistration may have come first.
        Ok(_) if link.closing().is_some() => gateway.deregister(link).await,
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(
                event = "connection.register_failed",
                connection.id = %link.record.id,
                error.code = wire::code(&error),
                error.message = %error,
                "failed to register connection {} again", link.record.id
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Ids as _;
    use platform::clock::SystemIds;

    use super::*;

    fn chat() -> ChatId {
        ChatId(SystemIds.ulid())
    }

    #[test]
    fn a_fence_drops_what_is_not_above_the_highest() {
        let (mut fence, chat, other) = (Fence::default(), chat(), chat());
        let mut passes = |chat, sequence| fence.passes(chat, Sequence(sequence), 256);
        assert!(passes(chat, 7));
        assert!(!passes(chat, 7));
        assert!(!passes(chat, 6));
        assert!(passes(chat, 9), "a hole is the client's to fill");
        assert!(passes(other, 1), "chats don't share");
    }

    #[test]
    fn an_own_acknowledgement_hides_no_earlier_push() {
        let (mut fence, chat) = (Fence::default(), chat());
        fence.knows(chat, Sequence(43), 256);
        assert!(fence.passes(chat, Sequence(42), 256), "somebody else's, still on its way");
        assert!(!fence.passes(chat, Sequence(43), 256), "known from the acknowledgement");
        assert!(fence.passes(chat, Sequence(44), 256));
    }

    #[test]
    fn the_oldest_chat_is_forgotten_first() {
        let (mut fence, first, second, third) = (Fence::default(), chat(), chat(), chat());
        for chat in [first, second] {
            assert!(fence.passes(chat, Sequence(5), 2));
        }
        assert!(!fence.passes(first, Sequence(5), 2), "touched again");
        assert!(fence.passes(third, Sequence(5), 2));
        assert!(!fence.passes(first, Sequence(5), 2));
        assert!(fence.passes(second, Sequence(5), 2), "forgotten");
    }
}
