//! One WebSocket from its first frame to its last: bounded reading, writing, and an end that is told before it comes.
//!
//! What the messages mean is the business of whoever [`Talk`]s.

use std::{sync::OnceLock, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use futures_util::{
    FutureExt as _, SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{sync::Notify, time::sleep};
use tokio_tungstenite::tungstenite::{
    Error as SocketError,
    error::{CapacityError, ProtocolError},
};

use crate::{closing::Reason, config::Limits, outbound::Outbound};

/// Bytes that are read at once: what an idle connection holds for reading.
const READ_BUFFER: usize = 1024;
/// Bytes of answers and pushes that are written at once.
const WRITE_BUFFER: usize = 4096;
/// Messages that are taken one after the other before what was begun goes on: who sends without a pause must not keep
/// the clocks of their own connection from being looked at.
const TAKEN_AT_ONCE: u32 = 32;
/// How long a client that sent something unreadable has to read why, before what it still sends resets the connection.
/// Its own answer can't be read any more, so this is also how long it waits for the end after it.
const LINGER: Duration = Duration::from_millis(200);

/// What the rest of the process holds of a socket: what it is sent, and whether it is to end.
#[derive(Debug, Default)]
pub struct Line {
    /// What it is sent.
    pub outbound: Outbound,
    closing: OnceLock<Reason>,
    ended: Notify,
}

impl Line {
    /// Ends it; the first reason counts.
    pub fn close(&self, reason: Reason) {
        if self.closing.set(reason).is_ok() {
            if reason == Reason::SlowConsumer {
                self.outbound.forget_pushes(); // the client gets them by sync
            }
            self.outbound.shut();
            self.ended.notify_one();
        }
    }

    /// Why it ends, if it does.
    pub fn closing(&self) -> Option<Reason> {
        self.closing.get().copied()
    }
}

/// What is done with what a client sends.
pub trait Talk: Send {
    /// Takes a message that was there before the first one to the client was written.
    fn early(&mut self, message: Message);

    /// Takes a message. Waits for nothing.
    fn take(&mut self, message: Message);

    /// Whether it takes one now; while it does not, nothing is read.
    fn has_room(&self) -> bool {
        true
    }

    /// Goes on with what was begun, until there is something to look at. It is dropped when a message comes.
    fn progress(&mut self) -> impl Future<Output = ()> + Send;
}

/// The upgrade with bounded buffers, so that neither side of a connection can make this process hold more.
pub fn bounded<F>(upgrade: WebSocketUpgrade<F>, limits: &Limits) -> WebSocketUpgrade<F> {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + 2 * limits.outbound_bytes.max(limits.outbound_page_bytes * 8))
        .max_frame_size(limits.frame_bytes)
        .max_message_size(limits.frame_bytes)
}

/// Serves a socket until it ends. `farewell` is what goes before the close frame.
pub async fn run<T: Talk>(
    line: &Line,
    limits: &Limits,
    socket: WebSocket,
    talk: &mut T,
    farewell: impl Fn(Reason) -> Vec<Message>,
) {
    let (sink, mut stream) = socket.split();
    early(line, &mut stream, talk);
    let talk = async { tokio::join!(write(line, limits, sink, farewell), read(line, stream, talk)) };
    let slow = async {
        line.outbound.overdue(limits).await;
        line.close(Reason::SlowConsumer);
        std::future::pending::<()>().await;
    };
    let abandoned = async {
        line.ended.notified().await;
        sleep(limits.stop_close).await;
    };
    tokio::select! {
        _ = talk => {}
        () = slow => {}
        () = abandoned => {}
    }
}

/// Nobody can know that they are connected before they are told: what is there by now was sent blindly.
fn early<T: Talk>(line: &Line, stream: &mut SplitStream<WebSocket>, talk: &mut T) {
    while line.closing().is_none() && talk.has_room() {
        match stream.next().now_or_never() {
            Some(Some(Ok(Message::Close(_) | Message::Ping(_) | Message::Pong(_)))) => {}
            Some(Some(Ok(message))) => talk.early(message),
            Some(Some(Err(error))) => line.close(broken(error)),
            Some(None) => line.close(Reason::Gone),
            None => return,
        }
    }
}

/// Takes messages and lets requests go on, until the other side has closed too.
async fn read<T: Talk>(line: &Line, mut stream: SplitStream<WebSocket>, talk: &mut T) {
    let mut taken = 0;
    loop {
        let (has_room, is_turn_over) = (talk.has_room(), taken >= TAKEN_AT_ONCE);
        tokio::select! {
            // What is there is taken before what it asks for begins, so that it goes on together.
            biased;
            message = stream.next(), if has_room && !is_turn_over => {
                taken += 1;
                match message {
                    // After a close frame the stream goes on until our answer is out.
                    Some(Ok(Message::Close(_) | Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(message)) => talk.take(message),
                    Some(Err(error)) => return line.close(broken(error)),
                    None => return line.close(Reason::Gone),
                }
            }
            () = talk.progress() => taken = 0,
            () = tokio::task::yield_now(), if is_turn_over => taken = 0,
        }
    }
}

/// Writes what waits, one flush for all of it; at the end says why, and closes.
async fn write(
    line: &Line,
    limits: &Limits,
    mut sink: SplitSink<WebSocket, Message>,
    farewell: impl Fn(Reason) -> Vec<Message>,
) {
    loop {
        while let Some(message) = line.outbound.pop(limits) {
            if sink.feed(message).await.is_err() {
                return line.close(Reason::Gone);
            }
        }
        if sink.flush().await.is_err() {
            return line.close(Reason::Gone);
        }
        if let Some(reason) = line.closing() {
            if let Some(message) = line.outbound.pop(limits) {
                drop(sink.feed(message).await);
                continue;
            }
            return say_goodbye(reason, farewell(reason), &mut sink).await;
        }
        line.outbound.filled().await;
    }
}

async fn say_goodbye(reason: Reason, farewell: Vec<Message>, sink: &mut SplitSink<WebSocket, Message>) {
    if reason == Reason::Gone {
        return;
    }
    let close = Message::Close(Some(CloseFrame { code: reason.code(), reason: reason.name().into() }));
    for message in farewell.into_iter().chain([close]) {
        if sink.feed(message).await.is_err() {
            return;
        }
    }
    if sink.flush().await.is_ok() && reason.is_unreadable() {
        sleep(LINGER).await;
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
