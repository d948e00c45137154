//! What a connection is sent: bounded lanes, and the signs of a client that does not read (D5.6).

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use axum::extract::ws::Message;
use proto::{
    frames,
    messaging::v1::{ServerFrame, server_frame::Payload},
};
use tokio::{sync::Notify, time::Instant};

use crate::config::Limits;

/// How frames of a connection look (D2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Text frames.
    Json,
    /// Binary frames.
    Protobuf,
}

impl Encoding {
    /// Writes a frame.
    pub fn encode(self, frame: &ServerFrame) -> Message {
        match self {
            Self::Json => Message::Text(frames::server_to_json(frame).into()),
            Self::Protobuf => Message::Binary(frames::server_to_protobuf(frame).into()),
        }
    }
}

/// A frame for many connections, written at most once for each encoding.
#[derive(Debug)]
pub struct SharedFrame {
    frame: ServerFrame,
    json: OnceLock<Message>,
    protobuf: OnceLock<Message>,
}

impl SharedFrame {
    /// Wraps a frame.
    pub fn new(frame: ServerFrame) -> Self {
        Self { frame, json: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// What is in it.
    pub fn payload(&self) -> Option<&Payload> {
        self.frame.payload.as_ref()
    }

    /// The frame in that encoding; copies share their bytes.
    pub fn encoded(&self, encoding: Encoding) -> Message {
        let slot = match encoding {
            Encoding::Json => &self.json,
            Encoding::Protobuf => &self.protobuf,
        };
        slot.get_or_init(|| encoding.encode(&self.frame)).clone()
    }
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It waits for the socket.
    Queued,
    /// It waits, and the client is to be warned now: what waits, and what may.
    Warned(u64, u64),
    /// There is no room: the connection has to end.
    Full,
    /// The connection is ending already.
    Closing,
}

/// The lanes of one connection. Answers go first, then a sync page, then pushes.
#[derive(Debug, Default)]
pub struct Outbound {
    lanes: Mutex<Lanes>,
    /// Something waits, or the lanes were shut.
    filled: Notify,
    page_taken: Notify,
    warned: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    reserved: VecDeque<Message>,
    page: Option<Message>,
    pushes: VecDeque<Message>,
    push_bytes: usize,
    is_loud: bool,
    warned_at: Option<Instant>,
    is_shut: bool,
}

impl Lanes {
    /// What waits in per mille of what may, by count or by bytes, whichever is more.
    fn fill(&self, limits: &Limits) -> usize {
        let count = self.pushes.len() * 1000 / limits.outbound_messages.max(1);
        let bytes = self.push_bytes * 1000 / limits.outbound_bytes.max(1);
        count.max(bytes)
    }
}

impl Outbound {
    /// Queues an answer, an error or a notice. Returns whether there was room.
    #[must_use]
    pub fn reserve(&self, message: Message, limits: &Limits) -> bool {
        let mut lanes = self.lanes();
        if lanes.is_shut {
            return true;
        }
        if lanes.reserved.len() >= limits.outbound_reserved {
            return false;
        }
        lanes.reserved.push_back(message);
        drop(lanes);
        self.filled.notify_one();
        true
    }

    /// Queues a sync page and waits until the socket takes it, so that there is never a second one.
    pub async fn page(&self, message: Message) {
        {
            let mut lanes = self.lanes();
            if lanes.is_shut {
                return;
            }
            lanes.page = Some(message);
        }
        self.filled.notify_one();
        self.page_taken.notified().await;
    }

    /// Queues a push.
    pub fn push(&self, message: Message, now: Instant, limits: &Limits) -> Taken {
        let mut lanes = self.lanes();
        if lanes.is_shut {
            return Taken::Closing;
        }
        let bytes = length(&message);
        if lanes.pushes.len() >= limits.outbound_messages || lanes.push_bytes + bytes > limits.outbound_bytes {
            return Taken::Full;
        }
        lanes.pushes.push_back(message);
        lanes.push_bytes += bytes;
        let fill = lanes.fill(limits);
        if fill > 800 && !lanes.is_loud {
            lanes.is_loud = true;
            tracing::info!(
                event = "connection.slow",
                outbound.messages = lanes.pushes.len(),
                "a client reads slowly: its queue is filled by 80 %"
            );
        }
        let taken = if fill > 950 && lanes.warned_at.is_none() {
            lanes.warned_at = Some(now);
            if lanes.push_bytes * limits.outbound_messages > lanes.pushes.len() * limits.outbound_bytes {
                Taken::Warned(lanes.push_bytes as u64, limits.outbound_bytes as u64)
            } else {
                Taken::Warned(lanes.pushes.len() as u64, limits.outbound_messages as u64)
            }
        } else {
            Taken::Queued
        };
        drop(lanes);
        self.filled.notify_one();
        if matches!(taken, Taken::Warned(..)) {
            self.warned.notify_one();
        }
        taken
    }

    /// The next frame for the socket, if one waits.
    pub fn pop(&self, limits: &Limits) -> Option<Message> {
        let mut lanes = self.lanes();
        if let Some(message) = lanes.reserved.pop_front() {
            return Some(message);
        }
        if let Some(page) = lanes.page.take() {
            self.page_taken.notify_one();
            return Some(page);
        }
        let message = lanes.pushes.pop_front()?;
        lanes.push_bytes -= length(&message);
        if lanes.fill(limits) < 800 {
            lanes.is_loud = false;
            lanes.warned_at = None;
        }
        if lanes.pushes.is_empty() && lanes.pushes.capacity() > 32 {
            lanes.pushes = VecDeque::new(); // an idle connection holds no memory for its last burst
        }
        Some(message)
    }

    /// Bytes of pushes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.lanes().push_bytes
    }

    /// Resolves when something may wait.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Resolves when the client has not caught up within the grace period after a warning.
    pub async fn overdue(&self, limits: &Limits) {
        loop {
            self.warned.notified().await;
            while let Some(since) = self.warned_at() {
                tokio::time::sleep_until(since + limits.outbound_grace).await;
                if self.warned_at() == Some(since) {
                    return;
                }
            }
        }
    }

    /// Since when the client has known that it is too slow.
    pub fn warned_at(&self) -> Option<Instant> {
        self.lanes().warned_at
    }

    /// Takes nothing more; what waits may still go out.
    pub fn shut(&self) {
        self.lanes().is_shut = true;
        self.filled.notify_one();
        self.page_taken.notify_one();
    }

    /// Forgets the pushes that wait.
    pub fn forget_pushes(&self) {
        let mut lanes = self.lanes();
        lanes.pushes = VecDeque::new();
        lanes.push_bytes = 0;
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.as_str().len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(messages: usize, bytes: usize) -> Limits {
        Limits { outbound_messages: messages, outbound_bytes: bytes, outbound_reserved: 2, ..Limits::default() }
    }

    fn text(length: usize) -> Message {
        Message::Text("x".repeat(length).into())
    }

    #[tokio::test]
    async fn a_full_queue_warns_first_and_then_takes_nothing() {
        let (limits, now) = (limits(100, 1_000_000), Instant::now());
        let outbound = Outbound::default();
        for _ in 0..95 {
            assert_eq!(outbound.push(text(1), now, &limits), Taken::Queued);
        }
        assert_eq!(outbound.push(text(1), now, &limits), Taken::Warned(96, 100));
        assert_eq!(outbound.warned_at(), Some(now));
        for _ in 96..100 {
            assert_eq!(outbound.push(text(1), now, &limits), Taken::Queued, "one warning is enough");
        }
        assert_eq!(outbound.push(text(1), now, &limits), Taken::Full);
        assert!(outbound.reserve(text(2), &limits), "answers have a lane of their own");
        assert_eq!(outbound.pop(&limits), Some(text(2)), "and go first");
        for _ in 0..21 {
            outbound.pop(&limits);
        }
        assert_eq!(outbound.warned_at(), None, "below 80 % all is well");
    }

    #[tokio::test]
    async fn bytes_count_as_well_as_messages() {
        let (limits, now) = (limits(100, 1000), Instant::now());
        let outbound = Outbound::default();
        assert_eq!(outbound.push(text(960), now, &limits), Taken::Warned(960, 1000));
        assert_eq!(outbound.push(text(41), now, &limits), Taken::Full);
        assert_eq!(outbound.push(text(40), now, &limits), Taken::Queued);
    }

    #[tokio::test]
    async fn the_reserved_lane_is_bounded_too() {
        let limits = limits(1, 1);
        let outbound = Outbound::default();
        assert!(outbound.reserve(text(1), &limits));
        assert!(outbound.reserve(text(1), &limits));
        assert!(!outbound.reserve(text(1), &limits));
        outbound.shut();
        assert_eq!(outbound.push(text(1), Instant::now(), &limits), Taken::Closing);
        assert!(outbound.pop(&limits).is_some(), "what waits may still go out");
    }

    #[test]
    fn a_shared_frame_is_written_once_for_each_encoding() {
        let shared = SharedFrame::new(ServerFrame::default());
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            assert_eq!(shared.encoded(encoding), shared.encoded(encoding));
        }
    }
}
