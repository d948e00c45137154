//! A log in memory that can be away, be full, and fail for good.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
};

use domain::{
    ids::ChatId,
    ports::{EventPublisher, Publication, PublishFailure, event_publisher::Confirmation},
};
use prost::Message as _;
use proto::events::v1::{Envelope, MessagePersisted, envelope::Event};
use tokio::sync::{oneshot, watch};

#[derive(Default)]
struct State {
    written: Vec<Publication>,
    /// Taken while the log is away.
    pending: Vec<(Publication, oneshot::Sender<Result<(), PublishFailure>>)>,
    is_away: bool,
    most_pending: usize,
}

/// The log, shared by all nodes of a test.
#[derive(Default)]
pub(crate) struct Log(Mutex<State>);

impl Log {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with it")
    }

    pub(crate) fn go_away(&self) {
        self.state().is_away = true;
    }

    /// Writes what was taken meanwhile, and goes on.
    pub(crate) fn come_back(&self) {
        let mut state = self.state();
        state.is_away = false;
        for (record, confirm) in std::mem::take(&mut state.pending) {
            state.written.push(record);
            confirm.send(Ok(())).unwrap_or(());
        }
    }

    /// Loses what was taken meanwhile, as a producer does that fails for good.
    pub(crate) fn fail_for_good(&self) {
        for (_, confirm) in std::mem::take(&mut self.state().pending) {
            // Nobody waits at a node that was killed.
            confirm.send(Err(PublishFailure::Fatal)).unwrap_or(());
        }
    }

    /// Writes a record, as it comes.
    pub(crate) fn write(&self, record: Publication) {
        self.state().written.push(record);
    }

    pub(crate) fn most_pending(&self) -> usize {
        self.state().most_pending
    }

    pub(crate) fn pending(&self) -> usize {
        self.state().pending.len()
    }

    pub(crate) fn records(&self) -> Vec<Publication> {
        self.state().written.clone()
    }

    /// Sequences of a chat as written, repetitions included.
    pub(crate) fn sequences(&self, chat: ChatId) -> Vec<u64> {
        let state = self.state();
        let of_chat = state.written.iter().filter(|record| record.key == chat.to_string());
        of_chat.map(|record| decode(record).sequence).collect()
    }

    /// Sequences of a chat at their first occurrence.
    pub(crate) fn first_occurrences(&self, chat: ChatId) -> Vec<u64> {
        let mut seen = HashSet::new();
        self.sequences(chat).into_iter().filter(|sequence| seen.insert(*sequence)).collect()
    }
}

pub(crate) fn decode(record: &Publication) -> MessagePersisted {
    let envelope = Envelope::decode(record.value.as_slice()).expect("an envelope");
    let Some(Event::MessagePersisted(event)) = envelope.event else { unreachable!("another event") };
    event
}

/// One node's way to the log, which can be cut.
pub(crate) struct Producer {
    pub(crate) log: Arc<Log>,
    pub(crate) cut: watch::Receiver<bool>,
}

impl EventPublisher for Producer {
    fn publish(&self, record: Publication) -> Result<Confirmation, PublishFailure> {
        if *self.cut.borrow() {
            return Ok(Box::pin(std::future::pending()));
        }
        let mut state = self.log.state();
        if state.is_away {
            let (confirm, confirmed) = oneshot::channel();
            state.pending.push((record, confirm));
            state.most_pending = state.most_pending.max(state.pending.len());
            return Ok(Box::pin(async { confirmed.await.unwrap_or(Err(PublishFailure::Fatal)) }));
        }
        state.written.push(record);
        Ok(Box::pin(std::future::ready(Ok(()))))
    }

    fn is_connected(&self) -> bool {
        !*self.cut.borrow() && !self.log.state().is_away
    }
}
