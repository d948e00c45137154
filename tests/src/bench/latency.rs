//! From a client's send to its ack and to the recipient, at an even pace, on one clock: who sends also receives.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Summary,
    crowd::{Counts, Crowd, Heard, Line, message, people},
    hops::{self, Client},
};
use crate::{
    collector::Collector,
    world::{
        cluster::{Cluster, Plan},
        ground::Ground,
    },
};

/// Bytes of a message's content.
const CONTENT: usize = 100;
/// Time for what is under way at the end.
const TAIL: Duration = Duration::from_secs(20);
/// Frames of one socket that wait to be written down.
const FRAMES: usize = 1024;

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Chats of two people each.
    pub chats: usize,
    /// Messages a second, in all chats together.
    pub rate: u32,
    /// Seconds of it that are measured.
    pub seconds: u32,
    /// Seconds before, in which the rate grows from nothing: compilers at run time and caches get to know it.
    pub warm: u32,
    /// Traces that each gateway keeps of a minute.
    pub traces: u32,
}

impl Load {
    /// Messages that are not measured.
    fn unmeasured(self) -> usize {
        (self.rate * self.warm / 2) as usize
    }

    /// When a message is to be sent, after the begin.
    #[expect(clippy::cast_precision_loss, reason = "so many messages are not sent")]
    fn due(self, number: usize) -> Duration {
        let (rate, warm) = (f64::from(self.rate), f64::from(self.warm));
        let seconds = match number.checked_sub(self.unmeasured()) {
            Some(measured) => warm + measured as f64 / rate,
            None => (2.0 * warm * number as f64 / rate).sqrt(),
        };
        Duration::from_secs_f64(seconds)
    }
}

/// The two of a chat.
struct Pair {
    chat: String,
    lines: [Line; 2],
}

/// Everything that came over the sockets, with the time at which it came.
struct Written {
    books: JoinSet<Vec<(Instant, String)>>,
}

/// Sends messages to chats of two, in turn, each of the two in turn, and says how long they took.
///
/// # Errors
/// When the system does not start, or no message arrives.
pub async fn run(ground: &Ground, load: Load) -> anyhow::Result<Value> {
    let collector = Collector::start().await?;
    let plan = Plan::new("bench-latency", ground)
        .with("LOG", "info,gateway=warn,fanout=warn,ingest=warn,librdkafka=off")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .with("OTEL_BSP_SCHEDULE_DELAY", "500")
        .with("TRACES_PER_MINUTE", load.traces.to_string());
    let mut cluster = Cluster::start(&plan).await?;
    let (counts, mut crowd, mut written) =
        (Arc::new(Counts::default()), Crowd::default(), Written { books: JoinSet::new() });
    let pairs = pairs(&cluster, load, &counts, &mut crowd, &mut written).await?;
    let anchor = (Instant::now(), utc());
    let begun = Instant::now();
    let sent = offer(&pairs, load, begun).await?;
    counts.settled(sent.len() as u64, TAIL).await;
    let drifted = (Instant::now(), utc());
    drop((pairs, crowd));
    let frames: Vec<(Instant, String)> = written.books.join_all().await.into_iter().flatten().collect();
    // At its end each process hands over the spans that it still has.
    for service in cluster.services() {
        service.terminate().await?;
    }
    for service in cluster.services() {
        service.ended().await?;
    }
    let came = came(&frames)?;
    let (mut to_ack, mut to_arrival, mut clients) = (Vec::new(), Vec::new(), HashMap::new());
    let on_clock = |at: Instant| anchor.1 + nanos(at.saturating_duration_since(anchor.0));
    let warm = load.unmeasured();
    for (number, at) in sent.iter().enumerate().skip(warm) {
        let (acknowledged, arrived) = came.get(&number).copied().unwrap_or_default();
        to_ack.extend(acknowledged.map(|acknowledged| since(*at, acknowledged)));
        to_arrival.extend(arrived.map(|arrived| since(*at, arrived)));
        if let (Some(acknowledged), Some(arrived)) = (acknowledged, arrived) {
            let [sent, acknowledged, arrived] = [*at, acknowledged, arrived].map(on_clock);
            clients.insert(request(number), Client { sent, acknowledged, arrived });
        }
    }
    let count = sent.len() - warm;
    let late = sent.iter().enumerate().skip(warm).map(|(number, at)| since(begun + load.due(number), *at));
    let during = since(sent[warm], sent[sent.len() - 1]) / 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let offered = (count - 1) as f64 / during;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let drift = (drifted.1 as f64 - on_clock(drifted.0) as f64) / 1_000_000.0;
    Ok(json!({
        "chats": load.chats,
        "content_bytes": CONTENT,
        "messages": count,
        // Of an overloaded system the times of what it took say little.
        "not_acknowledged": count - to_ack.len(),
        "not_arrived": count - to_arrival.len(),
        "messages_per_second": { "asked": load.rate, "offered": (offered * 10.0).round() / 10.0 },
        "sent_after_its_time_milliseconds": Summary::of(late).json(),
        "send_to_ack_milliseconds": Summary::of(to_ack).json(),
        "send_to_arrival_milliseconds": Summary::of(to_arrival).json(),
        // Spans have the wall clock, clients the monotonic one: between begin and end they parted so far.
        "clocks_parted_milliseconds": super::rounded(drift),
        "hops": hops::explain(&collector.spans(), &clients)?,
    }))
}

/// Two people a chat, at one gateway, so that a message has one last hop; the chats take turns with the gateways.
async fn pairs(
    cluster: &Cluster,
    load: Load,
    counts: &Arc<Counts>,
    crowd: &mut Crowd,
    written: &mut Written,
) -> anyhow::Result<Vec<Pair>> {
    let everybody = people(cluster, load.chats * 2).await?;
    let mut pairs = Vec::with_capacity(load.chats);
    for (number, two) in everybody.chunks_exact(2).enumerate() {
        let chat = two[0].rest.direct(&two[1].user).await?.chat_id;
        let gateway = &cluster.gateways[number % cluster.gateways.len()];
        let address = gateway.address("--listen").await?;
        let mut lines = Vec::new();
        for person in two {
            let (heard, mut frames) = mpsc::channel(FRAMES);
            lines.push(crowd.connect(&address, person, counts.clone(), Heard::Both(heard)).await?);
            written.books.spawn(async move {
                let mut book = Vec::new();
                while let Some(frame) = frames.recv().await {
                    book.push(frame);
                }
                book
            });
        }
        let lines = lines.try_into().ok().context("two lines")?;
        pairs.push(Pair { chat, lines });
    }
    Ok(pairs)
}

/// Sends each message at its time, whatever became of those before it, and returns when each was sent.
async fn offer(pairs: &[Pair], load: Load, begun: Instant) -> anyhow::Result<Vec<Instant>> {
    let count = load.unmeasured() + (load.rate * load.seconds) as usize;
    let mut sent = Vec::with_capacity(count);
    for number in 0..count {
        let pair = &pairs[number % pairs.len()];
        let line = &pair.lines[number / pairs.len() % 2];
        let text = message(&pair.chat, &request(number), &format!("{number} {}", "x".repeat(CONTENT)));
        sleep_until(begun + load.due(number)).await;
        sent.push(Instant::now());
        line.send(text).await?;
    }
    Ok(sent)
}

fn request(number: usize) -> String {
    format!("r-{number}")
}

/// When each message was acknowledged and arrived, by its number.
type Came = HashMap<usize, (Option<Instant>, Option<Instant>)>;

fn came(frames: &[(Instant, String)]) -> anyhow::Result<Came> {
    let mut came = Came::new();
    for (at, text) in frames {
        let frame: Value = serde_json::from_str(text)?;
        let named = match frame["type"].as_str() {
            Some("send_message_ack") => frame["request_id"].as_str().and_then(|request| request.strip_prefix("r-")),
            _ => frame["payload"]["content"].as_str().and_then(|content| content.split(' ').next()),
        };
        let number =
            named.and_then(|number| number.parse().ok()).with_context(|| format!("not of this load: {text}"))?;
        let entry = came.entry(number).or_default();
        let moment = if frame["type"] == "send_message_ack" { &mut entry.0 } else { &mut entry.1 };
        // The wire may carry it twice; it arrived when it came first.
        *moment = Some(moment.map_or(*at, |before| before.min(*at)));
    }
    Ok(came)
}

fn since(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "spans of other processes have the machine's clock")]
fn utc() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_grows_and_is_even_from_then_on() {
        let load = Load { chats: 2, rate: 100, seconds: 3, warm: 4, traces: 1 };
        assert_eq!(load.unmeasured(), 200);
        assert_eq!((load.due(0), load.due(50)), (Duration::ZERO, Duration::from_secs(2)));
        assert_eq!((load.due(200), load.due(201)), (Duration::from_secs(4), Duration::from_millis(4010)));
        let without = Load { warm: 0, ..load };
        assert_eq!((without.due(0), without.due(100)), (Duration::ZERO, Duration::from_secs(1)));
    }

    #[test]
    fn a_frame_says_whose_it_is() {
        let at = Instant::now();
        let later = at + Duration::from_secs(1);
        let ack = r#"{"type":"send_message_ack","request_id":"r-7","payload":{}}"#.to_owned();
        let push = r#"{"type":"message","payload":{"content":"7 xxx"}}"#.to_owned();
        let came = came(&[(at, ack), (later, push.clone()), (at, push)]).expect("read");
        assert_eq!(came.get(&7), Some(&(Some(at), Some(at))), "of two pushes the first counts");
        assert!(super::came(&[(at, r#"{"type":"message","payload":{"content":"x"}}"#.to_owned())]).is_err());
    }
}
