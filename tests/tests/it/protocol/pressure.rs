//! WS-B: a client that does not read is warned, closed and healed, and nothing is dropped in silence.

use std::collections::BTreeSet;

use proto::messaging::v1::{SyncRequest, client_frame::Payload as Ask, server_frame::Payload};
use tests::client::Client;

use super::{
    place::{Place, rules},
    speaker::{BOTH, Got, Speaker, new_id, text},
};

rules! {
    ws_b_01_who_does_not_read_is_warned_before_anything_else with super::FLAGS, ["--outbound-grace=60s"];
    ws_b_02_who_goes_on_not_reading_is_told_and_closed with super::FLAGS, ["--outbound-grace=100ms", "--stop-close=60s"];
    ws_b_03_who_was_closed_has_all_after_connecting_again_and_syncing with super::FLAGS, ["--outbound-grace=100ms"];
}

/// Pushes that may wait for a connection here: the warning comes above 380, the note in the log above 320.
const QUEUE: &str = "--outbound-messages=400";
/// Bytes are no matter in these tests, nobody sends heartbeats, and pages are for the asking.
const FLAGS: [&str; 4] = [QUEUE, "--outbound-bytes=100000000", "--heartbeat-interval=5m", "--sync-burst=1000"];
/// Connections that write, so that messages are stored together.
const WRITERS: usize = 8;
/// Messages that are under way at once: the note in the log may come so much later.
const BATCH: usize = 16;
/// Messages after that, one by one.
const TRICKLE: usize = 40;
/// Kernels hold some megabytes for a client before gateway has to: pages of some hundred kilobytes fill them sooner
/// than messages do.
const PAGES: usize = 40;
/// And if they hold more, messages fill the rest.
const BATCHES: usize = 1000;

/// A chat, who writes to it, who reads it, and who is connected to it and does not read.
struct Scene<'a> {
    place: &'a Place,
    chat: String,
    ben: Client,
    writers: Vec<Speaker>,
    quick: Speaker,
    slow: Speaker,
    sent: u64,
    noted: usize,
}

impl<'a> Scene<'a> {
    async fn set(place: &'a Place, protocol: &str, number: usize) -> anyhow::Result<Self> {
        let phone = |person: usize| format!("+1202555{:04}", 100 + 2 * number + person);
        let (ana, ben) = (place.client(&phone(0)).await?, place.client(&phone(1)).await?);
        let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            writers.push(Speaker::connect(place, &ana, protocol).await?);
        }
        // At one gateway, so that what the quick one has was given to the slow one too.
        let gateway = number % 2;
        let quick = Speaker::connect_at(place, gateway, &ben, protocol).await?;
        let slow = Speaker::connect_narrow(place, gateway, &ben, protocol).await?;
        let mut scene = Self { place, chat, ben, writers, quick, slow, sent: 0, noted: 0 };
        scene.noted = scene.notes()?;
        Ok(scene)
    }

    /// Sends messages, and waits until they were pushed to all connections: the quick one has them.
    async fn push(&mut self, count: usize) -> anyhow::Result<()> {
        let asks: Vec<(usize, String)> = (0..count).map(|number| (number % WRITERS, new_id())).collect();
        for (writer, request) in &asks {
            let send = Ask::SendMessage(text(&self.chat, &"x".repeat(4096)));
            self.writers[*writer].ask(request, send).await?;
        }
        for (writer, request) in &asks {
            let answer = self.writers[*writer].answer(request).await?;
            anyhow::ensure!(matches!(answer, Payload::SendMessageAck(_)), "{answer:?}");
        }
        let last = self.sent + count as u64;
        while self.sent < last {
            if let Some(Payload::Message(message)) = self.quick.frame().await?.payload {
                self.sent = message.sequence;
            }
        }
        Ok(())
    }

    fn notes(&self) -> anyhow::Result<usize> {
        let log = self.place.log()?;
        Ok(log.lines().filter(|line| line.contains("a client reads slowly")).count())
    }

    /// Sends until the log says that the slow one's queue is filled by 80 %.
    async fn fill(&mut self) -> anyhow::Result<()> {
        for number in 0..BATCHES {
            self.push(BATCH).await?;
            // By now there is enough for a whole page.
            if number == 3 {
                self.ask_for_pages().await?;
            }
            if self.notes()? > self.noted {
                return Ok(());
            }
        }
        anyhow::bail!("{} messages did not fill the queue", self.sent)
    }

    async fn ask_for_pages(&mut self) -> anyhow::Result<()> {
        for number in 0..PAGES {
            let page = SyncRequest { chat_id: self.chat.clone(), last_acked_sequence: 0, limit: Some(500) };
            self.slow.ask(&format!("page-{number}"), Ask::SyncRequest(page)).await?;
        }
        Ok(())
    }
}

async fn ws_b_01_who_does_not_read_is_warned_before_anything_else(place: Place) -> anyhow::Result<()> {
    for (number, protocol) in BOTH.into_iter().enumerate() {
        let mut scene = Scene::set(&place, protocol, number).await?;
        scene.fill().await?;
        scene.push(62).await?;
        // It reads again in time: it is told, keeps its connection, and got everything.
        let (mut places, mut warning, mut pages) = (Vec::new(), None, 0);
        while places.last() != Some(&scene.sent) || pages < PAGES {
            match scene.slow.frame().await?.payload {
                Some(Payload::Message(message)) => places.push(message.sequence),
                Some(Payload::SyncResponse(_)) => pages += 1,
                Some(Payload::Error(error)) => warning = Some(error),
                other => anyhow::bail!("{protocol}: {other:?}"),
            }
        }
        let warning = warning.expect("a warning");
        let details = warning.details.expect("details");
        assert_eq!((&*warning.code, details.buffer_limit), ("SLOW_CONSUMER", Some(400)), "{protocol}");
        assert!(details.buffer_size > Some(380) && details.grace_period_seconds == Some(60), "{details:?}");
        assert_eq!(places, (1..=scene.sent).collect::<Vec<u64>>(), "{protocol}: nothing was dropped");
        scene.slow.nothing_before_this_heartbeat().await?;
    }
    Ok(())
}

async fn ws_b_02_who_goes_on_not_reading_is_told_and_closed(place: Place) -> anyhow::Result<()> {
    for (number, protocol) in BOTH.into_iter().enumerate() {
        let mut scene = Scene::set(&place, protocol, number).await?;
        scene.fill().await?;
        scene.push(62).await?;
        // Kernels may have taken some more meanwhile: on until the warning is due, slower than the grace is long.
        for _ in 0..TRICKLE {
            scene.push(1).await?;
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        let (mut told, mut last) = (Vec::new(), 0);
        let code = loop {
            match scene.slow.next().await? {
                Got::Closed(code) => break code,
                Got::Frame(frame) => match frame.payload {
                    Some(Payload::Message(message)) => {
                        assert_eq!(message.sequence, last + 1, "{protocol}: dropped while it was open");
                        last = message.sequence;
                    }
                    // The chat is new: its event may come after the connection.
                    Some(Payload::SyncResponse(_) | Payload::ChatCreated(_)) => {}
                    Some(Payload::Error(error)) => told.push(error.code),
                    Some(Payload::ConnectionClosing(closing)) => {
                        assert!(closing.reconnect_allowed, "{closing:?}");
                        told.push(closing.reason);
                    }
                    other => anyhow::bail!("{protocol}: {other:?}"),
                },
            }
        };
        assert_eq!((told, code), (vec!["SLOW_CONSUMER".to_owned(), "slow_consumer".to_owned()], 1008), "{protocol}");
        assert!(last < scene.sent, "what did not fit is left to its sync");
    }
    Ok(())
}

async fn ws_b_03_who_was_closed_has_all_after_connecting_again_and_syncing(place: Place) -> anyhow::Result<()> {
    for (number, protocol) in BOTH.into_iter().enumerate() {
        let mut scene = Scene::set(&place, protocol, number).await?;
        scene.fill().await?;
        // More than fits: it is closed at once.
        scene.push(100).await?;
        let mut places = BTreeSet::new();
        // It has not read for longer than gateway waits: the connection may be gone without a close by now.
        while let Ok(Got::Frame(frame)) = scene.slow.next().await {
            if let Some(Payload::Message(message)) = frame.payload {
                places.insert(message.sequence);
            }
        }
        let mut after = places.last().copied().unwrap_or(0);
        assert!(after < scene.sent, "{protocol}: it was not closed");
        let mut again = Speaker::connect(&place, &scene.ben, protocol).await?;
        loop {
            let page = again.page(&scene.chat, after, Some(500)).await?;
            places.extend(page.messages.iter().map(|item| item.sequence));
            match page.next_sequence {
                Some(next) => after = next - 1,
                None => break,
            }
        }
        assert_eq!(places, (1..=scene.sent).collect::<BTreeSet<u64>>(), "{protocol}");
    }
    Ok(())
}
