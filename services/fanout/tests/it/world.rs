//! Ports in memory that can be away, and a fanout that runs on them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{
    Error, Millis,
    ids::{ChatId, ClientMessageId, ConnectionId, MessageId, UserId},
    membership::{Membership, Role},
    message::{Content, Sequence, StoredMessage},
    ports::{
        ConnectionRegistry, DeadLetters, EventSource, MembershipCache, MembershipDirectory, MessageHistory,
        connection_registry::Registered,
        dead_letters::DeadLetter,
        event_source::{Occurrence, Partition, Record},
        membership_cache::{Cached, Fill, Generation},
        message_history::Page,
    },
    route::{Connection, GatewayId},
};
use fanout::{
    config::Limits,
    wire_up::{Ports, join},
};
use platform::{Process, Secret, grpc::InternalToken};
use prost::Message as _;
use proto::{
    events::v1::{Envelope, MembershipChanged, MessagePersisted, envelope},
    topics::{Topic, header},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use ulid::Ulid;

use crate::gateway::Gateway;

pub(crate) const CHAT: ChatId = ChatId(Ulid(1));
pub(crate) const ANNA: UserId = UserId(Ulid(11));
pub(crate) const BEN: UserId = UserId(Ulid(12));
pub(crate) const MESSAGES: Partition = Partition { topic: "messages.persisted", number: 0 };
pub(crate) const MEMBERSHIPS: Partition = Partition { topic: "memberships.changed", number: 0 };

/// Everything around a fanout.
#[derive(Default)]
pub(crate) struct Outside {
    occurrences: Mutex<VecDeque<Occurrence>>,
    held: Mutex<Vec<Record>>,
    came: Notify,
    pub(crate) committed: Mutex<BTreeMap<Partition, i64>>,
    pub(crate) paused: Mutex<BTreeSet<Partition>>,
    pub(crate) has_left: AtomicBool,
    pub(crate) letters: Mutex<Vec<DeadLetter>>,
    remembered: Mutex<HashMap<ChatId, Vec<UserId>>>,
    generation: AtomicU64,
    pub(crate) members: Mutex<Vec<UserId>>,
    pub(crate) stored: Mutex<Vec<StoredMessage>>,
    /// The first and the last place that a restore took out of use.
    pub(crate) gap: Mutex<(Sequence, Sequence)>,
    pub(crate) routes: Mutex<HashMap<UserId, Vec<GatewayId>>>,
    /// Gateways that were to be told that they missed something.
    pub(crate) forgotten: Mutex<Vec<GatewayId>>,
    pub(crate) cache_is_away: AtomicBool,
    pub(crate) store_is_away: AtomicBool,
    pub(crate) store_is_broken: AtomicBool,
    pub(crate) look_ups: AtomicU64,
    /// How often it was asked where users are, and whether that has no answer yet.
    pub(crate) asked: AtomicU64,
    pub(crate) is_held: watch::Sender<bool>,
    pub(crate) lag: Mutex<Vec<(Partition, u64)>>,
    /// Whoever asks where this one is gets a fault.
    pub(crate) culprit: Mutex<Option<UserId>>,
}

fn all<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("whole")
}

impl Outside {
    fn cache(&self) -> Result<(), Error> {
        if self.cache_is_away.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the cache is away", "told to"));
        }
        Ok(())
    }

    fn store(&self) -> Result<(), Error> {
        if self.store_is_away.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the store is away", "told to"));
        }
        if self.store_is_broken.load(Ordering::SeqCst) {
            return Err(Error::internal("told to"));
        }
        Ok(())
    }

    pub(crate) fn occur(&self, occurrence: Occurrence) {
        all(&self.occurrences).push_back(occurrence);
        self.came.notify_one();
    }

    pub(crate) fn committed(&self, partition: Partition) -> Option<i64> {
        all(&self.committed).get(&partition).copied()
    }
}

#[async_trait]
impl EventSource for Outside {
    async fn next(&self) -> Result<Occurrence, Error> {
        loop {
            let occurrence = all(&self.occurrences).pop_front();
            match occurrence {
                Some(Occurrence::Records(records)) => {
                    let paused = all(&self.paused).clone();
                    let (held, free): (Vec<_>, _) = records.into_iter().partition(|r| paused.contains(&r.partition));
                    all(&self.held).extend(held);
                    if !free.is_empty() {
                        return Ok(Occurrence::Records(free));
                    }
                }
                Some(other) => return Ok(other),
                None => self.came.notified().await,
            }
        }
    }

    async fn commit(&self, next_offsets: &[(Partition, i64)]) -> Result<(), Error> {
        all(&self.committed).extend(next_offsets.iter().copied());
        Ok(())
    }

    async fn pause(&self, partitions: &[Partition]) -> Result<(), Error> {
        all(&self.paused).extend(partitions);
        Ok(())
    }

    async fn resume(&self, partitions: &[Partition]) -> Result<(), Error> {
        all(&self.paused).retain(|partition| !partitions.contains(partition));
        let held = std::mem::take(&mut *all(&self.held));
        all(&self.occurrences).push_front(Occurrence::Records(held));
        self.came.notify_one();
        Ok(())
    }

    fn lag(&self) -> Vec<(Partition, u64)> {
        all(&self.lag).clone()
    }

    async fn leave(&self) {
        self.has_left.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl DeadLetters for Outside {
    async fn keep(&self, letter: DeadLetter) -> Result<(), Error> {
        all(&self.letters).push(letter);
        Ok(())
    }
}

#[async_trait]
impl MembershipCache for Outside {
    async fn members(&self, chats: &[ChatId]) -> Result<Vec<Cached>, Error> {
        self.cache()?;
        let generation = Generation(self.generation.load(Ordering::SeqCst));
        let remembered = all(&self.remembered);
        let found = |chat| remembered.get(chat).map_or(Cached::Nothing(generation), |m| Cached::Members(m.clone()));
        Ok(chats.iter().map(found).collect())
    }

    async fn fill(&self, chat: ChatId, generation: Generation, members: &[UserId], _: Duration) -> Result<Fill, Error> {
        self.cache()?;
        if generation.0 != self.generation.load(Ordering::SeqCst) {
            return Ok(Fill::Stale);
        }
        all(&self.remembered).insert(chat, members.to_vec());
        Ok(Fill::Taken)
    }

    async fn invalidate(&self, chats: &[ChatId], _: Duration) -> Result<(), Error> {
        self.cache()?;
        self.generation.fetch_add(1, Ordering::SeqCst);
        all(&self.remembered).retain(|chat, _| !chats.contains(chat));
        Ok(())
    }
}

#[async_trait]
impl MembershipDirectory for Outside {
    async fn membership(&self, _: ChatId, _: UserId) -> Result<Option<Membership>, Error> {
        Ok(None)
    }

    async fn members(&self, chat: ChatId) -> Result<Vec<Membership>, Error> {
        self.store()?;
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        let members = all(&self.members);
        let membership = |user: &UserId| Membership {
            chat,
            user: *user,
            role: Role::Member,
            joined_at: Millis(0),
            muted_until: None,
        };
        Ok(members.iter().map(membership).collect())
    }

    async fn chats_of(&self, _: UserId) -> Result<Vec<Membership>, Error> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl MessageHistory for Outside {
    async fn after(&self, chat: ChatId, after: Sequence, limit: u32) -> Result<Page, Error> {
        self.store()?;
        let (from, to) = *all(&self.gap);
        let mut page = Page { messages: Vec::new(), through: after, gap: 0 };
        if from <= after.next() && after < to {
            (page.through, page.gap) = (to, to.0 - after.0);
        }
        let stored = all(&self.stored);
        let messages = stored.iter().filter(|message| message.chat == chat && message.sequence > page.through);
        page.messages = messages.take(limit.min(2) as usize).cloned().collect();
        page.through = page.messages.last().map_or(page.through, |last| last.sequence);
        Ok(page)
    }

    async fn before(&self, _: ChatId, _: Option<Sequence>, _: u32) -> Result<Vec<StoredMessage>, Error> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl ConnectionRegistry for Outside {
    async fn register(&self, _: &Connection, _: Millis, _: Duration) -> Result<Registered, Error> {
        Ok(Registered { live: 1, replaced: Vec::new() })
    }

    async fn deregister(&self, _: &Connection) -> Result<u32, Error> {
        Ok(0)
    }

    async fn renew(&self, _: &[Connection], _: Millis, _: Duration) -> Result<Vec<ConnectionId>, Error> {
        Ok(Vec::new())
    }

    async fn announce(&self, _: &GatewayId, _: Duration) -> Result<bool, Error> {
        Ok(true)
    }

    async fn forget(&self, gateway: &GatewayId) -> Result<(), Error> {
        self.cache()?;
        all(&self.forgotten).push(gateway.clone());
        Ok(())
    }

    async fn gateways(&self, users: &[UserId]) -> Result<Vec<Vec<GatewayId>>, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.is_held.subscribe().wait_for(|is_held| !is_held).await.expect("it is there");
        self.cache()?;
        if users.iter().any(|user| Some(*user) == *all(&self.culprit)) {
            return Err(Error::internal("told to"));
        }
        let routes = all(&self.routes);
        Ok(users.iter().map(|user| routes.get(user).cloned().unwrap_or_default()).collect())
    }
}

/// A fanout that runs: Anna and Ben are in the chat and connected to one gateway.
pub(crate) struct World {
    pub(crate) outside: Arc<Outside>,
    pub(crate) gateway: Gateway,
    pub(crate) process: Process,
    /// Gateways end after it, as they do in a cluster.
    pub(crate) gateways: Process,
    pub(crate) token: InternalToken,
    offsets: Mutex<BTreeMap<Partition, i64>>,
}

pub(crate) fn limits() -> Limits {
    Limits { retry_cap: Duration::from_millis(100), delivery_timeout: Duration::from_millis(500), ..Limits::default() }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(limits()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let (process, gateways) = (Process::new(), Process::new());
        let token = InternalToken::new(&Secret::new("s3cret")).expect("valid");
        let gateway = Gateway::start(&gateways, &token).await;
        let outside = Arc::new(Outside::default());
        *all(&outside.members) = vec![ANNA, BEN];
        for user in [ANNA, BEN] {
            all(&outside.routes).insert(user, vec![gateway.id.clone()]);
        }
        let ports = Ports {
            source: outside.clone(),
            dead_letters: outside.clone(),
            cache: outside.clone(),
            directory: outside.clone(),
            history: outside.clone(),
            registry: outside.clone(),
        };
        outside.occur(Occurrence::Assigned(vec![MESSAGES, MEMBERSHIPS]));
        join(ports, token.clone(), &limits, &process);
        Self { outside, gateway, process, gateways, token, offsets: Mutex::default() }
    }

    /// Puts that on the log, as one batch. Returns the offset after it.
    pub(crate) fn log(&self, partition: Partition, envelopes: impl IntoIterator<Item = Envelope>) -> i64 {
        let values: Vec<_> = envelopes.into_iter().map(|envelope| envelope.encode_to_vec()).collect();
        self.log_bytes(partition, values)
    }

    pub(crate) fn log_bytes(&self, partition: Partition, values: Vec<Vec<u8>>) -> i64 {
        let mut offsets = all(&self.offsets);
        let offset = offsets.entry(partition).or_insert(0);
        let mut records = Vec::new();
        for value in values {
            records.push(Record {
                partition,
                offset: *offset,
                timestamp: Millis(0),
                key: CHAT.to_string().into_bytes(),
                value,
                headers: vec![(header::ORIGIN_CONNECTION.to_owned(), b"conn_1".to_vec())],
            });
            *offset += 1;
        }
        self.outside.occur(Occurrence::Records(records));
        *offset
    }

    /// Waits until all of the partition before that offset was attempted.
    pub(crate) async fn finished(&self, partition: Partition, offset: i64) {
        eventually("committed", || self.outside.committed(partition) == Some(offset)).await;
    }

    /// Sequences of the messages that the gateway was sent.
    pub(crate) fn sequences(&self) -> Vec<u64> {
        sequences(&self.gateway)
    }

    pub(crate) async fn stop(self) {
        tokio::time::timeout(Duration::from_secs(20), self.process.shut_down()).await.expect("it stops");
        assert!(self.outside.has_left.load(Ordering::SeqCst));
        tokio::time::timeout(Duration::from_secs(20), self.gateways.shut_down()).await.expect("they stop");
    }
}

pub(crate) fn sequences(gateway: &Gateway) -> Vec<u64> {
    use proto::messaging::v1::delivery_frame::Push;
    gateway
        .frames()
        .iter()
        .filter_map(|f| if let Some(Push::Message(m)) = &f.push { Some(m.sequence) } else { None })
        .collect()
}

pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn stored(sequence: u64) -> StoredMessage {
    StoredMessage {
        id: MessageId(Ulid(u128::from(sequence))),
        chat: CHAT,
        sequence: Sequence(sequence),
        sender: ANNA,
        client_id: ClientMessageId(uuid::Uuid::nil()),
        content: Content::from_store(format!("text {sequence}")),
        created_at: Millis(1),
    }
}

pub(crate) fn message(sequence: u64) -> Envelope {
    let message = stored(sequence);
    envelope(
        Topic::MessagesPersisted,
        sequence,
        envelope::Event::MessagePersisted(MessagePersisted {
            message_id: message.id.to_string(),
            chat_id: CHAT.to_string(),
            sequence,
            sender_id: ANNA.to_string(),
            content: message.content.as_str().to_owned(),
            content_type: "text/plain".to_owned(),
            client_message_id: message.client_id.to_string(),
            created_at: 1,
        }),
    )
}

pub(crate) fn change(number: u64, user: UserId, change_type: &str) -> MembershipChanged {
    MembershipChanged {
        chat_id: CHAT.to_string(),
        user_id: user.to_string(),
        change_type: change_type.to_owned(),
        role: "member".to_owned(),
        changed_by: ANNA.to_string(),
        changed_at: i64::try_from(number).expect("small"),
        member_count_after: 1,
        at_creation: false,
    }
}

pub(crate) fn changed(number: u64, change: MembershipChanged) -> Envelope {
    envelope(Topic::MembershipsChanged, number, envelope::Event::MembershipChanged(change))
}

pub(crate) fn envelope(topic: Topic, number: u64, event: envelope::Event) -> Envelope {
    Envelope {
        event_id: format!("{}-{number}", topic.name()),
        event_type: String::new(),
        event_version: 1,
        event_time: 1,
        partition_key: CHAT.to_string(),
        producer_id: "test".to_owned(),
        trace_id: String::new(),
        event: Some(event),
    }
}
