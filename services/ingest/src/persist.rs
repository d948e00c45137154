//! Hop 2 of 6: persist. Makes a message durable once, with its place in its chat; then the sender is told (D3, D4.1).
//!
//! Each chat has a queue and at most one batch under way; what arrives meanwhile is the next batch. An
//! idle chat's message goes at once. A repeated client id joins the call that is already there.
//!
//! The next hop is `ingest/src/publish.rs`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{
    Clock, Error, ErrorKind, Ids,
    error::Detail,
    ids::{ChatId, ClientMessageId, MessageId, UserId},
    message::{Draft, Sequence},
};
use platform::{Process, telemetry};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    Limits,
    commit::{self, Callers, Committer, Memory, Pending, Refusal, Stored},
    metrics::{Ended, Metrics, Status},
};

/// Stores messages, one batch a chat at a time.
pub struct Persist {
    committer: Committer,
    process: Process,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    limits: Limits,
    metrics: Metrics,
    chats: Mutex<Chats>,
}

#[derive(Default)]
struct Chats {
    by_id: HashMap<ChatId, Chat>,
    /// Callers waiting in all chats.
    callers: usize,
}

struct Chat {
    /// Messages for the next batches.
    queue: VecDeque<Pending>,
    /// Who waits for each message, queued or under way.
    waiting: HashMap<(UserId, ClientMessageId), Waiting>,
    callers: usize,
    /// What is known of the chat; the task of a busy chat has it.
    memory: Memory,
    /// The head after the last batch.
    head: Option<Sequence>,
    /// `None` while a task works on the chat.
    idle_since: Option<Instant>,
}

struct Waiting {
    until: Instant,
    answers: Vec<oneshot::Sender<Result<Stored, Refusal>>>,
}

impl Persist {
    /// Makes it; its tasks belong to the process.
    pub fn new(committer: Committer, process: &Process) -> Arc<Self> {
        Arc::new(Self {
            process: process.clone(),
            clock: process.clock(),
            ids: process.ids(),
            limits: committer.limits.clone(),
            metrics: committer.metrics.clone(),
            committer,
            chats: Mutex::default(),
        })
    }

    /// Stores the message, and answers when it is durable, after `within` or the own deadline at the latest: what is
    /// not on its way to the store by then is dropped. Calls for one chat are stored in the order in which they were
    /// first polled.
    ///
    /// # Errors
    /// `NotAMember` also when there is no such chat; `ServerBusy` when a queue is full, or the store is asked too much.
    /// `Unavailable` and `Internal` leave the outcome open: the same id may come again.
    pub async fn persist(
        self: &Arc<Self>,
        draft: Draft,
        traceparent: Option<String>,
        within: Duration,
    ) -> Result<Stored, Error> {
        let began = Instant::now();
        let until = began + within.min(self.limits.persist_deadline);
        let (chat, sender) = (draft.chat, draft.sender);
        let result = match self.enqueue(draft, traceparent, until) {
            Ok(answer) => match timeout_at(until, answer).await {
                Ok(Ok(answer)) => answer.map_err(Error::from),
                Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable.into()),
            },
            Err(error) => Err(error),
        };
        let took = began.elapsed();
        self.metrics.persist_seconds.observe(took.as_secs_f64());
        if let Ok(stored) = &result {
            let event = if stored.is_duplicate { "message.duplicate" } else { "message.stored" };
            let (id, sequence) = (stored.original.id, stored.original.sequence);
            tracing::debug!(
                event,
                operation = "persist",
                message.id = %id,
                chat.id = %chat,
                user.id = %sender,
                latency_ms = telemetry::millis(took),
                "message {id} is stored at {sequence}"
            );
        }
        match &result {
            Ok(Stored { is_duplicate: true, .. }) => {
                self.metrics.idempotency_hits.inc();
                self.metrics.persist.get_or_create(&Ended { status: Status::duplicate }).inc();
            }
            Ok(_) => {
                self.metrics.persist.get_or_create(&Ended { status: Status::success }).inc();
            }
            Err(error) => self.metrics.count_failure(error.kind()),
        }
        result
    }

    /// The chat's head as this process last saw it: what it says is stored is stored, there may be more.
    pub fn known_head(&self, chat: ChatId) -> Option<Sequence> {
        self.chats().by_id.get(&chat).and_then(|chat| chat.head)
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.chats().by_id.values().all(|chat| chat.idle_since.is_some())
    }

    /// Forgets chats that have been idle for long.
    pub fn forget_idle(&self) {
        let idle = self.limits.chat_idle;
        self.chats().by_id.retain(|_, chat| chat.idle_since.is_none_or(|since| since.elapsed() < idle));
    }

    fn enqueue(
        self: &Arc<Self>,
        draft: Draft,
        traceparent: Option<String>,
        until: Instant,
    ) -> Result<oneshot::Receiver<Result<Stored, Refusal>>, Error> {
        let mut chats = self.chats();
        chats.admit(draft.chat, &self.limits)?;
        let id = draft.chat;
        let key = (draft.sender, draft.client_id);
        let chat = chats.by_id.entry(id).or_insert_with(Chat::idle);
        let (answer, answered) = oneshot::channel();
        chat.callers += 1;
        if let Some(waiting) = chat.waiting.get_mut(&key) {
            waiting.until = waiting.until.max(until);
            waiting.answers.push(answer);
        } else {
            chat.waiting.insert(key, Waiting { until, answers: vec![answer] });
            let (id, created_at) = (MessageId::new(self.ids.as_ref()), self.clock.now());
            chat.queue.push_back(Pending { draft, id, created_at, traceparent });
        }
        if chat.idle_since.take().is_some() {
            drop(self.process.spawn_child(self.clone().work(id)));
        }
        chats.callers += 1;
        Ok(answered)
    }

    /// Stores batch after batch of one chat until nothing waits.
    async fn work(self: Arc<Self>, id: ChatId) {
        let Some(mut memory) = self.chats().by_id.get_mut(&id).map(|chat| std::mem::take(&mut chat.memory)) else {
            return;
        };
        let callers = ChatCallers { persist: &self, chat: id };
        while let Some(batch) = self.next_batch(id, &mut memory) {
            self.committer.settle(id, &mut memory, batch, &callers).await;
        }
    }

    /// Takes the next batch; the chat becomes idle when there is none.
    fn next_batch(&self, id: ChatId, memory: &mut Memory) -> Option<Vec<Pending>> {
        let mut chats = self.chats();
        let chat = chats.by_id.get_mut(&id)?;
        chat.head = memory.head;
        if chat.queue.is_empty() {
            chat.memory = std::mem::take(memory);
            chat.idle_since = Some(Instant::now());
            return None;
        }
        let count = chat.queue.len().min(self.limits.batch_messages as usize);
        Some(chat.queue.drain(..count).collect())
    }

    fn chats(&self) -> MutexGuard<'_, Chats> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chat {
    fn idle() -> Self {
        Self {
            queue: VecDeque::new(),
            waiting: HashMap::new(),
            callers: 0,
            memory: Memory::default(),
            head: None,
            idle_since: Some(Instant::now()),
        }
    }
}

impl Chats {
    /// Refuses before anything is stored when a queue is full.
    fn admit(&mut self, chat: ChatId, limits: &Limits) -> Result<(), Error> {
        let busy = |which: &'static str| {
            Err(Error::new(ErrorKind::ServerBusy, which).with(Detail::RetryAfterSeconds(commit::COME_BACK_SECONDS)))
        };
        if self.callers >= limits.total_queue as usize {
            return busy("too many messages are waiting");
        }
        match self.by_id.get(&chat) {
            Some(known) if known.callers >= limits.chat_queue as usize => {
                busy("too many messages are waiting in this chat")
            }
            Some(_) => Ok(()),
            None if self.by_id.len() < limits.known_chats as usize => Ok(()),
            None => {
                // Heads of idle chats are only hints: forget them all, a read each brings them back.
                self.by_id.retain(|_, chat| chat.idle_since.is_none());
                if self.by_id.len() < limits.known_chats as usize { Ok(()) } else { busy("too many chats are active") }
            }
        }
    }
}

/// The callers of one chat.
struct ChatCallers<'a> {
    persist: &'a Persist,
    chat: ChatId,
}

impl Callers for ChatCallers<'_> {
    fn answer(&self, pending: &Pending, outcome: Result<Stored, Refusal>) {
        let mut chats = self.persist.chats();
        let Some(chat) = chats.by_id.get_mut(&self.chat) else { return };
        let Some(waiting) = chat.waiting.remove(&(pending.draft.sender, pending.draft.client_id)) else { return };
        chat.callers -= waiting.answers.len();
        chats.callers -= waiting.answers.len();
        drop(chats);
        for (place, answer) in waiting.answers.into_iter().enumerate() {
            let outcome = outcome.map(|stored| Stored { is_duplicate: stored.is_duplicate || place > 0, ..stored });
            if answer.send(outcome).is_err() {
                tracing::debug!(message.id = %pending.id, "nobody waits any more for message {}", pending.id);
            }
        }
    }

    fn are_waiting(&self, pending: &Pending) -> bool {
        let chats = self.persist.chats();
        let waiting = chats
            .by_id
            .get(&self.chat)
            .and_then(|chat| chat.waiting.get(&(pending.draft.sender, pending.draft.client_id)));
        waiting.is_some_and(|waiting| Instant::now() < waiting.until)
    }
}
