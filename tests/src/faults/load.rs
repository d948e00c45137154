//! Four people in four chats who write all the time, on two gateways, one of them on two devices.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{random::Random, rig::Rig};
use crate::{
    client::Client,
    history::{
        line::{Kind, Line, What},
        recorder::Recorder,
    },
};

/// Who they are, and which of the others are in each chat with the first of the list.
const NAMES: [&str; 4] = ["ana", "ben", "cem", "dia"];
const CHATS: [&[usize]; 4] = [&[0, 1], &[0, 1, 2], &[1, 2, 3], &[0, 1, 2, 3]];
/// Messages of one person without an answer.
const ON_THE_WAY: usize = 40;
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(60));
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The people and their chats.
pub struct People {
    /// The first devices, one a person.
    pub clients: Vec<Arc<Client>>,
    /// Devices beside them.
    pub more: Vec<Arc<Client>>,
    /// The chats, and who is in them.
    pub chats: Vec<(String, &'static [usize])>,
}

/// Messages on their way, until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<anyhow::Result<usize>>,
}

/// A person's phone number.
pub fn phone(person: usize) -> String {
    format!("+1202555{:04}", 100 + person)
}

impl People {
    /// Logs everybody in and makes the chats.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn meet(rig: &Rig, recorder: &Recorder, random: &mut Random) -> anyhow::Result<Self> {
        let mut clients = Vec::new();
        for (person, name) in NAMES.iter().enumerate() {
            // With a window of one the order of each sender is fixed; with more, batches are larger.
            let window = *random.one_of(&[1, 4]);
            let client = rig.client(person % 2, &phone(person), window, &format!("{name}/1"), recorder).await?;
            clients.push(Arc::new(client));
        }
        let second = rig.client(1, &phone(0), 1, "ana/2", recorder).await?;
        let mut people = Self { clients, more: vec![Arc::new(second)], chats: Vec::new() };
        for members in CHATS {
            let first = &people.clients[members[0]];
            let others: Vec<&str> = members[1..].iter().map(|other| people.clients[*other].user_id()).collect();
            let chat = match others.as_slice() {
                [other] => first.rest().direct(other).await?,
                others => first.rest().group("Chaos", others).await?,
            };
            for member in members {
                people.member(recorder, &chat.chat_id, *member, What::AddMember);
            }
            people.chats.push((chat.chat_id, members));
        }
        for client in people.everybody() {
            for (chat, members) in &people.chats {
                if members.iter().any(|member| people.clients[*member].user_id() == client.user_id()) {
                    client.open(chat).await?;
                }
            }
        }
        Ok(people)
    }

    /// Writes down that somebody is in a chat, or not any more.
    pub fn member(&self, recorder: &Recorder, chat: &str, person: usize, what: What) {
        recorder.write(Line {
            what,
            kind: Kind::Ok,
            chat: Some(chat.to_owned()),
            user: Some(self.clients[person].user_id().to_owned()),
            ..Line::default()
        });
    }

    /// All devices.
    pub fn everybody(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.iter().chain(&self.more)
    }

    /// Lets everybody write from now on.
    pub fn talk(&self, random: &mut Random) -> Load {
        let (stop, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for (person, client) in self.clients.iter().enumerate() {
            let mine = self.chats.iter().filter(|(_, members)| members.contains(&person));
            let mine: Vec<String> = mine.map(|(chat, _)| chat.clone()).collect();
            tasks.spawn(write(
                client.clone(),
                mine,
                format!("{} {}", NAMES[person], random.next()),
                stop.clone(),
                random.branch(),
            ));
        }
        Load { stop, tasks }
    }

    /// Waits until each device has the first `heads` of its chats, or the time is over: then the checker says who lacks what.
    pub async fn caught_up(&self, heads: &BTreeMap<String, u64>, within: Duration) {
        let deadline = Instant::now() + within;
        for client in self.everybody() {
            for (chat, members) in &self.chats {
                let is_in = members.iter().any(|member| self.clients[*member].user_id() == client.user_id());
                let head = heads.get(chat).copied().unwrap_or(0);
                while is_in && Instant::now() < deadline {
                    let has = client.view(chat).map_or(0, |view| view.last().map_or(0, |last| last.sequence));
                    if has >= head {
                        break;
                    }
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Ends all devices.
    pub async fn leave(self) {
        for client in self.clients.into_iter().chain(self.more) {
            if let Some(client) = Arc::into_inner(client) {
                client.stop().await;
            }
        }
    }
}

impl Load {
    /// Stops, and waits until each message has its answer. Returns how many there were.
    ///
    /// # Errors
    /// When a message has none in time.
    pub async fn stop(mut self, within: Duration) -> anyhow::Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + within;
        let mut count = 0;
        while let Some(ended) = timeout_at(deadline, self.tasks.join_next()).await.context("no answer in time")? {
            count += ended??;
        }
        Ok(count)
    }
}

async fn write(
    client: Arc<Client>,
    chats: Vec<String>,
    text: String,
    stop: Arc<AtomicBool>,
    mut random: Random,
) -> anyhow::Result<usize> {
    let mut answers = std::collections::VecDeque::new();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        while answers.len() >= ON_THE_WAY && !stop.load(Ordering::Relaxed) {
            let waits: Option<&mut tokio::sync::oneshot::Receiver<_>> = answers.front_mut();
            let Some(first) = waits else { break };
            // What was answered how is in the history.
            if tokio::time::timeout(LOOK_EVERY, first).await.is_ok() {
                answers.pop_front();
            }
        }
        let chat = random.one_of(&chats);
        answers.push_back(client.begin_send(chat, &format!("{text}: {count}")).await?);
        count += 1;
        sleep(random.between(PAUSE.0, PAUSE.1)).await;
    }
    for answer in answers {
        drop(answer.await);
    }
    Ok(count)
}
