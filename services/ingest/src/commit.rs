//! Brings one batch of a chat to its end: every message stored once, or refused for a reason (D3.4).

mod ask;
mod judge;

use std::{collections::VecDeque, sync::Arc};

use domain::{
    Clock, Error, ErrorKind, Ids, Millis,
    error::Detail,
    ids::{ChatId, MessageId},
    message::{Draft, Sequence, StoredMessage},
    ports::{
        MembershipDirectory, MessageLog,
        message_log::{Batch, Commit, Head, Original},
    },
    publisher::PublisherMark,
};
use platform::{broken, failpoint, retry::Backoff, wire};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::{
    Limits,
    incarnation::Tenure,
    metrics::Metrics,
    publish::{Floor, Handed, Outgoing, Publish},
    slots::{SlotHold, Slots},
};

/// Seconds after which a caller may come again that met a full queue, or a store that is asked too much.
pub const COME_BACK_SECONDS: u32 = 1;

/// A message that has an id and a time, and no place yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What was sent.
    pub draft: Draft,
    /// Its id, the same on every try: an idempotency item that holds it was written by one of them.
    pub id: MessageId,
    /// Its time, set once.
    pub created_at: Millis,
    /// Trace context of the request.
    pub traceparent: Option<String>,
}

/// Where a message was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id, place and time.
    pub original: Original,
    /// Whether an earlier call stored it.
    pub is_duplicate: bool,
}

/// Why a message was not stored, or may not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its sender is not in the chat, or there is no such chat.
    NotAMember,
    /// Nobody knows: the store is away, or did not say in time what it did.
    Unavailable,
    /// Not stored: the store is asked too much, of this chat or as a whole.
    Busy,
    /// A fault of the server or of the data.
    Internal,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAMember => Self::new(ErrorKind::NotAMember, "not a member of this chat"),
            Refusal::Unavailable => Self::new(ErrorKind::Unavailable, "the message could not be stored now"),
            Refusal::Busy => Self::new(ErrorKind::ServerBusy, "the message could not be stored now")
                .with(Detail::RetryAfterSeconds(COME_BACK_SECONDS)),
            Refusal::Internal => Self::new(ErrorKind::Internal, "internal error"),
        }
    }
}

/// Whoever waits for the messages of a chat.
pub trait Callers: Send + Sync {
    /// Tells them what became of it.
    fn answer(&self, pending: &Pending, outcome: Result<Stored, Refusal>);

    /// Whether somebody still waits.
    fn are_waiting(&self, pending: &Pending) -> bool;
}

/// What a process knows about a chat: a hint, never an authority (D3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last sequence, if known.
    pub head: Option<Sequence>,
    /// Up to where it is on the log.
    pub floor: Floor,
    /// The data contradict each other: nothing is stored until somebody has looked.
    pub halted: Option<Halted>,
}

/// A chat's data contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halted;

/// Stores batches.
pub struct Committer {
    /// The store's transaction.
    pub log: Arc<dyn MessageLog>,
    /// Who is in a chat.
    pub members: Arc<dyn MembershipDirectory>,
    /// The next hop.
    pub publish: Arc<Publish>,
    /// Whether this process may store.
    pub tenure: Arc<Tenure>,
    /// Slots in use.
    pub slots: Slots,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and randomness.
    pub ids: Arc<dyn Ids>,
    /// Sizes and times.
    pub limits: Limits,
    /// What is measured.
    pub metrics: Metrics,
    /// One permit a call under way.
    pub calls: Semaphore,
    /// Cancelled when a stopping process waits no longer.
    pub abandon: CancellationToken,
}

/// Messages that go together, and how often they were tried.
struct Group {
    pending: Vec<Pending>,
    /// Tries that the store refused for its load.
    tries: u32,
    /// Tries that another writer overtook.
    races: u32,
}

/// A batch under way. The mark's slot stays in use until the batch is known to be stored or not.
struct Attempt {
    batch: Batch,
    hold: SlotHold,
    /// One call for all messages: a trace of its own, linked to theirs.
    span: Span,
}

/// What follows from one try.
enum Next {
    /// The batch is stored, perhaps by an earlier try.
    Committed,
    /// Another writer was faster: at the new head.
    Overtaken(Vec<Pending>),
    /// What is left, at once: the others were answered.
    Again(Vec<Pending>),
    /// After a wait; or that, when there were enough.
    Later(Vec<Pending>, Refusal),
    /// In halves: the store finds something in it invalid.
    Split(Vec<Pending>),
    /// Never: the data contradict each other.
    Halt(Vec<Pending>),
}

impl Committer {
    /// Stores the messages in their order, and answers each exactly once.
    pub async fn settle(&self, chat: ChatId, memory: &mut Memory, pending: Vec<Pending>, callers: &dyn Callers) {
        let mut groups = VecDeque::from([Group { pending, tries: 0, races: 0 }]);
        while let Some(mut group) = groups.pop_front() {
            let (wanted, late): (Vec<_>, Vec<_>) =
                group.pending.into_iter().partition(|pending| callers.are_waiting(pending));
            refuse(&late, Refusal::Unavailable, callers);
            group.pending = wanted;
            if group.pending.is_empty() {
                continue;
            }
            for again in self.try_once(chat, memory, group, callers).await.into_iter().flatten().rev() {
                groups.push_front(again);
            }
        }
    }

    /// One try. Returns what must be tried again, in order.
    async fn try_once(
        &self,
        chat: ChatId,
        memory: &mut Memory,
        mut group: Group,
        callers: &dyn Callers,
    ) -> [Option<Group>; 2] {
        if memory.halted.is_some() {
            refuse(&group.pending, Refusal::Internal, callers);
            return [None, None];
        }
        let head = match memory.head {
            Some(head) => Ok(Some(head)),
            None => self.read_head(chat, memory).await,
        };
        let head = match head {
            Ok(Some(head)) => head,
            Ok(None) => {
                self.refuse_without_counter(chat, &group.pending, callers).await;
                return [None, None];
            }
            Err(error) => return [self.later(chat, group, Refusal::Unavailable, &error, callers).await, None],
        };
        let Some(attempt) = self.attempt(chat, head, memory.floor, &group.pending) else {
            return [self.later(chat, group, Refusal::Unavailable, &"the lease has expired", callers).await, None];
        };
        if broken::is("ack_first") {
            for (pending, message) in group.pending.iter().zip(&attempt.batch.messages) {
                callers.answer(pending, Ok(Stored { original: original(message), is_duplicate: false }));
            }
        }
        let (attempt, outcome) = self.ask(attempt).await;
        let pending = std::mem::take(&mut group.pending);
        let next = match outcome {
            Commit::Committed => {
                group.pending = pending;
                Next::Committed
            }
            Commit::Cancelled(reasons) if judge::is_own(&attempt.batch, &reasons) => {
                group.pending = pending;
                Next::Committed
            }
            Commit::Cancelled(reasons) => {
                let judging = self.judge(memory, &attempt.batch, &reasons, pending, callers);
                judging.instrument(attempt.span.clone()).await
            }
            Commit::NotNow(error) => {
                attempt.span.in_scope(|| {
                    tracing::debug!(chat.id = %chat, "the store takes no batch of chat {chat} now: {error}");
                });
                let is_busy = error.kind() == ErrorKind::ServerBusy;
                Next::Later(pending, if is_busy { Refusal::Busy } else { Refusal::Unavailable })
            }
            Commit::Invalid(error) => {
                attempt.span.in_scope(|| {
                    tracing::error!(
                        event = "batch.invalid",
                        chat.id = %chat,
                        error.code = wire::code(&error),
                        error.message = %error,
                        "the store finds a batch of chat {chat} invalid"
                    );
                });
                Next::Split(pending)
            }
            // Only when the process waits no longer.
            Commit::Unknown(_) => {
                refuse(&pending, Refusal::Unavailable, callers);
                memory.head = None;
                return [None, None];
            }
        };
        match next {
            Next::Committed => {
                self.hand_over(chat, memory, attempt, &group, callers);
                [None, None]
            }
            Next::Overtaken(left) => {
                self.metrics.lost_races.inc();
                if group.races > 0 {
                    self.pause(group.races - 1).await;
                }
                [Some(Group { pending: left, races: group.races + 1, ..group }), None]
            }
            Next::Again(left) => [Some(Group { pending: left, ..group }), None],
            Next::Later(left, refusal) => {
                let group = Group { pending: left, ..group };
                [self.later(chat, group, refusal, &"the store is busy", callers).await, None]
            }
            Next::Split(left) if left.len() < 2 => {
                refuse(&left, Refusal::Internal, callers);
                [None, None]
            }
            Next::Split(mut left) => {
                let second = left.split_off(left.len() / 2);
                [left, second].map(|pending| Some(Group { pending, ..group }))
            }
            Next::Halt(left) => {
                memory.halted = Some(Halted);
                refuse(&left, Refusal::Internal, callers);
                [None, None]
            }
        }
    }

    /// Reads the chat's counter and remembers it.
    async fn read_head(&self, chat: ChatId, memory: &mut Memory) -> Result<Option<Sequence>, Error> {
        let read = self.bounded(self.log.head(chat)).await?;
        Ok(read.map(|mut head| {
            if broken::is("reuse_sequence") {
                head.sequence.0 = head.sequence.0.saturating_sub(1);
            }
            self.remember(memory, head);
            head.sequence
        }))
    }

    /// Takes a head into account that was read without a memory of the chat.
    fn remember(&self, memory: &mut Memory, head: Head) {
        memory.head = Some(head.sequence);
        memory.floor.stored = memory.floor.stored.max(head.published_through);
        // What this incarnation stored it has handed over; only a forgotten slot may hide some of it.
        let is_handed =
            |mark: PublisherMark| self.tenure.is_own(mark.incarnation) && !self.publish.has_forgotten(mark.slot);
        if head.publisher.is_some_and(is_handed) {
            memory.floor.handed = memory.floor.handed.max(head.sequence);
        }
    }

    /// Takes a head into account that another writer has moved.
    fn overtaken(&self, chat: ChatId, memory: &mut Memory, head: Head) {
        memory.head = Some(head.sequence);
        memory.floor.stored = memory.floor.stored.max(head.published_through);
        // Our own mark on a head that we do not remember: an old request of ours arrived late.
        if head.publisher.is_some_and(|mark| self.tenure.is_own(mark.incarnation)) {
            let through = self.publish.published_through(chat, memory.floor);
            if self.publish.adopt(chat, through, head.sequence) {
                memory.floor.handed = head.sequence;
            }
        }
    }

    /// The batch is stored: the next hop gets it first, then the callers their answers.
    fn hand_over(&self, chat: ChatId, memory: &mut Memory, attempt: Attempt, group: &Group, callers: &dyn Callers) {
        let Attempt { batch, hold, .. } = attempt;
        self.metrics.batch_messages.observe(f64::from(u32::try_from(batch.messages.len()).unwrap_or(u32::MAX)));
        let answers: Vec<Original> = batch.messages.iter().map(original).collect();
        let last = Sequence(batch.after.0 + u64::try_from(batch.messages.len()).unwrap_or(0));
        let outgoing = batch.messages.into_iter().zip(&group.pending).map(|(message, pending)| Outgoing {
            message,
            origin: pending.draft.origin,
            traceparent: pending.traceparent.clone(),
        });
        memory.head = Some(last);
        if self.publish.committed(chat, memory.floor, outgoing.collect(), hold) == Handed::Taken {
            memory.floor.handed = last;
        }
        failpoint::reached("ack.before");
        for (pending, original) in group.pending.iter().zip(answers) {
            callers.answer(pending, Ok(Stored { original, is_duplicate: false }));
        }
        failpoint::reached("ack.after");
    }

    /// Waits before the next try, unless there were enough.
    async fn later(
        &self,
        chat: ChatId,
        group: Group,
        refusal: Refusal,
        cause: &(dyn std::fmt::Display + Sync),
        callers: &dyn Callers,
    ) -> Option<Group> {
        let tries = group.tries + 1;
        if tries >= self.limits.commit_tries {
            tracing::warn!(
                event = "batch.given_up",
                chat.id = %chat,
                error.message = %cause,
                "gave up on a batch of chat {chat} after {tries} tries"
            );
            refuse(&group.pending, refusal, callers);
            return None;
        }
        self.pause(group.tries).await;
        Some(Group { tries, ..group })
    }

    async fn pause(&self, attempt: u32) {
        let backoff = Backoff { base: self.limits.retry_base, cap: self.limits.retry_cap };
        sleep(backoff.delay(attempt, self.ids.as_ref())).await;
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match timeout(self.limits.store_timeout, call).await {
            Ok(result) => result,
            Err(elapsed) => Err(Error::unavailable("the store does not answer", elapsed)),
        }
    }
}

fn refuse(pending: &[Pending], refusal: Refusal, callers: &dyn Callers) {
    for pending in pending {
        callers.answer(pending, Err(refusal));
    }
}

fn original(message: &StoredMessage) -> Original {
    Original { id: message.id, sequence: message.sequence, created_at: message.created_at }
}

fn stored_before(pending: &Pending, original: Original) -> Stored {
    Stored { original, is_duplicate: original.id != pending.id }
}
