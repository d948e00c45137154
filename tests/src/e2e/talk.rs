//! Two people in a pod of the cluster: each writes to the other all the time, through the Services, by the reference client.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::messages::{ADDRESS, Figures, Question};
use crate::{
    client::{Client, HistoryItem, Options},
    history::{Acknowledged, Violations, check_history, check_order, check_view},
    world::cluster::{Behind, Door},
};

/// Each person begins a message this often, unless too many wait already.
const EVERY: Duration = Duration::from_millis(250);
const WAITING: usize = 8;
/// An answer that takes longer is asked for on a new connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const LOGIN_WITHIN: Duration = Duration::from_mins(2);
/// How long history and views may take to have what was acknowledged.
const SETTLED_WITHIN: Duration = Duration::from_secs(45);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where the platform is, and who talks.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// `host:port` of the Service of chatmgmt
    #[arg(long)]
    rest: String,
    /// `host:port` of the Service of gateway
    #[arg(long)]
    sockets: String,
    /// The two phones
    #[arg(long, value_delimiter = ',')]
    phones: Vec<String>,
}

/// What both the people and those who ask share.
#[derive(Default)]
struct Book {
    /// Every text that was handed over, by anybody.
    attempted: Vec<String>,
    /// By person, in the order in which the messages were handed over.
    acknowledged: [Vec<Acknowledged>; 2],
    /// What was refused for good.
    refused: Vec<String>,
    since_mark: usize,
    last: [Option<Instant>; 2],
    longest: Duration,
    is_ending: bool,
    finished: usize,
}

struct Room {
    book: Mutex<Book>,
    codes: watch::Sender<HashMap<String, String>>,
    people: watch::Sender<Option<Arc<People>>>,
}

struct People {
    clients: [Client; 2],
    chat: String,
}

impl Room {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Talks until it is killed; prints one line of JSON for each acknowledged message.
///
/// # Errors
/// When the two can't log in.
pub async fn talk(config: Config) -> anyhow::Result<()> {
    let [ana, ben] = <[String; 2]>::try_from(config.phones.clone()).ok().context("two phones are needed")?;
    let room = Arc::new(Room {
        book: Mutex::default(),
        codes: watch::Sender::new(HashMap::new()),
        people: watch::Sender::new(None),
    });
    let listener = TcpListener::bind(ADDRESS).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(listen(listener, room.clone()));

    let door = Door::open(Behind { rest: config.rest, sockets: config.sockets }).await?;
    let options = Options { answer_within: ANSWER_WITHIN, ..Options::quick(&door.server) };
    let clients = [login(&room, &options, &ana).await?, login(&room, &options, &ben).await?];
    let chat = clients[0].rest().direct(clients[1].user_id()).await?.chat_id;
    for client in &clients {
        client.open(&chat).await?;
        client.ready(LOGIN_WITHIN).await?;
    }
    let people = Arc::new(People { clients, chat });
    room.people.send_replace(Some(people.clone()));
    for person in 0..2 {
        tasks.spawn(write(room.clone(), people.clone(), person));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn login(room: &Room, options: &Options, phone: &str) -> anyhow::Result<Client> {
    let mut codes = room.codes.subscribe();
    let code = || async move {
        say(&json!({"wants_code_for": phone}));
        let given = codes.wait_for(|codes| codes.contains_key(phone));
        Ok(timeout(LOGIN_WITHIN, given).await.context("no code was given")??[phone].clone())
    };
    Client::login(options.clone(), phone, code).await
}

/// Writes all the time; ends when it is asked to and everything has an answer.
async fn write(room: Arc<Room>, people: Arc<People>, person: usize) -> anyhow::Result<()> {
    let mut beats = interval(EVERY);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outcomes = FuturesOrdered::new();
    room.book().last[person] = Some(Instant::now());
    let mut number = 0;
    loop {
        let is_ending = room.book().is_ending;
        if is_ending && outcomes.is_empty() {
            room.book().finished += 1;
            return Ok(());
        }
        tokio::select! {
            _ = beats.tick() => if !is_ending && outcomes.len() < WAITING {
                number += 1;
                let text = format!("{} {number}", ["ana", "ben"][person]);
                room.book().attempted.push(text.clone());
                let outcome = people.clients[person].begin_send(&people.chat, &text).await?;
                outcomes.push_back(async move { (text, outcome.await) });
            },
            Some((text, outcome)) = outcomes.next() => match outcome? {
                Ok(sent) => room.acknowledged(person, Acknowledged { chat: people.chat.clone(), content: text, sent }),
                Err(refused) => room.book().refused.push(format!("refused: {text}: {refused}")),
            },
        }
    }
}

impl Room {
    fn acknowledged(&self, person: usize, ack: Acknowledged) {
        say(&json!({"acknowledged": ack.content, "sequence": ack.sent.sequence, "message_id": ack.sent.message_id}));
        let now = Instant::now();
        let mut book = self.book();
        if let Some(last) = book.last[person].replace(now) {
            book.longest = book.longest.max(now - last);
        }
        book.since_mark += 1;
        book.acknowledged[person].push(ack);
    }

    fn mark(&self) {
        let now = Instant::now();
        let mut book = self.book();
        book.since_mark = 0;
        book.longest = Duration::ZERO;
        for last in book.last.iter_mut().flatten() {
            *last = now;
        }
    }

    fn figures(&self, violations: Violations) -> Figures {
        let people = self.people.borrow().clone();
        let book = self.book();
        let now = Instant::now();
        let waiting = book.last.iter().flatten().map(|last| now - *last).max().unwrap_or_default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Figures {
            is_talking: people.is_some(),
            acknowledged: book.since_mark,
            in_all: book.acknowledged.iter().map(Vec::len).sum(),
            longest_gap_ms: millis(book.longest.max(if book.is_ending { Duration::ZERO } else { waiting })),
            waiting_ms: millis(waiting),
            connections: people
                .iter()
                .flat_map(|people| &people.clients)
                .map(|client| client.wire().connections())
                .sum(),
            chat: people.map(|people| people.chat.clone()).unwrap_or_default(),
            violations: violations.into_iter().chain(book.refused.iter().cloned()).collect(),
        }
    }

    /// What was acknowledged until now must be in history, once and in order without holes, and with both people.
    async fn verify(&self) -> anyhow::Result<Violations> {
        let people = self.people.borrow().clone().context("nobody talks yet")?;
        let acknowledged = self.book().acknowledged.clone();
        let highest = acknowledged.iter().flatten().map(|ack| ack.sent.sequence).max().unwrap_or(0);
        let history = timeout(SETTLED_WITHIN, history(&people)).await.context("no history in time")?;
        let attempted = self.book().attempted.clone();
        let mut violations = check_history(&history, &acknowledged.concat(), &attempted);
        for (person, acks) in acknowledged.iter().enumerate() {
            violations.extend(check_order(acks, |_| person.to_string()));
        }
        let settled: Vec<HistoryItem> = history.into_iter().filter(|item| item.sequence <= highest).collect();
        for (client, name) in people.clients.iter().zip(["ana", "ben"]) {
            // What is missing when the time is up is told by the comparison.
            drop(client.wait_for(&people.chat, settled.len(), SETTLED_WITHIN).await);
            let view = client.view(&people.chat)?;
            violations.extend(check_view(&view, &settled).into_iter().map(|violation| format!("{name}: {violation}")));
        }
        Ok(violations)
    }

    async fn answer(&self, question: Question) -> anyhow::Result<Figures> {
        let mut violations = Violations::new();
        match question {
            Question::Code { phone, code } => self.codes.send_modify(|codes| drop(codes.insert(phone, code))),
            Question::Mark => self.mark(),
            Question::Figures => {}
            Question::Verify => violations = self.verify().await?,
            Question::Finish => {
                self.book().is_ending = true;
                let until = Instant::now() + SETTLED_WITHIN;
                while self.book().finished < 2 {
                    if Instant::now() > until {
                        violations.insert("unanswered: messages that were handed over have no answer".to_owned());
                        break;
                    }
                    sleep(LOOK_EVERY).await;
                }
                violations.extend(self.verify().await?);
            }
        }
        Ok(self.figures(violations))
    }
}

/// Pods come and go: asked again until it comes whole.
async fn history(people: &People) -> Vec<HistoryItem> {
    loop {
        match people.clients[0].rest().history(&people.chat).await {
            Ok(history) => return history,
            Err(error) => say(&json!({"history": format!("{error:#}")})),
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn listen(listener: TcpListener, room: Arc<Room>) -> anyhow::Result<()> {
    let mut asked = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let room = room.clone();
        asked.spawn(async move {
            if let Err(error) = hear(stream, &room).await {
                say(&json!({"unanswered": format!("{error:#}")}));
            }
        });
        while asked.try_join_next().is_some() {}
    }
}

async fn hear(mut stream: TcpStream, room: &Room) -> anyhow::Result<()> {
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).await?;
    let answer = match room.answer(serde_json::from_str(&line)?).await {
        Ok(figures) => serde_json::to_string(&figures)?,
        Err(error) => json!({"error": format!("{error:#}")}).to_string(),
    };
    stream.write_all(answer.as_bytes()).await?;
    Ok(())
}

/// Asks the talker of this pod one question, and prints its answer.
///
/// # Errors
/// When there is no talker.
pub async fn ask(question: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(ADDRESS).await.context("nobody talks in this pod")?;
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    writeln!(std::io::stdout().lock(), "{answer}")?;
    Ok(())
}

fn say(line: &serde_json::Value) {
    drop(writeln!(std::io::stdout().lock(), "{line}")); // the log may be gone
}
