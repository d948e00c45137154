//! A store in memory that keeps the conditions of the transaction, and fails as it is told to.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use domain::{
    Error, Millis,
    ids::{ChatId, ClientMessageId, MessageId, UserId},
    membership::{Membership, Role},
    message::{Content, Sequence, StoredMessage},
    ports::{
        DeliveryState, Heads, Incarnations, MembershipDirectory, MessageHistory, MessageLog,
        delivery_state::Watermark,
        heads::Standing,
        message_history::Page,
        message_log::{Batch, Cancelled, Commit, Head, Original, Verdict},
    },
    publisher::{Claim, Incarnation, Lease, PublisherMark, Slot},
};
use tokio::sync::watch;

/// What the next commit meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is stored, and nobody says so.
    LoseAnswer,
    /// It never arrives.
    LoseRequest,
    /// Another transaction is at the counter.
    Conflict,
    /// The store takes nothing.
    NotNow,
    /// The store is asked too much.
    Throttle,
    /// All is well.
    Nothing,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) heads: HashMap<ChatId, Head>,
    pub(crate) messages: BTreeMap<(ChatId, Sequence), StoredMessage>,
    /// By chat: the first and the last place that a restore took out of use.
    pub(crate) gaps: HashMap<ChatId, (Sequence, Sequence)>,
    keys: HashMap<(ChatId, UserId, ClientMessageId), Original>,
    pub(crate) members: HashSet<(ChatId, UserId)>,
    tokens: HashSet<String>,
    pub(crate) leases: BTreeMap<Incarnation, Lease>,
    watermarks: HashMap<(UserId, ChatId, Watermark), Sequence>,
    /// What each commit was asked, in order.
    pub(crate) commits: Vec<Batch>,
    pub(crate) head_reads: usize,
    faults: VecDeque<Fault>,
    /// A text that makes a batch invalid.
    pub(crate) poison: Option<String>,
    /// Each commit stores another writer's message before it.
    pub(crate) rivals: VecDeque<StoredMessage>,
}

/// The store, shared by all nodes of a test.
pub(crate) struct Store {
    state: Mutex<State>,
    /// Commits wait while it is shut.
    open: watch::Sender<bool>,
}

impl Store {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), open: watch::Sender::new(true) })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    pub(crate) fn shut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn reopen(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    pub(crate) fn add_chat(&self, chat: ChatId, members: &[UserId]) {
        let mut state = self.state();
        let head = Head { sequence: Sequence(0), published_through: Sequence(0), publisher: None };
        state.heads.insert(chat, head);
        state.members.extend(members.iter().map(|member| (chat, *member)));
    }

    /// What `ingest after-restore` does to a chat.
    pub(crate) fn raise(&self, chat: ChatId, by: u64) -> Sequence {
        let mut state = self.state();
        let head = state.heads.get_mut(&chat).expect("a chat");
        let gap = (head.sequence.next(), Sequence(head.sequence.0 + by));
        head.sequence = gap.1;
        state.gaps.insert(chat, gap);
        gap.1
    }

    /// The texts of a chat in order, after checking that the sequences have no holes.
    pub(crate) fn texts(&self, chat: ChatId) -> Vec<String> {
        let state = self.state();
        let stored: Vec<_> = state.messages.range((chat, Sequence(0))..).take_while(|(key, _)| key.0 == chat).collect();
        for ((key, message), sequence) in stored.iter().zip(1..) {
            assert_eq!((key.1, message.sequence), (Sequence(sequence), Sequence(sequence)), "a hole");
        }
        assert_eq!(state.heads[&chat].sequence.0, stored.len() as u64, "the counter");
        stored.into_iter().map(|(_, message)| message.content.as_str().to_owned()).collect()
    }
}

impl State {
    fn commit(&mut self, batch: &Batch) -> Commit {
        self.commits.push(batch.clone());
        if let Some(rival) = self.rivals.pop_front() {
            self.write(&rival);
        }
        let fault = self.faults.pop_front();
        let nothing = |count| vec![Verdict::Nothing; count];
        match fault {
            Some(Fault::LoseRequest) => return Commit::Unknown(away()),
            Some(Fault::NotNow) => return Commit::NotNow(away()),
            Some(Fault::Throttle) => {
                return Commit::NotNow(Error::new(domain::ErrorKind::ServerBusy, "as the test wants it"));
            }
            Some(Fault::Conflict) => {
                return Commit::Cancelled(Cancelled {
                    counter: Verdict::Conflict,
                    places: nothing(batch.messages.len()),
                    keys: vec![Verdict::Nothing; batch.messages.len()],
                    members: nothing(batch.senders().len()),
                });
            }
            Some(Fault::LoseAnswer | Fault::Nothing) | None => {}
        }
        if let Some(poison) = &self.poison
            && batch.messages.iter().any(|message| message.content.as_str() == poison)
        {
            return Commit::Invalid(Error::internal("poisoned"));
        }
        let outcome = if self.tokens.contains(&batch.token) { Commit::Committed } else { self.apply(batch) };
        if matches!(fault, Some(Fault::LoseAnswer)) { Commit::Unknown(away()) } else { outcome }
    }

    fn apply(&mut self, batch: &Batch) -> Commit {
        fn check(holds: bool) -> Verdict<()> {
            if holds { Verdict::Nothing } else { Verdict::Failed(()) }
        }
        let head = self.heads.get(&batch.chat).copied();
        let is_at = head.is_some_and(|head| head.sequence == batch.after);
        let reasons = Cancelled {
            counter: if is_at { Verdict::Nothing } else { Verdict::Failed(head) },
            places: batch
                .messages
                .iter()
                .map(|message| check(!self.messages.contains_key(&(batch.chat, message.sequence))))
                .collect(),
            keys: batch
                .messages
                .iter()
                .map(|message| match self.keys.get(&(batch.chat, message.sender, message.client_id)) {
                    Some(original) => Verdict::Failed(*original),
                    None => Verdict::Nothing,
                })
                .collect(),
            members: batch
                .senders()
                .into_iter()
                .map(|sender| check(self.members.contains(&(batch.chat, sender))))
                .collect(),
        };
        let is_clear = reasons.counter == Verdict::Nothing
            && reasons.keys.iter().all(|key| *key == Verdict::Nothing)
            && reasons.places.iter().chain(&reasons.members).all(|verdict| *verdict == Verdict::Nothing);
        if !is_clear {
            return Commit::Cancelled(reasons);
        }
        for message in &batch.messages {
            self.write(message);
        }
        self.tokens.insert(batch.token.clone());
        let publisher = Some(batch.publisher);
        let sequence = Sequence(batch.after.0 + batch.messages.len() as u64);
        self.heads.insert(batch.chat, Head { sequence, published_through: batch.published_through, publisher });
        Commit::Committed
    }

    /// Stores one message at the place after the head.
    fn write(&mut self, message: &StoredMessage) {
        let head = self.heads.get_mut(&message.chat).expect("a chat");
        let sequence = head.sequence.next();
        head.sequence = sequence;
        let message = StoredMessage { sequence, ..message.clone() };
        let original = Original { id: message.id, sequence, created_at: message.created_at };
        self.keys.insert((message.chat, message.sender, message.client_id), original);
        self.messages.insert((message.chat, sequence), message);
    }
}

/// What each call of the ports does when it arrives.
impl State {
    fn head(&mut self, chat: ChatId) -> Option<Head> {
        self.head_reads += 1;
        self.heads.get(&chat).copied()
    }

    fn marked(&self, mark: PublisherMark) -> Vec<ChatId> {
        let mut chats: Vec<_> =
            self.heads.iter().filter(|(_, head)| head.publisher == Some(mark)).map(|(chat, _)| *chat).collect();
        chats.sort_unstable();
        chats
    }

    fn after(&self, chat: ChatId, after: Sequence, limit: u32) -> Page {
        let above = self.messages.range((chat, after.next())..).take_while(|(key, _)| key.0 == chat);
        let messages: Vec<_> = above.take(limit as usize).map(|(_, message)| message.clone()).collect();
        let through = messages.last().map_or(after, |last| last.sequence);
        match self.gaps.get(&chat) {
            Some((from, to)) if *from <= through.next() && through < *to => {
                Page { messages, through: *to, gap: to.0 - through.0 }
            }
            _ => Page { messages, through, gap: 0 },
        }
    }

    fn before(&self, chat: ChatId, before: Option<Sequence>, limit: u32) -> Vec<StoredMessage> {
        let below = self.messages.range((chat, Sequence(0))..(chat, before.unwrap_or(Sequence(u64::MAX))));
        below.rev().take(limit as usize).map(|(_, message)| message.clone()).collect()
    }

    fn renew(&mut self, own: Incarnation, expires_at: Millis, oldest_slot: Slot) -> bool {
        match self.leases.get_mut(&own) {
            Some(lease) if lease.claim.is_none() => {
                (lease.expires_at, lease.oldest_slot) = (expires_at, oldest_slot);
                true
            }
            _ => false,
        }
    }

    fn claim(&mut self, seen: &Lease, claim: Claim) -> bool {
        match self.leases.get_mut(&seen.incarnation) {
            Some(lease) if lease.claim == seen.claim && lease.expires_at == seen.expires_at => {
                lease.claim = Some(claim);
                true
            }
            _ => false,
        }
    }

    fn close(&mut self, seen: &Lease) {
        let by = |lease: &Lease| lease.claim.map(|claim| claim.by);
        if self.leases.get(&seen.incarnation).is_some_and(|lease| by(lease) == by(seen)) {
            self.leases.remove(&seen.incarnation);
        }
    }

    fn standings(&self, user: UserId, chats: &[ChatId]) -> Vec<Standing> {
        let head = |chat| self.members.contains(&(chat, user)).then(|| self.heads[&chat].sequence);
        chats.iter().map(|chat| Standing { chat: *chat, head: head(*chat) }).collect()
    }

    fn advance(&mut self, user: UserId, chat: ChatId, mark: Watermark, to: Sequence) -> Sequence {
        let stored = self.watermarks.entry((user, chat, mark)).or_default();
        *stored = (*stored).max(to);
        *stored
    }
}

pub(crate) fn message(chat: ChatId, sender: UserId, id: u128, text: &str) -> StoredMessage {
    StoredMessage {
        id: MessageId(ulid::Ulid(id)),
        chat,
        sequence: Sequence(0),
        sender,
        client_id: ClientMessageId(uuid::Uuid::from_u128(id)),
        content: Content::new("", text).expect("valid"),
        created_at: Millis(1),
    }
}

fn away() -> Error {
    Error::unavailable("the store does not answer", "as the test wants it")
}

/// Something to be done at the store.
pub(crate) type Job<T> = Box<dyn FnOnce(&mut State) -> T + Send>;

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A batch, which waits at the store while that is shut.
    Commit,
    /// Anything else.
    Other,
}

/// How a node reaches the store.
#[async_trait]
pub(crate) trait Way: Send + Sync {
    /// Has it done there. `None`: nobody knows whether it was.
    async fn go(&self, store: &Arc<Store>, call: Call, job: Job<Box<dyn Any + Send>>) -> Option<Box<dyn Any + Send>>;
}

/// A way in the same process, which can be cut: then no call ends any more, as after a kill.
pub(crate) struct Cut(pub(crate) watch::Receiver<bool>);

impl Cut {
    async fn pass(&self) {
        tokio::task::yield_now().await;
        if *self.0.borrow() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Way for Cut {
    async fn go(&self, store: &Arc<Store>, call: Call, job: Job<Box<dyn Any + Send>>) -> Option<Box<dyn Any + Send>> {
        self.pass().await;
        if call == Call::Commit {
            let mut open = store.open.subscribe();
            open.wait_for(|open| *open).await.expect("the store lives");
        }
        let done = job(&mut store.state());
        self.pass().await;
        Some(done)
    }
}

/// One node's end of the way to the store.
pub(crate) struct Link {
    pub(crate) store: Arc<Store>,
    pub(crate) way: Box<dyn Way>,
}

impl Link {
    async fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut State) -> T + Send + 'static) -> Result<T, Error> {
        self.call(Call::Other, job).await
    }

    async fn call<T: Send + 'static>(
        &self,
        call: Call,
        job: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let job: Job<Box<dyn Any + Send>> = Box::new(|state| Box::new(job(state)));
        let done = self.way.go(&self.store, call, job).await.ok_or_else(away)?;
        Ok(*done.downcast().expect("what the job makes"))
    }
}

#[async_trait]
impl MessageLog for Link {
    async fn head(&self, chat: ChatId) -> Result<Option<Head>, Error> {
        self.ask(move |state| state.head(chat)).await
    }

    async fn commit(&self, batch: &Batch) -> Commit {
        let batch = batch.clone();
        self.call(Call::Commit, move |state| state.commit(&batch)).await.unwrap_or_else(Commit::Unknown)
    }

    async fn original(
        &self,
        chat: ChatId,
        sender: UserId,
        client_id: ClientMessageId,
    ) -> Result<Option<Original>, Error> {
        self.ask(move |state| state.keys.get(&(chat, sender, client_id)).copied()).await
    }

    async fn marked(&self, mark: PublisherMark) -> Result<Vec<ChatId>, Error> {
        self.ask(move |state| state.marked(mark)).await
    }
}

#[async_trait]
impl MessageHistory for Link {
    async fn after(&self, chat: ChatId, after: Sequence, limit: u32) -> Result<Page, Error> {
        self.ask(move |state| state.after(chat, after, limit)).await
    }

    async fn before(&self, chat: ChatId, before: Option<Sequence>, limit: u32) -> Result<Vec<StoredMessage>, Error> {
        self.ask(move |state| state.before(chat, before, limit)).await
    }
}

#[async_trait]
impl MembershipDirectory for Link {
    async fn membership(&self, chat: ChatId, user: UserId) -> Result<Option<Membership>, Error> {
        let is_member = self.ask(move |state| state.members.contains(&(chat, user))).await?;
        Ok(is_member.then_some(Membership { chat, user, role: Role::Member, joined_at: Millis(1), muted_until: None }))
    }

    async fn members(&self, _chat: ChatId) -> Result<Vec<Membership>, Error> {
        Ok(Vec::new())
    }

    async fn chats_of(&self, _user: UserId) -> Result<Vec<Membership>, Error> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Incarnations for Link {
    async fn open(&self, lease: &Lease) -> Result<(), Error> {
        let lease = lease.clone();
        self.ask(move |state| {
            state.leases.insert(lease.incarnation, lease);
        })
        .await
    }

    async fn renew(&self, own: Incarnation, expires_at: Millis, oldest_slot: Slot) -> Result<bool, Error> {
        self.ask(move |state| state.renew(own, expires_at, oldest_slot)).await
    }

    async fn list(&self) -> Result<Vec<Lease>, Error> {
        self.ask(|state| state.leases.values().cloned().collect()).await
    }

    async fn claim(&self, seen: &Lease, claim: Claim) -> Result<bool, Error> {
        let seen = seen.clone();
        self.ask(move |state| state.claim(&seen, claim)).await
    }

    async fn close(&self, seen: &Lease) -> Result<(), Error> {
        let seen = seen.clone();
        self.ask(move |state| state.close(&seen)).await
    }
}

#[async_trait]
impl Heads for Link {
    async fn heads(&self, user: UserId, chats: &[ChatId]) -> Result<Vec<Standing>, Error> {
        let chats = chats.to_vec();
        self.ask(move |state| state.standings(user, &chats)).await
    }
}

#[async_trait]
impl DeliveryState for Link {
    async fn advance(
        &self,
        user: UserId,
        chat: ChatId,
        mark: Watermark,
        to: Sequence,
        _at: Millis,
    ) -> Result<Sequence, Error> {
        self.ask(move |state| state.advance(user, chat, mark, to)).await
    }
}
