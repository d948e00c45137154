//! Asks the store for one batch, until it is known what became of it.

use domain::{
    Error, ErrorKind,
    ids::ChatId,
    message::{Sequence, StoredMessage},
    ports::message_log::{Batch, Commit},
    publisher::{Incarnation, PublisherMark},
};
use platform::{failpoint, trace, wire};
use tokio::time::timeout;
use tracing::{Instrument as _, field};

use super::{Attempt, Committer, Pending, judge};
use crate::{metrics::StoreError, publish::Floor};

impl Committer {
    /// The batch as it is to be asked for; `None` while this process may not store.
    pub(super) fn attempt(&self, chat: ChatId, head: Sequence, floor: Floor, pending: &[Pending]) -> Option<Attempt> {
        let incarnation = self.tenure.current()?;
        let now = self.clock.now();
        let hold = self.slots.hold(now);
        let messages = pending.iter().zip(head.0 + 1..).map(|(pending, sequence)| stored(pending, Sequence(sequence)));
        let batch = Batch {
            chat,
            token: self.ids.ulid().to_string(),
            after: head,
            messages: messages.collect(),
            published_through: self.publish.published_through(chat, floor),
            publisher: PublisherMark::new(incarnation, hold.slot(), chat),
            at: now,
        };
        let span = tracing::info_span!(
            parent: None,
            "durability.commit",
            trace_id = field::Empty,
            chat.id = %chat,
            // By role: which system has it is the adapter's to know.
            db.collection.name = "messages",
            db.operation.name = "commit",
            db.operation.batch.size = pending.len(),
        );
        let span = trace::begin(span);
        for traceparent in pending.iter().filter_map(|pending| pending.traceparent.as_deref()) {
            trace::link(&span, traceparent);
        }
        Some(Attempt { batch, hold, span })
    }

    /// Asks until the outcome is known: the same request under the same token, while the lease is the same.
    pub(super) async fn ask(&self, mut attempt: Attempt) -> (Attempt, Commit) {
        let mut unknown = 0_u32;
        loop {
            let outcome = self.call(&mut attempt).await;
            self.count(&outcome);
            let error = match outcome {
                Commit::Unknown(error) => error,
                // An earlier try may still be under way; what this one met says nothing about it.
                Commit::NotNow(error) | Commit::Invalid(error) if unknown > 0 => error,
                Commit::Cancelled(reasons) if unknown > 0 && !judge::is_final(&reasons) => {
                    Error::new(ErrorKind::Unavailable, "the request met another transaction")
                }
                known @ (Commit::Committed | Commit::Cancelled(_) | Commit::NotNow(_) | Commit::Invalid(_)) => {
                    return (attempt, known);
                }
            };
            self.metrics.unknown_outcomes.inc();
            let chat = attempt.batch.chat;
            if unknown == 0 {
                attempt.span.in_scope(|| {
                    tracing::warn!(
                        event = "batch.outcome_unknown",
                        chat.id = %chat,
                        error.code = wire::code(&error),
                        error.message = %error,
                        "a batch of chat {chat} has an unknown outcome, asking again"
                    );
                });
            }
            tokio::select! {
                () = self.pause(unknown) => {}
                () = self.abandon.cancelled() => return (attempt, Commit::Unknown(error)),
            }
            unknown = unknown.saturating_add(1);
        }
    }

    /// A mark of a lost lease leads nobody to the chat. Should the old request have been stored, then the
    /// idempotency items will say so, for they hold the ids of these very messages.
    fn sign_anew(&self, attempt: &mut Attempt, incarnation: Incarnation) {
        attempt.hold = self.slots.hold(self.clock.now());
        attempt.batch.publisher = PublisherMark::new(incarnation, attempt.hold.slot(), attempt.batch.chat);
        attempt.batch.token = self.ids.ulid().to_string();
    }

    fn count(&self, outcome: &Commit) {
        match outcome {
            // A condition that does not hold is an answer.
            Commit::Committed | Commit::Cancelled(_) => {}
            Commit::Unknown(_) => self.metrics.store_failed(StoreError::unknown_outcome),
            Commit::NotNow(error) if error.kind() == ErrorKind::ServerBusy => {
                self.metrics.store_failed(StoreError::throttled);
            }
            Commit::NotNow(_) => self.metrics.store_failed(StoreError::unavailable),
            Commit::Invalid(_) => self.metrics.store_failed(StoreError::invalid),
        }
    }

    async fn call(&self, attempt: &mut Attempt) -> Commit {
        let expired = || Commit::NotNow(Error::new(ErrorKind::Unavailable, "the lease has expired"));
        let Ok(_permit) = self.calls.acquire().await else {
            return expired(); // the semaphore is never closed
        };
        // Asked at the last moment: nothing is sent under a lease that has expired.
        let Some(incarnation) = self.tenure.current() else { return expired() };
        if incarnation != attempt.batch.publisher.incarnation {
            self.sign_anew(attempt, incarnation);
        }
        failpoint::reached("commit.before");
        let batch = &attempt.batch;
        let call = self.log.commit(batch).instrument(attempt.span.clone());
        match timeout(self.limits.store_timeout, call).await {
            Ok(outcome) => {
                failpoint::reached("commit.after");
                outcome
            }
            Err(elapsed) => Commit::Unknown(Error::unavailable("the store does not answer", elapsed)),
        }
    }
}

fn stored(pending: &Pending, sequence: Sequence) -> StoredMessage {
    let draft = &pending.draft;
    StoredMessage {
        id: pending.id,
        chat: draft.chat,
        sequence,
        sender: draft.sender,
        client_id: draft.client_id,
        content: draft.content.clone(),
        created_at: pending.created_at,
    }
}
