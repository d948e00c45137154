//! One connection from established to closed: what it sends, what it makes of what comes.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use proto::{
    frames,
    messaging::v1::{
        Ack, ChatCursor, ClientFrame, ConnectionEstablished, ErrorFrame, Heartbeat, Message as MessageFrame,
        SendMessage, SyncHeads, SyncHeadsResponse, SyncRequest, SyncResponse, client_frame::Payload as Request,
        server_frame::Payload as Answer,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Command, Event, NotSent, Sent, Shared, State,
    connection::{ASKED, End, REPLACED, Sends, Socket, is_stale, jittered},
    keep::{Kept, Unsent},
    new_uuid, now_millis,
    pace::Pace,
    verdict::{Verdict, verdict},
};
use crate::history::line::Kind;

/// Acks wait for this long, or for ten messages (AK-06).
const ACK_EVERY: Duration = Duration::from_secs(5);
const ACK_MESSAGES: usize = 10;
/// A hole that is open this long is synced (D5.3).
const HOLE_OPEN: Duration = Duration::from_secs(2);
/// Syncs in flight (RS-05), and chats of one question for heads.
const SYNCS: usize = 5;
const HEADS: usize = 50;
const OPEN_CHATS: usize = 20;
const PAGE: u32 = 100;
/// `INTERNAL_ERROR` is tried this often (websocket-protocol §6).
const INTERNAL_TRIES: u32 = 3;
/// The pause before a refused message goes again, when the server names none.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// What an answer is expected for.
enum Pending {
    Send(String),
    Sync(String),
    Heads,
    Heartbeat,
}

/// One connection from established to closed.
pub(super) struct Session<'a> {
    shared: &'a Shared,
    user_id: &'a str,
    socket: Socket,
    sends: &'a mut Sends,
    heartbeat_every: Duration,
    pending: HashMap<String, (Pending, Instant)>,
    /// Chats to be synced, and those that are being.
    to_sync: VecDeque<String>,
    syncing: HashSet<String>,
    heads_open: usize,
    holes: HashMap<String, Instant>,
    pace: Pace,
    unacknowledged: usize,
    ack_at: Option<Instant>,
    /// What came ends this connection: how.
    end: Option<End>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        user_id: &'a str,
        socket: Socket,
        established: &ConnectionEstablished,
        sends: &'a mut Sends,
    ) -> Self {
        let heartbeat_every = Duration::from_millis(u64::from(established.heartbeat_interval_ms.max(100)));
        Self {
            shared,
            user_id,
            socket,
            sends,
            heartbeat_every,
            pending: HashMap::new(),
            to_sync: VecDeque::new(),
            syncing: HashSet::new(),
            heads_open: 0,
            holes: HashMap::new(),
            pace: Pace::default(),
            unacknowledged: 0,
            ack_at: None,
            end: None,
        }
    }

    pub(super) async fn run(&mut self, commands: &mut mpsc::Receiver<Command>) -> End {
        self.shared.move_to(State::Connected);
        let end = self.serve(commands).await;
        end.unwrap_or_else(|_| self.end.take().unwrap_or(End::Lost))
    }

    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> anyhow::Result<End> {
        // A chat that was made while we were away is not in the local list.
        for chat in self.shared.rest.chats().await.unwrap_or_default() {
            self.shared.keep.follow(&chat.chat_id)?;
        }
        self.ask_heads().await?;
        let mut beat = Instant::now() + self.heartbeat_every;
        loop {
            self.go_on().await?;
            let next = self.next_timer(beat);
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.receive(&text).await?,
                    Some(Ok(Message::Close(frame))) => {
                        // 4001: the token does not hold any more, and a refresh may mend it.
                        let is_unauthorized = frame.is_some_and(|frame| u16::from(frame.code) == 4001);
                        if is_unauthorized {
                            return Ok(End::Unauthorized);
                        }
                        anyhow::bail!("closed");
                    }
                    Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => anyhow::bail!("closed"),
                },
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => return Ok(End::Stopped(ASKED)),
                    Some(Command::Drop) => return Ok(End::Lost),
                    Some(Command::Open(chat)) => {
                        self.shared.keep.follow(&chat)?;
                        self.sync(&chat);
                    }
                    Some(Command::Send { chat, text, done }) => self.sends.take(self.shared, chat, text, done),
                },
                () = sleep_until(next) => {
                    if Instant::now() >= beat {
                        beat = Instant::now() + self.heartbeat_every;
                        self.heartbeat().await?;
                    }
                    self.on_timers().await?;
                }
            }
            if let Some(end) = self.end.take() {
                self.shared.move_to(State::Closing);
                self.flush_acks().await?;
                return Ok(end);
            }
        }
    }

    /// Starts syncs that may start, becomes ready when there is nothing left to catch up with, and then sends.
    async fn go_on(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        while self.syncing.len() < SYNCS && self.pace.free_at(now) <= now {
            let Some(chat) = self.to_sync.pop_front() else { break };
            self.syncing.insert(chat.clone());
            self.pace.went_out(now);
            self.request_page(&chat).await?;
        }
        if *self.shared.state.borrow() == State::Connected {
            self.shared.move_to(State::Syncing);
        }
        let is_catching_up = self.heads_open > 0 || !self.syncing.is_empty() || !self.to_sync.is_empty();
        if !is_catching_up && *self.shared.state.borrow() == State::Syncing {
            self.shared.move_to(State::Ready);
        }
        if *self.shared.state.borrow() == State::Ready {
            for unsent in self.sends.outbox.due(now, self.shared.options.window) {
                self.send_message(&unsent).await?;
            }
        }
        Ok(())
    }

    fn next_timer(&self, beat: Instant) -> Instant {
        let now = Instant::now();
        let answers = self.pending.values().map(|(_, until)| *until);
        let holes = self.holes.values().copied();
        let may_sync = !self.to_sync.is_empty() && self.syncing.len() < SYNCS;
        let sync = may_sync.then(|| self.pace.free_at(now));
        let sends = self.sends.outbox.wake(now);
        answers.chain(holes).chain(sync).chain(sends).chain(self.ack_at).chain([beat]).min().unwrap_or(beat)
    }

    async fn on_timers(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        // An answer that does not come: the connection is not to be trusted, whatever was lost goes again on the next.
        anyhow::ensure!(self.pending.values().all(|(_, until)| *until > now), "no answer in time");
        if self.ack_at.is_some_and(|at| at <= now) {
            self.flush_acks().await?;
        }
        let open: Vec<String> = self.holes.iter().filter(|(_, at)| **at <= now).map(|(chat, _)| chat.clone()).collect();
        for chat in open {
            self.holes.remove(&chat);
            self.sync(&chat);
        }
        Ok(())
    }

    async fn write(&mut self, pending: Option<Pending>, payload: Request) -> anyhow::Result<()> {
        let mut request_id = String::new();
        if let Some(pending) = pending {
            request_id = new_uuid().to_string();
            self.pending.insert(request_id.clone(), (pending, Instant::now() + self.shared.options.answer_within));
        }
        let frame = ClientFrame { request_id, trace_context: None, payload: Some(payload) };
        self.socket.send(Message::text(frames::client_to_json(&frame))).await.context("not sent")
    }

    async fn send_message(&mut self, unsent: &Unsent) -> anyhow::Result<()> {
        let id = unsent.client_message_id.clone();
        if is_stale(unsent, now_millis()) {
            let error = "it waited for more than six days; send it again if you want to";
            self.shared.keep.remove_unsent(&id)?;
            self.sends.finish(&id, Err(NotSent { code: "TOO_OLD".to_owned(), message: error.to_owned() }));
            return Ok(());
        }
        self.sends.outbox.went_out(&id);
        self.shared.witness.sends(unsent);
        let payload = SendMessage {
            client_message_id: id.clone(),
            chat_id: unsent.chat.clone(),
            content: unsent.content.clone(),
            content_type: String::new(),
        };
        self.write(Some(Pending::Send(id)), Request::SendMessage(payload)).await
    }

    async fn heartbeat(&mut self) -> anyhow::Result<()> {
        let mut open_chats = Vec::new();
        for chat_id in self.shared.keep.chats()?.into_iter().take(OPEN_CHATS) {
            let last_sequence = self.shared.keep.cursor(&chat_id)?;
            open_chats.push(ChatCursor { chat_id, last_sequence });
        }
        self.write(Some(Pending::Heartbeat), Request::Heartbeat(Heartbeat { open_chats })).await
    }

    /// Asks which chats are behind; only those are synced (D5.2).
    async fn ask_heads(&mut self) -> anyhow::Result<()> {
        let known = self.shared.keep.chats()?;
        for some in known.chunks(HEADS) {
            let mut chats = Vec::new();
            for chat_id in some {
                let last_sequence = self.shared.keep.cursor(chat_id)?;
                chats.push(ChatCursor { chat_id: chat_id.clone(), last_sequence });
            }
            self.heads_open += 1;
            self.write(Some(Pending::Heads), Request::SyncHeads(SyncHeads { chats })).await?;
        }
        Ok(())
    }

    fn sync(&mut self, chat: &str) {
        if !self.syncing.contains(chat) && !self.to_sync.iter().any(|waiting| waiting == chat) {
            self.to_sync.push_back(chat.to_owned());
        }
    }

    async fn request_page(&mut self, chat: &str) -> anyhow::Result<()> {
        let last_acked_sequence = self.shared.keep.cursor(chat)?;
        self.shared.witness.asks(chat, last_acked_sequence);
        let request = SyncRequest { chat_id: chat.to_owned(), last_acked_sequence, limit: Some(PAGE) };
        self.write(Some(Pending::Sync(chat.to_owned())), Request::SyncRequest(request)).await
    }

    async fn flush_acks(&mut self) -> anyhow::Result<()> {
        self.ack_at = None;
        self.unacknowledged = 0;
        for (chat_id, last_acked_sequence) in self.shared.keep.to_acknowledge()? {
            let ack = Ack { chat_id: chat_id.clone(), last_acked_sequence, last_read_sequence: None };
            self.write(None, Request::Ack(ack)).await?;
            self.shared.keep.set_acknowledged(&chat_id, last_acked_sequence)?;
        }
        Ok(())
    }

    async fn receive(&mut self, text: &str) -> anyhow::Result<()> {
        let frame = match frames::server_from_json(text) {
            Ok(frame) => frame,
            // EH-02: what is not known is logged and passed over.
            Err(unread) => {
                tracing::warn!(?unread, "a frame that is not known here");
                self.shared.wire.unknown.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        };
        let pending = self.pending.remove(&frame.request_id).map(|(pending, _)| pending);
        match (frame.payload, pending) {
            (Some(Answer::Message(message)), _) => self.on_message(message).await?,
            (Some(Answer::SendMessageAck(ack)), _) => {
                let sent = Sent {
                    client_message_id: ack.client_message_id.clone(),
                    message_id: ack.message_id,
                    sequence: ack.sequence,
                };
                self.shared.witness.sent(&ack.chat_id, &sent);
                self.on_sent(&sent, ack.created_at).await?;
            }
            (Some(Answer::SyncResponse(page)), _) => self.on_page(page).await?,
            (Some(Answer::SyncHeadsResponse(heads)), _) => self.on_heads(heads)?,
            (Some(Answer::HeartbeatAck(ack)), _) => {
                for head in ack.heads {
                    self.on_head(&head.chat_id, head.current_sequence)?;
                }
                if ack.resync {
                    self.ask_heads().await?;
                }
            }
            (Some(Answer::Error(error)), pending) => self.on_error(error, pending)?,
            (Some(Answer::ConnectionClosing(closing)), _) => {
                let wait = Duration::from_millis(u64::from(closing.reconnect_delay_ms));
                self.end = Some(match closing.reason.as_str() {
                    "token_expired" | "session_revoked" => End::Unauthorized,
                    _ if closing.reconnect_allowed => End::Later(wait),
                    _ => End::Stopped(REPLACED),
                });
            }
            (Some(Answer::ChatCreated(event) | Answer::MemberAdded(event) | Answer::ChatUpdated(event)), _) => {
                self.shared.keep.follow(&event.chat_id)?;
                self.sync(&event.chat_id);
                drop(self.shared.events.send(Event::Chat(event.chat_id))); // nobody may listen
            }
            (Some(Answer::MemberRemoved(event)), _) => {
                if event.user_ids.iter().any(|user| user == self.user_id) {
                    self.on_not_a_member(&event.chat_id)?;
                } else {
                    drop(self.shared.events.send(Event::Chat(event.chat_id))); // nobody may listen
                }
            }
            (Some(Answer::ConnectionEstablished(_)) | None, _) => {}
        }
        Ok(())
    }

    async fn on_message(&mut self, message: MessageFrame) -> anyhow::Result<()> {
        self.shared.wire.pushes.fetch_add(1, Ordering::Relaxed);
        let own = message.client_message_id.clone();
        let kept = Kept {
            chat: message.chat_id,
            sequence: message.sequence,
            message_id: message.message_id,
            sender: message.sender_id,
            content: message.content,
            created_at: message.created_at,
        };
        self.shared.witness.pushed(&kept);
        self.know_again(own.as_deref(), &kept)?;
        self.keep(&kept).await
    }

    /// A message of ours whose ack was lost comes back by push or sync (D2.10).
    fn know_again(&mut self, own: Option<&str>, kept: &Kept) -> anyhow::Result<()> {
        if let Some(id) = own
            && kept.sender == self.user_id
            && self.shared.keep.remove_unsent(id)?.is_some()
        {
            let sent =
                Sent { client_message_id: id.to_owned(), message_id: kept.message_id.clone(), sequence: kept.sequence };
            self.shared.witness.sent(&kept.chat, &sent);
            self.sends.finish(id, Ok(sent));
        }
        Ok(())
    }

    async fn keep(&mut self, kept: &Kept) -> anyhow::Result<()> {
        let arrival = self.shared.keep.receive(kept)?;
        if arrival.is_duplicate {
            self.shared.wire.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        if arrival.has_hole {
            self.holes.entry(kept.chat.clone()).or_insert_with(|| Instant::now() + HOLE_OPEN);
        } else {
            self.holes.remove(&kept.chat);
        }
        self.reached(arrival.reached).await
    }

    async fn reached(&mut self, reached: Vec<Kept>) -> anyhow::Result<()> {
        self.unacknowledged += self.shared.show(reached);
        if self.unacknowledged >= ACK_MESSAGES {
            self.flush_acks().await?;
        } else if self.unacknowledged > 0 {
            self.ack_at.get_or_insert_with(|| Instant::now() + ACK_EVERY);
        }
        Ok(())
    }

    async fn on_sent(&mut self, sent: &Sent, created_at: i64) -> anyhow::Result<()> {
        if let Some(unsent) = self.shared.keep.remove_unsent(&sent.client_message_id)? {
            let kept = Kept {
                chat: unsent.chat,
                sequence: sent.sequence,
                message_id: sent.message_id.clone(),
                sender: self.user_id.to_owned(),
                content: unsent.content,
                created_at,
            };
            self.keep(&kept).await?;
        }
        self.sends.finish(&sent.client_message_id, Ok(sent.clone()));
        Ok(())
    }

    async fn on_page(&mut self, page: SyncResponse) -> anyhow::Result<()> {
        self.shared.witness.read(&page);
        self.shared.wire.synced.fetch_add(page.messages.len() as u64, Ordering::Relaxed);
        let mut messages = Vec::with_capacity(page.messages.len());
        for item in page.messages {
            let kept = Kept {
                chat: page.chat_id.clone(),
                sequence: item.sequence,
                message_id: item.message_id,
                sender: item.sender_id,
                content: item.content,
                created_at: item.created_at,
            };
            self.know_again(item.client_message_id.as_deref(), &kept)?;
            messages.push(kept);
        }
        let covered = messages.last().map_or(0, |last| last.sequence);
        let (duplicates, reached) = self.shared.keep.receive_page(&page.chat_id, &messages, covered)?;
        self.shared.wire.duplicates.fetch_add(duplicates, Ordering::Relaxed);
        self.holes.remove(&page.chat_id);
        self.reached(reached).await?;
        self.syncing.remove(&page.chat_id);
        if page.has_more {
            self.to_sync.push_front(page.chat_id);
        }
        Ok(())
    }

    fn on_heads(&mut self, heads: SyncHeadsResponse) -> anyhow::Result<()> {
        self.heads_open = self.heads_open.saturating_sub(1);
        for chat in &heads.not_member {
            self.on_not_a_member(chat)?;
        }
        for head in heads.chats {
            self.on_head(&head.chat_id, head.current_sequence)?;
        }
        Ok(())
    }

    fn on_head(&mut self, chat: &str, current: u64) -> anyhow::Result<()> {
        if current > self.shared.keep.cursor(chat)? {
            self.sync(chat);
        }
        Ok(())
    }

    /// RS-04: never tried again.
    fn on_not_a_member(&mut self, chat: &str) -> anyhow::Result<()> {
        self.shared.keep.leave(chat)?;
        self.syncing.remove(chat);
        self.to_sync.retain(|waiting| waiting != chat);
        drop(self.shared.events.send(Event::Removed(chat.to_owned()))); // nobody may listen
        Ok(())
    }

    fn on_error(&mut self, error: ErrorFrame, pending: Option<Pending>) -> anyhow::Result<()> {
        let verdict = verdict(&error);
        match verdict {
            Verdict::Refresh => self.end = Some(End::Unauthorized),
            // RS-03: a slow consumer's pushes may be gone.
            Verdict::Reconnect => self.end = Some(End::Lost),
            Verdict::Again(_) | Verdict::AgainAFewTimes | Verdict::Refused | Verdict::ChatGone => {}
        }
        let pause = if let Verdict::Again(Some(named)) = verdict { named } else { RESEND_AFTER };
        match pending {
            Some(Pending::Send(id)) => self.on_send_error(&id, verdict, pause, error)?,
            Some(Pending::Sync(chat)) => {
                self.shared.witness.page_refused(&chat, &error.code);
                self.on_page_error(chat, verdict, pause, &error)?;
            }
            Some(Pending::Heads) => anyhow::bail!("heads were refused: {}", error.code),
            Some(Pending::Heartbeat) | None => tracing::warn!(code = error.code, "the server complains"),
        }
        Ok(())
    }

    fn on_page_error(
        &mut self,
        chat: String,
        verdict: Verdict,
        pause: Duration,
        error: &ErrorFrame,
    ) -> anyhow::Result<()> {
        match verdict {
            Verdict::ChatGone => self.on_not_a_member(&chat)?,
            Verdict::Refused if error.code == "FORBIDDEN" => self.on_not_a_member(&chat)?,
            // Asked again after a while, as if it were a hole.
            Verdict::Again(_) | Verdict::AgainAFewTimes | Verdict::Refused | Verdict::Refresh | Verdict::Reconnect => {
                self.syncing.remove(&chat);
                self.holes.insert(chat, Instant::now() + jittered(pause));
            }
        }
        Ok(())
    }

    fn on_send_error(&mut self, id: &str, verdict: Verdict, pause: Duration, error: ErrorFrame) -> anyhow::Result<()> {
        let refusals = self.sends.outbox.refused(id);
        // D2.9: these two leave it open, every other code says that nothing was stored.
        let is_open = matches!(error.code.as_str(), "SERVICE_UNAVAILABLE" | "INTERNAL_ERROR");
        self.shared.witness.refused(id, if is_open { Kind::Info } else { Kind::Fail }, &error.code);
        let goes_again = match verdict {
            Verdict::Again(_) | Verdict::Refresh | Verdict::Reconnect => true,
            Verdict::AgainAFewTimes => refusals <= INTERNAL_TRIES,
            Verdict::Refused | Verdict::ChatGone => false,
        };
        if goes_again {
            self.sends.outbox.again_at(id, Instant::now() + jittered(pause));
            return Ok(());
        }
        let unsent = self.shared.keep.remove_unsent(id)?;
        self.sends.finish(id, Err(NotSent { code: error.code, message: error.message }));
        match unsent {
            // RS-04: not in the chat (any more); the user is told.
            Some(unsent) if verdict == Verdict::ChatGone => self.on_not_a_member(&unsent.chat),
            Some(_) | None => Ok(()),
        }
    }

    /// Flushes acks and closes, without waiting longer than a moment.
    pub(super) async fn close(&mut self) {
        let closing = async {
            drop(self.flush_acks().await); // the socket may be gone
            drop(self.socket.close(None).await); // likewise
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        drop(timeout(Duration::from_secs(1), closing).await); // a server that does not answer is left
    }
}
