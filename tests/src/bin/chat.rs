//! The terminal client: two people, two terminals, one conversation.

use std::{
    collections::HashMap,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rustyline::DefaultEditor;
use tests::client::{ChatSummary, Client, Event, Kept, NotSent, Options, Refused, Sent, State};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};

/// Talk to people from a terminal.
#[derive(Debug, Parser)]
#[command(name = "chat")]
struct Config {
    /// Where the platform is
    #[arg(long, env = "SERVER", default_value = "http://127.0.0.1:8080")]
    server: String,

    /// Your phone number, for example +12025550100
    #[arg(long, env = "PHONE")]
    phone: String,

    /// What others see
    #[arg(long, env = "NAME")]
    name: Option<String>,

    /// The one-time code, should you have it already
    #[arg(long, env = "CODE")]
    code: Option<String>,

    /// Folder that keeps your messages and your login; by default one below your home
    #[arg(long, env = "CHAT_DATA")]
    data: Option<PathBuf>,
}

const HELP: &str = "\
  TEXT                   send to the open chat
  /chats                 your chats
  /open N                open a chat of that list
  /new PHONE             talk to somebody
  /group NAME PHONE…     make a group
  /history [N]           the last messages of the open chat
  /members               who is in it
  /name TEXT             what others see of you
  /quit";

/// How long messages that were just written may take when the input ends.
const LAST_SENDS: Duration = Duration::from_secs(5);
const LINES: usize = 256;
const SHOWN: usize = 10;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    let (mut lines, print) = match terminal() {
        Ok(terminal) => terminal,
        Err(error) => return fail(&error),
    };
    match talk(config, &mut lines, print).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("chat: {error:#}");
    ExitCode::FAILURE
}

async fn talk(config: Config, lines: &mut mpsc::Receiver<String>, mut print: Print) -> anyhow::Result<()> {
    let mut options = Options::new(&config.server);
    options.data = Some(folder(&config)?);
    let client = match Client::resume(options.clone()).await {
        Ok(Some(client)) => client,
        Err(error) if error.downcast_ref::<Refused>().is_none() => return Err(error),
        Ok(None) | Err(_) => {
            let ask = async || {
                if let Some(code) = config.code.clone() {
                    return Ok(code);
                }
                print.line("A one-time code is on its way (`make run` shows it in its log, in a line `otp_sent`).");
                print.line("code:");
                lines.recv().await.map(|line| line.trim().to_owned()).context("no code")
            };
            Client::login(options, &config.phone, ask).await?
        }
    };
    if let Some(name) = &config.name {
        client.rest().set_name(name).await?;
    }
    let mut events = client.events();
    let me = client.rest().me().await?;
    let mut app = App {
        client,
        print,
        chats: Vec::new(),
        names: HashMap::new(),
        open: None,
        is_connected: true,
        outcomes: FuturesUnordered::new(),
    };
    match me.display_name {
        Some(name) => app.print.line(&format!("You are {name}.")),
        None => app.print.line("You have no name yet: /name TEXT"),
    }
    app.client.ready(Duration::from_secs(20)).await?;
    app.list().await?;
    app.print.line("/help shows what you can do.");
    loop {
        tokio::select! {
            line = lines.recv() => match line.as_deref().map(str::trim) {
                None => {
                    drop(timeout(LAST_SENDS, app.all_sent()).await); // what is not sent by then goes next time
                    break;
                }
                Some("/quit") => break,
                Some("") => {}
                Some(line) => if let Err(error) = app.obey(line).await {
                    app.print.line(&format!("! {error:#}"));
                },
            },
            Some(outcome) = app.outcomes.next() => app.sent(outcome),
            event = events.recv() => match event {
                Ok(event) => app.show(event).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => app.print.line("-- many messages: /history shows them"),
                Err(broadcast::error::RecvError::Closed) => break,
            },
        }
    }
    match app.client.unsent()? {
        0 => {}
        waiting => app.print.line(&format!("-- not sent yet: {waiting}; it goes out when you start again")),
    }
    app.client.stop().await;
    Ok(())
}

fn folder(config: &Config) -> anyhow::Result<PathBuf> {
    let base = match &config.data {
        Some(data) => data.clone(),
        None => std::env::home_dir().context("you have no home folder: name one with --data")?.join(".messaging-chat"),
    };
    Ok(base.join(config.phone.trim_start_matches('+')))
}

struct App {
    client: Client,
    print: Print,
    chats: Vec<ChatSummary>,
    names: HashMap<String, String>,
    open: Option<String>,
    is_connected: bool,
    /// Of messages on their way; nobody stops typing for them.
    outcomes: FuturesUnordered<oneshot::Receiver<Result<Sent, NotSent>>>,
}

impl App {
    async fn obey(&mut self, line: &str) -> anyhow::Result<()> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (command, words.as_slice()) {
            ("/help", _) => self.print.line(HELP),
            ("/chats", _) => self.list().await?,
            ("/open", [number]) => {
                let place: usize = number.parse().context("/open takes a number of the list")?;
                let chat = self.chats.get(place.wrapping_sub(1)).context("there is no such chat in the list")?;
                let chat = chat.chat_id.clone();
                self.enter(&chat).await?;
            }
            ("/new", [phone]) => {
                let other = self.people(&[phone]).await?;
                let chat = self.client.rest().direct(&other[0]).await?;
                self.enter(&chat.chat_id).await?;
            }
            ("/group", [name, phones @ ..]) if !phones.is_empty() => {
                let others = self.people(phones).await?;
                let others: Vec<&str> = others.iter().map(String::as_str).collect();
                let chat = self.client.rest().group(name, &others).await?;
                self.enter(&chat.chat_id).await?;
            }
            ("/history", count) => {
                let count = count.first().map_or(Ok(50), |count| count.parse()).context("/history takes a number")?;
                let chat = self.open.clone().context("no chat is open")?;
                self.last(&chat, count)?;
            }
            ("/members", _) => {
                let chat = self.client.rest().chat(self.open.as_deref().context("no chat is open")?).await?;
                for member in chat.members {
                    let name = member.display_name.unwrap_or_else(|| short(&member.user_id));
                    self.print.line(&format!("  {name} ({})", member.role));
                }
            }
            ("/name", [_, ..]) => {
                let me = self.client.rest().set_name(rest.trim()).await?;
                self.print.line(&format!("You are {}.", me.display_name.unwrap_or_default()));
            }
            (command, _) if command.starts_with('/') => anyhow::bail!("not understood: /help shows what you can do"),
            _ => {
                let chat = self.open.clone().context("no chat is open: /chats, /open N, /new PHONE")?;
                // The message shows when its place is known; what the server refuses is shown when it says so.
                let outcome = self.client.begin_send(&chat, line).await?;
                self.outcomes.push(outcome);
            }
        }
        Ok(())
    }

    async fn all_sent(&mut self) {
        while let Some(outcome) = self.outcomes.next().await {
            self.sent(outcome);
        }
    }

    fn sent(&mut self, outcome: Result<Result<Sent, NotSent>, oneshot::error::RecvError>) {
        if let Ok(Err(refused)) = outcome {
            self.print.line(&format!("! not sent: {refused}"));
        }
    }

    async fn people(&mut self, phones: &[&str]) -> anyhow::Result<Vec<String>> {
        let (users, unknown) = self.client.rest().lookup(phones).await?;
        anyhow::ensure!(
            unknown.is_empty(),
            "not here yet: {} (they log in once, then you can write)",
            unknown.join(", ")
        );
        anyhow::ensure!(!users.is_empty(), "nobody has this number");
        Ok(users.into_iter().map(|user| user.user_id).collect())
    }

    async fn list(&mut self) -> anyhow::Result<()> {
        self.chats = self.client.rest().chats().await?;
        if self.chats.is_empty() {
            self.print.line("No chats yet: /new PHONE starts one.");
        }
        for (place, chat) in self.chats.iter().enumerate() {
            let preview = chat.last_message.as_ref().and_then(|last| last["content_preview"].as_str()).unwrap_or("");
            self.print.line(&format!("  {}  {}  {preview}", place + 1, title(chat)));
        }
        Ok(())
    }

    async fn enter(&mut self, chat: &str) -> anyhow::Result<()> {
        let description = self.learn(chat).await?;
        self.client.open(chat).await?;
        self.open = Some(chat.to_owned());
        let others: Vec<String> = description
            .members
            .iter()
            .filter(|member| member.user_id != self.client.user_id())
            .map(|member| self.name(&member.user_id))
            .collect();
        self.print.line(&format!("== {} ==", description.name.unwrap_or_else(|| others.join(", "))));
        self.last(chat, SHOWN)
    }

    /// Who is in a chat, for their names.
    async fn learn(&mut self, chat: &str) -> anyhow::Result<ChatSummary> {
        let description = self.client.rest().chat(chat).await?;
        for member in &description.members {
            let name = member.display_name.clone().unwrap_or_else(|| short(&member.user_id));
            self.names.insert(member.user_id.clone(), name);
        }
        Ok(description)
    }

    fn last(&mut self, chat: &str, count: usize) -> anyhow::Result<()> {
        let view = self.client.view(chat)?;
        for message in &view[view.len().saturating_sub(count)..] {
            let line = self.line(message);
            self.print.line(&line);
        }
        Ok(())
    }

    fn name(&self, user: &str) -> String {
        self.names.get(user).cloned().unwrap_or_else(|| short(user))
    }

    fn line(&self, message: &Kept) -> String {
        let at = proto::time::to_iso(message.created_at);
        let who = if message.sender == self.client.user_id() { "you".to_owned() } else { self.name(&message.sender) };
        format!("{} #{} {who}: {}", &at[11..16], message.sequence, message.content)
    }

    async fn show(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::State(State::Ready) => {
                if !self.is_connected {
                    self.print.line("-- connected");
                }
                self.is_connected = true;
            }
            Event::State(State::Disconnected) => {
                if self.is_connected {
                    self.print.line("-- reconnecting; what you write is sent later");
                }
                self.is_connected = false;
            }
            Event::State(State::Stopped) => {
                anyhow::bail!("{}: start again", self.client.stopped().unwrap_or("the client has stopped"))
            }
            Event::State(_) => {}
            Event::Message(message) => {
                if !self.names.contains_key(&message.sender) {
                    // Without the names the message is shown all the same.
                    drop(self.learn(&message.chat).await);
                }
                if self.open.is_none() {
                    self.enter(&message.chat).await?;
                } else if self.open.as_ref() == Some(&message.chat) {
                    let line = self.line(&message);
                    self.print.line(&line);
                } else {
                    let line = format!("(another chat: /chats) {}", self.line(&message));
                    self.print.line(&line);
                }
            }
            Event::Chat(chat) => {
                if self.open.is_none() {
                    self.enter(&chat).await?;
                } else {
                    drop(self.learn(&chat).await); // for names only
                }
            }
            Event::Removed(chat) => {
                if self.open.as_ref() == Some(&chat) {
                    self.open = None;
                    self.print.line("-- you are no longer in this chat");
                }
            }
        }
        Ok(())
    }
}

fn title(chat: &ChatSummary) -> String {
    let other = chat.other_member.as_ref();
    let other = other.map(|other| other.display_name.clone().unwrap_or_else(|| short(&other.user_id)));
    chat.name.clone().or(other).unwrap_or_else(|| short(&chat.chat_id))
}

/// The end of an id, for somebody without a name.
fn short(id: &str) -> String {
    format!("…{}", &id[id.len().saturating_sub(6)..])
}

/// Where lines go without disturbing the one that is being typed.
enum Print {
    Terminal(Box<dyn rustyline::ExternalPrinter + Send>),
    Plain,
}

impl Print {
    fn line(&mut self, text: &str) {
        match self {
            // A terminal that is gone reads nothing any more.
            Self::Terminal(printer) => drop(printer.print(format!("{text}\n"))),
            Self::Plain => drop(writeln!(std::io::stdout().lock(), "{text}")),
        }
    }
}

/// Lines as they are typed, and where to show others. Plain when it is not a terminal.
fn terminal() -> anyhow::Result<(mpsc::Receiver<String>, Print)> {
    let (typed, lines) = mpsc::channel(LINES);
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        let mut editor = DefaultEditor::new()?;
        let printer = editor.create_external_printer()?;
        std::thread::spawn(move || {
            loop {
                // Ctrl-C, Ctrl-D, or a terminal that is gone.
                let Ok(line) = editor.readline("> ") else { return };
                // A history that can't be written to is no reason to stop.
                drop(editor.add_history_entry(line.as_str()));
                if typed.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        return Ok((lines, Print::Terminal(Box::new(printer))));
    }
    // A thread, not a task: nobody waits for the line that never comes when the process ends.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.map_or(true, |line| typed.blocking_send(line).is_err()) {
                return;
            }
        }
    });
    Ok((lines, Print::Plain))
}
