//! One WebSocket from its first frame to its last: reading, writing, the clocks that end it, and its end.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use domain::Error;
use futures_util::{
    FutureExt as _, SinkExt as _, StreamExt as _,
    future::Fuse,
    stream::{SplitSink, SplitStream},
};
use platform::tokens::Holder;
use proto::messaging::v1::ServerFrame;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::{
    Error as SocketError,
    error::{CapacityError, ProtocolError},
};

use crate::{Gateway, closing::Reason, connections::Link, inbound::Inbound, metrics::count, receive};

/// How long a client that sent something unreadable has to read why, before what it still sends resets the connection.
const LINGER: Duration = Duration::from_millis(500);
/// A close after lost contact to the revocations is spread over this part of the grace period.
const SPREAD: u32 = 10;

/// A connection that is registered. Dropping it takes it out again, however it ended.
pub struct Session {
    gateway: Arc<Gateway>,
    link: Arc<Link>,
    holder: Holder,
}

impl Session {
    /// Holds the connection from now on.
    pub fn new(gateway: Arc<Gateway>, link: Arc<Link>, holder: Holder) -> Self {
        gateway.connections.insert(link.clone());
        gateway.metrics.connections.inc();
        Self { gateway, link, holder }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (gateway, link) = (self.gateway.clone(), self.link.clone());
        link.close(Reason::Gone);
        let reason = link.closing().unwrap_or(Reason::Gone);
        gateway.connections.remove(&link);
        gateway.metrics.connections.dec();
        count(&gateway.metrics.closed, reason);
        tracing::info!(connection.id = %link.record.id, "connection {} ended: {}", link.record.id, reason.name());
        let process = gateway.process.clone();
        drop(process.spawn_child(async move { gateway.deregister(&link).await }));
    }
}

/// Serves a connection until it ends.
pub async fn run(session: Session, socket: WebSocket) {
    let (gateway, link) = (&session.gateway, &session.link);
    let (sink, stream) = socket.split();
    let mut clocks = Clocks::start(&session);
    let talk = async {
        tokio::join!(write(gateway, link, sink), read(&session, stream, &mut clocks));
    };
    let slow = async {
        link.outbound.overdue(&gateway.limits).await;
        link.close(Reason::SlowConsumer);
        std::future::pending::<()>().await;
    };
    let abandoned = async {
        link.ended().await;
        sleep(gateway.limits.stop_close).await;
    };
    tokio::select! {
        () = talk => {}
        () = slow => {}
        () = abandoned => {}
    }
}

/// Writes what waits, one flush for all of it; at the end says why, and closes.
async fn write(gateway: &Gateway, link: &Link, mut sink: SplitSink<WebSocket, Message>) {
    loop {
        while let Some(message) = link.outbound.pop(&gateway.limits) {
            if sink.feed(message).await.is_err() {
                return link.close(Reason::Gone);
            }
        }
        if sink.flush().await.is_err() {
            return link.close(Reason::Gone);
        }
        if let Some(reason) = link.closing() {
            if let Some(message) = link.outbound.pop(&gateway.limits) {
                drop(sink.feed(message).await);
                continue;
            }
            return say_goodbye(gateway, link, reason, &mut sink).await;
        }
        link.outbound.filled().await;
    }
}

async fn say_goodbye(gateway: &Gateway, link: &Link, reason: Reason, sink: &mut SplitSink<WebSocket, Message>) {
    if reason == Reason::Gone {
        return;
    }
    let delay = gateway.part_of(gateway.limits.stop_reconnect_within);
    let timestamp = gateway.clock.now().0;
    let last = ServerFrame { request_id: String::new(), timestamp, payload: Some(reason.frame(delay)) };
    let close = Message::Close(Some(CloseFrame { code: reason.code(), reason: reason.name().into() }));
    for message in [link.encoding.encode(&last), close] {
        if sink.feed(message).await.is_err() {
            return;
        }
    }
    if sink.flush().await.is_ok() && matches!(reason, Reason::FrameTooLarge | Reason::NotUtf8) {
        sleep(LINGER).await;
    }
}

/// Takes frames and lets requests go on, until the other side has closed too.
async fn read(session: &Session, mut stream: SplitStream<WebSocket>, clocks: &mut Clocks) {
    let Session { gateway, link, holder } = session;
    let mut inbound = Inbound::new(gateway.clone(), link.clone());
    let mut revocation = std::pin::pin!(Fuse::terminated());
    let stop = gateway.process.stop_token();
    loop {
        let wake = clocks.next(gateway, &inbound);
        tokio::select! {
            frame = stream.next() => match frame {
                // After a close frame the stream goes on until our answer is out.
                Some(Ok(Message::Close(_) | Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => match receive::read(link.encoding, &message) {
                    None => link.close(Reason::WrongFrameKind),
                    Some(received) if clocks.stop_by.is_some() || link.closing().is_some() => inbound.turn_away(received),
                    Some(received) => inbound.take(received),
                },
                Some(Err(error)) => return link.close(broken(error)),
                None => return link.close(Reason::Gone),
            },
            Some(()) = inbound.progress() => {}
            known = &mut revocation => clocks.revocation_known(session, known),
            () = sleep_until(wake), if link.closing().is_none() => {
                if clocks.is_check_due() {
                    clocks.check_at = Instant::now() + gateway.limits.revocation_check;
                    revocation.set(gateway.revocations.is_revoked(&holder.token_id, holder.session).fuse());
                }
                if let Some(reason) = clocks.reason(gateway, &inbound) {
                    link.close(reason);
                }
            }
            () = stop.cancelled(), if clocks.stop_by.is_none() => {
                clocks.stop_by = Some(Instant::now() + gateway.limits.stop_answers);
            }
        }
        if clocks.stop_by.is_some() && inbound.is_idle() {
            link.close(Reason::ServerShutdown);
        }
    }
}

/// Why a socket can't be read any more.
fn broken(error: axum::Error) -> Reason {
    match error.into_inner().downcast::<SocketError>().map(|error| *error) {
        Ok(SocketError::Capacity(CapacityError::MessageTooLong { .. })) => Reason::FrameTooLarge,
        Ok(SocketError::Utf8(_)) => Reason::NotUtf8,
        Ok(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Reason::Gone,
        Ok(SocketError::Protocol(_)) => Reason::ProtocolError,
        Ok(_) | Err(_) => Reason::Gone,
    }
}

/// What ends a connection by time.
struct Clocks {
    expires_at: Instant,
    too_old_at: Instant,
    check_at: Instant,
    /// Since when nobody could say whether the session was revoked.
    unknown_since: Option<Instant>,
    /// How long that is bearable.
    grace: Duration,
    /// When a stopping gateway waits no longer for answers.
    stop_by: Option<Instant>,
}

impl Clocks {
    fn start(session: &Session) -> Self {
        let (gateway, now) = (&session.gateway, Instant::now());
        let limits = &gateway.limits;
        let left = session.holder.expires_at.since(gateway.clock.now());
        Self {
            expires_at: now + left,
            too_old_at: now + limits.connection_age - gateway.part_of(limits.connection_age / 10),
            check_at: now + limits.revocation_check,
            unknown_since: None,
            grace: limits.revocation_grace + gateway.part_of(limits.revocation_grace / SPREAD),
            stop_by: None,
        }
    }

    fn idle_at(gateway: &Gateway, inbound: &Inbound) -> Instant {
        inbound.last_heartbeat() + gateway.limits.heartbeat_interval * 2
    }

    fn next(&self, gateway: &Gateway, inbound: &Inbound) -> Instant {
        let always = [self.expires_at, self.too_old_at, self.check_at].into_iter();
        let sometimes = self.stop_by.into_iter().chain(self.unknown_since.map(|since| since + self.grace));
        always.chain(sometimes).fold(Self::idle_at(gateway, inbound), Instant::min)
    }

    fn is_check_due(&self) -> bool {
        self.check_at <= Instant::now()
    }

    fn reason(&self, gateway: &Gateway, inbound: &Inbound) -> Option<Reason> {
        let now = Instant::now();
        if self.stop_by.is_some_and(|stop_by| stop_by <= now) {
            Some(Reason::ServerShutdown)
        } else if self.expires_at <= now {
            Some(Reason::TokenExpired)
        } else if Self::idle_at(gateway, inbound) <= now {
            Some(Reason::IdleTimeout)
        } else if self.too_old_at <= now {
            Some(Reason::MaximumAge)
        } else if self.unknown_since.is_some_and(|since| since + self.grace <= now) {
            Some(Reason::RevocationUnknown)
        } else {
            None
        }
    }

    fn revocation_known(&mut self, session: &Session, known: Result<bool, Error>) {
        match known {
            Ok(false) => self.unknown_since = None,
            Ok(true) => session.link.close(Reason::SessionRevoked),
            Err(error) => {
                self.unknown_since.get_or_insert_with(Instant::now);
                tracing::debug!(connection.id = %session.link.record.id, "revocations can't be looked up: {error}");
            }
        }
    }
}
