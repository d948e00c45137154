//! Two fanouts over one log while everything around them comes and goes, and partitions change hands.
//!
//! `FANOUT_SEED=N` makes the same choices again.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use domain::{
    Ids as _,
    ids::ChatId,
    message::{Sequence, StoredMessage},
    ports::event_source::Partition,
};
use fanout::wire_up::{Ports, join};
use platform::{Process, Secret, clock::SystemIds, grpc::InternalToken};
use prost::Message as _;
use proto::{
    events::v1::{Envelope, MessagePersisted, envelope::Event},
    messaging::v1::delivery_frame::Push,
    topics::Topic,
};
use tokio::time::{sleep, timeout};
use ulid::Ulid;

use crate::{
    gateway::Gateway,
    group::Group,
    world::{ANNA, BEN, Outside, envelope, eventually, limits, stored},
};

const STEPS: usize = 250;
const CHATS: u128 = 6;
const PARTITIONS: i32 = 3;
const MEMBERS: usize = 2;

/// Choices from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn partition_of(chat: ChatId) -> Partition {
    let number = i32::try_from(chat.0.0 % 3).expect("small");
    Partition { topic: Topic::MessagesPersisted.name(), number }
}

fn message(chat: ChatId, sequence: u64) -> StoredMessage {
    StoredMessage { chat, sequence: Sequence(sequence), ..stored(sequence) }
}

fn event(message: &StoredMessage) -> Vec<u8> {
    let event = MessagePersisted {
        message_id: message.id.to_string(),
        chat_id: message.chat.to_string(),
        sequence: message.sequence.0,
        sender_id: message.sender.to_string(),
        content: message.content.as_str().to_owned(),
        content_type: "text/plain".to_owned(),
        client_message_id: message.client_id.to_string(),
        created_at: message.created_at.0,
    };
    envelope(Topic::MessagesPersisted, message.sequence.0, Event::MessagePersisted(event)).encode_to_vec()
}

/// What the gateway pushed of each chat: it drops what is not above what it has.
fn pushed(gateway: &Gateway) -> BTreeMap<String, Vec<u64>> {
    let mut by_chat: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for frame in gateway.frames() {
        if let Some(Push::Message(message)) = frame.push {
            let of_chat = by_chat.entry(message.chat_id).or_default();
            if of_chat.last().is_none_or(|last| *last < message.sequence) {
                of_chat.push(message.sequence);
            }
        }
    }
    by_chat
}

struct Run {
    seed: u64,
    dice: Dice,
    group: Arc<Group>,
    outside: Arc<Outside>,
    gateway: Gateway,
    /// By chat: the last sequence that is stored, and those that are on the log.
    last: BTreeMap<ChatId, u64>,
    logged: BTreeMap<ChatId, Vec<u64>>,
}

impl Run {
    fn step(&mut self) {
        let place = usize::from(self.dice.below(2) == 0);
        match self.dice.below(20) {
            0..=11 => self.say_something(),
            12 => self.toggle(|outside| &outside.cache_is_away),
            13 => self.toggle(|outside| &outside.store_is_away),
            14..=16 => {
                let number = i32::try_from(self.dice.below(3)).expect("small");
                if !self.group.stands_still(place) {
                    self.group.assign(Partition { topic: Topic::MessagesPersisted.name(), number }, place);
                }
            }
            17 if !(0..MEMBERS).any(|member| self.group.stands_still(member)) => {
                self.group.stand_still(place, 1 - place);
            }
            18 => (0..MEMBERS).filter(|member| self.group.stands_still(*member)).for_each(|m| self.group.go_on(m)),
            _ => self.check_offsets(),
        }
    }

    /// New messages of one chat; some are on the log twice, and some are not.
    fn say_something(&mut self) {
        let chat = ChatId(Ulid(1 + u128::from(self.dice.below(6)) % CHATS));
        for _ in 0..=self.dice.below(4) {
            let last = self.last.entry(chat).or_default();
            *last += 1;
            let message = message(chat, *last);
            self.outside.stored.lock().expect("whole").push(message.clone());
            let times = match self.dice.below(12) {
                0 => 0,
                1 => 2,
                _ => 1,
            };
            for _ in 0..times {
                self.group.write(partition_of(chat), &chat.to_string(), event(&message));
            }
            if times > 0 {
                self.logged.entry(chat).or_default().push(message.sequence.0);
            }
        }
    }

    fn toggle(&self, what: impl Fn(&Outside) -> &std::sync::atomic::AtomicBool) {
        what(&self.outside).fetch_xor(true, Ordering::SeqCst);
    }

    /// `commit_after_process`: nothing below a committed offset was not brought to the gateway.
    fn check_offsets(&self) {
        let committed = self.group.committed();
        let pushed = pushed(&self.gateway);
        for record in committed {
            let Some(Event::MessagePersisted(event)) = Envelope::decode(&*record.value).expect("an envelope").event
            else {
                unreachable!("another event")
            };
            let of_chat = pushed.get(&event.chat_id).map(Vec::as_slice).unwrap_or_default();
            let (seed, offset) = (self.seed, record.offset);
            assert!(of_chat.contains(&event.sequence), "seed {seed}: offset {offset} is committed: {event:?}");
        }
    }

    fn heal(&self) {
        self.outside.cache_is_away.store(false, Ordering::SeqCst);
        self.outside.store_is_away.store(false, Ordering::SeqCst);
        (0..MEMBERS).filter(|member| self.group.stands_still(*member)).for_each(|member| self.group.go_on(member));
    }
}

async fn run(seed: u64) {
    let outside_processes = Process::new();
    let token = InternalToken::new(&Secret::new("s3cret")).expect("valid");
    let gateway = Gateway::start(&outside_processes, &token).await;
    let (outside, group) = (Arc::new(Outside::default()), Arc::new(Group::default()));
    *outside.members.lock().expect("whole") = vec![ANNA, BEN];
    for user in [ANNA, BEN] {
        outside.routes.lock().expect("whole").insert(user, vec![gateway.id.clone()]);
    }
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        let process = Process::new();
        let ports = Ports {
            source: group.join(),
            dead_letters: outside.clone(),
            cache: outside.clone(),
            directory: outside.clone(),
            history: outside.clone(),
            registry: outside.clone(),
        };
        join(ports, token.clone(), &limits(), &process);
        members.push(process);
    }
    for number in 0..PARTITIONS {
        let place = usize::try_from(number).expect("small") % MEMBERS;
        group.assign(Partition { topic: Topic::MessagesPersisted.name(), number }, place);
    }
    let (last, logged) = (BTreeMap::new(), BTreeMap::new());
    let mut run = Run { seed, dice: Dice(seed), group, outside, gateway, last, logged };
    for _ in 0..STEPS {
        run.step();
        sleep(Duration::from_millis(run.dice.below(8))).await;
    }
    run.heal();
    eventually(&format!("everything is committed, seed {seed}"), || run.group.is_done()).await;
    run.check_offsets();
    let pushed = pushed(&run.gateway);
    for (chat, logged) in &run.logged {
        let of_chat = &pushed[&chat.to_string()];
        let missing: Vec<_> = logged.iter().filter(|sequence| !of_chat.contains(sequence)).collect();
        assert!(missing.is_empty(), "seed {seed}: {chat} lacks {missing:?}");
    }
    assert!(
        run.outside.letters.lock().expect("whole").is_empty(),
        "seed {seed}: what fails for a while is no dead letter"
    );
    for process in members {
        timeout(Duration::from_secs(20), process.shut_down()).await.expect("it stops");
    }
    timeout(Duration::from_secs(20), outside_processes.shut_down()).await.expect("they stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_and_goes_nothing_is_committed_before_it_was_attempted_and_nothing_is_lost() {
    let seed = match std::env::var_os("FANOUT_SEED") {
        Some(seed) => seed.to_str().and_then(|seed| seed.parse().ok()).expect("a number"),
        None => u64::try_from(SystemIds.ulid().0 >> 64 & u128::from(u64::MAX)).expect("64 bits"),
    };
    for seed in [1, 2, 3, seed] {
        run(seed).await;
    }
}
