//! Reads why a batch was cancelled, and decides who is answered and what is tried again (D3.4).

use domain::{
    ids::{ChatId, UserId},
    ports::message_log::{Batch, Cancelled, Verdict},
};

use super::{Callers, Committer, Memory, Next, Pending, Refusal, original, stored_before};

impl Committer {
    /// Reads the reasons position by position; `Nothing` proves nothing.
    pub(super) async fn judge(
        &self,
        memory: &mut Memory,
        batch: &Batch,
        reasons: &Cancelled,
        pending: Vec<Pending>,
        callers: &dyn Callers,
    ) -> Next {
        let asked = pending.len();
        let outsiders: Vec<UserId> = batch
            .senders()
            .into_iter()
            .zip(&reasons.members)
            .filter_map(|(sender, verdict)| matches!(verdict, Verdict::Failed(())).then_some(sender))
            .collect();
        let mut left = Vec::with_capacity(asked);
        for (pending, key) in pending.into_iter().zip(&reasons.keys) {
            match key {
                // Also when its sender has left since.
                Verdict::Failed(original) => callers.answer(&pending, Ok(stored_before(&pending, *original))),
                Verdict::Nothing | Verdict::Conflict | Verdict::Throttled | Verdict::Invalid
                    if outsiders.contains(&pending.draft.sender) =>
                {
                    self.refuse_outsider(&pending, callers).await;
                }
                Verdict::Nothing | Verdict::Conflict | Verdict::Throttled | Verdict::Invalid => left.push(pending),
            }
        }
        match reasons.counter {
            Verdict::Failed(Some(head)) => {
                self.overtaken(batch.chat, memory, head);
                return Next::Overtaken(left);
            }
            Verdict::Failed(None) => {
                memory.head = None;
                return Next::Overtaken(left);
            }
            Verdict::Nothing | Verdict::Conflict | Verdict::Throttled | Verdict::Invalid => {}
        }
        if reasons.places.contains(&Verdict::Failed(())) {
            return self.doubt(memory, batch, left).await;
        }
        let (is_invalid, is_busy) = (is_any(reasons, Kind::Invalid), is_any(reasons, Kind::Busy));
        if is_busy {
            self.metrics.transaction_conflicts.inc();
        }
        match (is_invalid, is_busy || left.len() == asked) {
            (true, _) => Next::Split(left),
            (false, true) => Next::Later(left, Refusal::Busy),
            (false, false) => Next::Again(left),
        }
    }

    /// A place is taken although the counter does not seem to have moved: look again before crying wolf.
    async fn doubt(&self, memory: &mut Memory, batch: &Batch, left: Vec<Pending>) -> Next {
        let chat = batch.chat;
        match self.bounded(self.log.head(chat)).await {
            Ok(Some(head)) if head.sequence == batch.after => {
                self.metrics.duplicate_sequence.inc();
                let after = batch.after;
                tracing::error!(
                    severity = "SEV-1",
                    event = "chat.counter_behind",
                    chat.id = %chat,
                    "chat {chat} has messages above its counter {after}, so it takes no more"
                );
                Next::Halt(left)
            }
            Ok(Some(head)) => {
                self.overtaken(chat, memory, head);
                Next::Overtaken(left)
            }
            Ok(None) => {
                memory.head = None;
                Next::Overtaken(left)
            }
            Err(_) => Next::Later(left, Refusal::Unavailable),
        }
    }

    /// Refuses who is not a member, unless the message was stored while they were.
    async fn refuse_outsider(&self, pending: &Pending, callers: &dyn Callers) {
        let draft = &pending.draft;
        let outcome = match self.bounded(self.log.original(draft.chat, draft.sender, draft.client_id)).await {
            Ok(Some(original)) => Ok(stored_before(pending, original)),
            Ok(None) => Err(Refusal::NotAMember),
            Err(_) => Err(Refusal::Unavailable),
        };
        callers.answer(pending, outcome);
    }

    /// A chat without a counter does not exist, or has lost it: then its members are told otherwise (D2.9).
    pub(super) async fn refuse_without_counter(&self, chat: ChatId, pending: &[Pending], callers: &dyn Callers) {
        for pending in pending {
            let refusal = match self.bounded(self.members.membership(chat, pending.draft.sender)).await {
                Ok(None) => Refusal::NotAMember,
                Ok(Some(_)) => {
                    self.metrics.counter_missing.inc();
                    tracing::error!(
                        severity = "SEV-1",
                        event = "chat.counter_missing",
                        chat.id = %chat,
                        "chat {chat} has members and no counter, so it takes no messages"
                    );
                    Refusal::Internal
                }
                Err(_) => Refusal::Unavailable,
            };
            callers.answer(pending, Err(refusal));
        }
    }
}

/// Whether the batch was stored by an earlier try: the store holds these very messages at these places.
pub(super) fn is_own(batch: &Batch, reasons: &Cancelled) -> bool {
    batch.messages.iter().zip(&reasons.keys).all(|(message, key)| *key == Verdict::Failed(original(message)))
}

/// Whether a request with these reasons can't be stored later either: a condition failed, which for counter
/// and keys is for good.
pub(super) fn is_final(reasons: &Cancelled) -> bool {
    matches!(reasons.counter, Verdict::Failed(_))
        || reasons.keys.iter().any(|key| matches!(key, Verdict::Failed(_)))
        || reasons.places.iter().chain(&reasons.members).any(|verdict| matches!(verdict, Verdict::Failed(())))
}

/// Kinds of verdicts that are about no condition.
#[derive(Clone, Copy)]
enum Kind {
    Busy,
    Invalid,
}

fn is_any(reasons: &Cancelled, kind: Kind) -> bool {
    fn is<T>(verdict: &Verdict<T>, kind: Kind) -> bool {
        match kind {
            Kind::Busy => matches!(verdict, Verdict::Conflict | Verdict::Throttled),
            Kind::Invalid => matches!(verdict, Verdict::Invalid),
        }
    }
    is(&reasons.counter, kind)
        || reasons.keys.iter().any(|verdict| is(verdict, kind))
        || reasons.places.iter().chain(&reasons.members).any(|verdict| is(verdict, kind))
}
