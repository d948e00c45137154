//! The conversation of one connection: its requests, its clocks, and what it is told at the end.

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use domain::Error;
use futures_util::future::BoxFuture;
use platform::tokens::Holder;
use proto::messaging::v1::{ErrorFrame, ServerFrame, server_frame::Payload};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    Gateway,
    addresses::Place,
    clocks::Clocks,
    closing::Reason,
    connections::Link,
    inbound::Inbound,
    receive,
    socket::{self, Talk},
};

/// A connection that is registered. Dropping it takes it out again, however it ended.
pub struct Session {
    gateway: Arc<Gateway>,
    link: Arc<Link>,
    holder: Holder,
    _place: Option<Place>,
}

impl Session {
    /// Holds the connection from now on, and its place among those of its address.
    pub fn new(gateway: Arc<Gateway>, link: Arc<Link>, holder: Holder, place: Option<Place>) -> Self {
        gateway.connections.insert(link.clone());
        gateway.metrics.connections.inc();
        Self { gateway, link, holder, _place: place }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (gateway, link) = (self.gateway.clone(), self.link.clone());
        link.close(Reason::Gone);
        let reason = link.closing().unwrap_or(Reason::Gone);
        gateway.connections.remove(&link);
        gateway.metrics.connections.dec();
        gateway.metrics.ended(reason);
        tracing::info!(
            event = "connection.ended",
            connection.id = %link.record.id,
            reason = reason.name(),
            "connection {} ended: {}", link.record.id, reason.name()
        );
        let process = gateway.process.clone();
        drop(process.spawn_child(async move { gateway.deregister(&link).await }));
    }
}

/// Serves a connection until it ends.
pub async fn run(session: Session, socket: WebSocket) {
    let (gateway, link) = (&*session.gateway, &*session.link);
    let mut conversation = Conversation {
        gateway,
        link,
        holder: &session.holder,
        inbound: Inbound::new(session.gateway.clone(), session.link.clone()),
        clocks: Clocks::start(gateway, session.holder.expires_at),
        revocation: None,
        stop: gateway.process.stop_token(),
    };
    let farewell = |reason| farewell(gateway, link, reason);
    socket::run(&link.line, &gateway.limits, socket, &mut conversation, farewell).await;
}

/// Why the connection ends, for its client.
fn farewell(gateway: &Gateway, link: &Link, reason: Reason) -> Vec<Message> {
    let timestamp = gateway.clock.now().0;
    let delay = gateway.part_of(gateway.limits.stop_reconnect_within);
    let error = reason.error().map(|error| {
        let code = platform::wire::codes(error.kind()).frame.to_owned();
        Payload::Error(ErrorFrame { code, message: error.message().to_owned(), details: None })
    });
    let frames = error.into_iter().chain([reason.frame(delay)]).map(|payload| {
        link.encoding.encode(&ServerFrame { request_id: String::new(), timestamp, payload: Some(payload) })
    });
    frames.collect()
}

/// What goes on between a client and this gateway.
struct Conversation<'a> {
    gateway: &'a Gateway,
    link: &'a Link,
    holder: &'a Holder,
    inbound: Inbound,
    clocks: Clocks,
    /// Whether the session was revoked, while it is asked.
    revocation: Option<BoxFuture<'a, Result<bool, Error>>>,
    stop: CancellationToken,
}

impl Talk for Conversation<'_> {
    fn early(&mut self, message: Message) {
        match receive::read(self.link.encoding, &message) {
            None => self.link.close(Reason::WrongFrameKind),
            Some(received) => self.inbound.too_early(received),
        }
    }

    fn take(&mut self, message: Message) {
        match receive::read(self.link.encoding, &message) {
            None => self.link.close(Reason::WrongFrameKind),
            Some(received) if self.clocks.is_stopping() || self.link.closing().is_some() => {
                self.inbound.turn_away(received);
            }
            Some(received) => self.inbound.take(received),
        }
    }

    async fn progress(&mut self) {
        if self.clocks.is_stopping() && self.inbound.is_idle() {
            self.link.close(Reason::ServerShutdown);
        }
        let wake = self.clocks.next(self.gateway, self.inbound.last_heartbeat());
        let is_open = self.link.closing().is_none();
        let is_asked = self.revocation.is_some();
        tokio::select! {
            Some(()) = self.inbound.progress() => {}
            known = answer(&mut self.revocation), if is_asked => self.checked(&known),
            () = sleep_until(wake), if is_open => self.look(),
            () = self.stop.cancelled(), if !self.clocks.is_stopping() => {
                self.clocks.stop_by(Instant::now() + self.gateway.limits.stop_answers);
            }
            else => std::future::pending().await,
        }
    }
}

impl Conversation<'_> {
    fn look(&mut self) {
        let now = Instant::now();
        if self.clocks.takes_check(self.gateway, now) {
            self.revocation = Some(self.gateway.revocations.is_revoked(&self.holder.token_id, self.holder.session));
        }
        if let Some(reason) = self.clocks.reason(self.gateway, self.inbound.last_heartbeat(), now) {
            self.link.close(reason);
        }
    }

    fn checked(&mut self, known: &Result<bool, Error>) {
        self.revocation = None;
        if let Err(error) = known {
            tracing::debug!(connection.id = %self.link.record.id, "revocations can't be looked up: {error}");
        }
        if let Some(reason) = self.clocks.checked(known, Instant::now()) {
            self.link.close(reason);
        }
    }
}

async fn answer(asked: &mut Option<BoxFuture<'_, Result<bool, Error>>>) -> Result<bool, Error> {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}
