//! Keeps how far each user has received and read each chat (D5.8).

use std::{sync::Arc, time::Duration};

use domain::{
    Clock, Error, ErrorKind,
    ids::{ChatId, UserId},
    message::Sequence,
    ports::{DeliveryState, delivery_state::Watermark},
};
use tokio::time::timeout;

use crate::{metrics::Metrics, persist::Persist, sync::Sync};

/// Advances watermarks, never above the chat's head.
pub struct Acknowledge {
    state: Arc<dyn DeliveryState>,
    persist: Arc<Persist>,
    sync: Arc<Sync>,
    clock: Arc<dyn Clock>,
    store_timeout: Duration,
    metrics: Metrics,
}

impl Acknowledge {
    /// Makes it; `store_timeout` bounds one call.
    pub fn new(
        state: Arc<dyn DeliveryState>,
        persist: Arc<Persist>,
        sync: Arc<Sync>,
        clock: Arc<dyn Clock>,
        store_timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        Self { state, persist, sync, clock, store_timeout, metrics }
    }

    /// Raises the user's marks. Returns the delivery mark as it is stored now: lower ones change nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for 0 and for a read mark above the acked one; `InvalidSequence` above the head;
    /// `NotAMember` when the head had to be read and the user is not in the chat; `Unavailable`.
    pub async fn acknowledge(
        &self,
        chat: ChatId,
        user: UserId,
        acked: Sequence,
        read: Option<Sequence>,
    ) -> Result<Sequence, Error> {
        if acked == Sequence(0) {
            return Err(Error::field("last_acked_sequence", "OUT_OF_RANGE", "a sequence is at least 1"));
        }
        if read.is_some_and(|read| read > acked) {
            return Err(Error::field("last_read_sequence", "OUT_OF_RANGE", "nobody reads what they have not received"));
        }
        let is_known = self.persist.known_head(chat).is_some_and(|head| acked <= head);
        if !is_known && acked > self.sync.head(chat, user).await? {
            self.metrics.acks_above_head.inc();
            return Err(Error::new(ErrorKind::InvalidSequence, "the chat has no message of this sequence yet"));
        }
        let stored = self.advance(user, chat, Watermark::Acked, acked).await?;
        if let Some(read) = read.filter(|read| *read > Sequence(0)) {
            self.advance(user, chat, Watermark::Read, read).await?;
        }
        Ok(stored)
    }

    async fn advance(&self, user: UserId, chat: ChatId, mark: Watermark, to: Sequence) -> Result<Sequence, Error> {
        let call = self.state.advance(user, chat, mark, to, self.clock.now());
        match timeout(self.store_timeout, call).await {
            Ok(result) => result,
            Err(elapsed) => Err(Error::unavailable("the store does not answer", elapsed)),
        }
    }
}
