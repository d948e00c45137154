//! Where the time of a message goes, from the spans of its hops: each step begins where the one before it ended.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::Summary;
use crate::collector::Seen;

/// The hops of a message (D9.1), each the parent of the next, in one trace.
const HOPS: [&str; 6] = [
    "gateway.receive",
    "durability.persist",
    "durability.publish",
    "fanout.consume",
    "fanout.route",
    "gateway.deliver",
];

/// The store's call, which serves many messages and has a trace of its own.
const COMMIT: &str = "durability.commit";

/// What the client saw of a message, in nanoseconds of UTC's epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) arrived: u64,
}

/// A moment in the life of a message.
#[derive(Clone, Copy)]
enum Moment {
    Sent,
    Begins(usize),
    Ends(usize),
    Acknowledged,
    Arrived,
}

/// What the sender waits for.
const TO_ACK: [Moment; 6] =
    [Moment::Sent, Moment::Begins(0), Moment::Begins(1), Moment::Ends(1), Moment::Ends(0), Moment::Acknowledged];

/// What the recipient waits for: publishing begins when the message is stored, beside the way of the ack.
const TO_ARRIVAL: [Moment; 9] = [
    Moment::Sent,
    Moment::Begins(0),
    Moment::Begins(1),
    Moment::Begins(2),
    Moment::Begins(3),
    Moment::Begins(4),
    Moment::Begins(5),
    Moment::Ends(5),
    Moment::Arrived,
];

impl Moment {
    fn name(self) -> String {
        match self {
            Self::Sent => "the client sends".to_owned(),
            Self::Begins(hop) => format!("{} begins", HOPS[hop]),
            Self::Ends(hop) => format!("{} ends", HOPS[hop]),
            Self::Acknowledged => "the sender has the ack".to_owned(),
            Self::Arrived => "the recipient has it".to_owned(),
        }
    }

    fn of(self, traced: &Traced<'_>) -> u64 {
        match self {
            Self::Sent => traced.client.sent,
            Self::Begins(hop) => traced.hops[hop].began,
            Self::Ends(hop) => traced.hops[hop].ended,
            Self::Acknowledged => traced.client.acknowledged,
            Self::Arrived => traced.client.arrived,
        }
    }
}

/// A message of which all is known.
struct Traced<'a> {
    client: Client,
    hops: [&'a Seen; HOPS.len()],
}

/// Times of the messages in `clients`, by their request ids, as far as their traces were kept.
///
/// # Errors
/// When none was.
pub(super) fn explain(spans: &[Seen], clients: &HashMap<String, Client>) -> anyhow::Result<Value> {
    let mut by_trace: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for span in spans {
        by_trace.entry(&span.trace).or_default().push(span);
    }
    let (mut all, mut incomplete) = (Vec::new(), 0_u64);
    for trace in by_trace.values() {
        let hop = |name: &str| trace.iter().copied().find(|span| span.name == name);
        let Some(client) = hop(HOPS[0]).and_then(|first| clients.get(first.texts.get("request.id")?)).copied() else {
            continue;
        };
        let hops: Option<Vec<&Seen>> = HOPS.iter().map(|name| hop(name)).collect();
        match hops.and_then(|hops| hops.try_into().ok()) {
            Some(hops) => all.push(Traced { client, hops }),
            None => incomplete += 1,
        }
    }
    anyhow::ensure!(!all.is_empty(), "no message was traced, and {incomplete} in part");
    let duration = |span: &Seen| between(span.began, span.ended);
    let mut durations: BTreeMap<&str, Value> = HOPS
        .iter()
        .enumerate()
        .map(|(place, name)| (*name, Summary::of(all.iter().map(|traced| duration(traced.hops[place]))).json()))
        .collect();
    let commits = spans.iter().filter(|span| span.name == COMMIT).map(duration);
    durations.insert(COMMIT, Summary::of(commits).json());
    Ok(json!({
        "messages": all.len(),
        "messages_traced_in_part": incomplete,
        "to_ack": way(&all, &TO_ACK),
        "to_arrival": way(&all, &TO_ARRIVAL),
        "span_milliseconds": durations,
    }))
}

/// The steps from the first moment to the last. Their means add up to that of the whole; quantiles need not.
fn way(all: &[Traced<'_>], moments: &[Moment]) -> Value {
    let from_to = |from: Moment, to: Moment| Summary::of(all.iter().map(|each| between(from.of(each), to.of(each))));
    let whole = from_to(moments[0], moments[moments.len() - 1]);
    let steps = moments.windows(2).map(|pair| {
        let step = from_to(pair[0], pair[1]);
        let mut shown = step.json();
        shown["from"] = json!(pair[0].name());
        shown["to"] = json!(pair[1].name());
        shown["part_of_the_mean"] = json!((step.mean / whole.mean * 1000.0).round() / 1000.0);
        shown
    });
    json!({ "steps_milliseconds": steps.collect::<Vec<Value>>(), "whole_milliseconds": whole.json() })
}

/// Milliseconds; below zero when clocks that were read by two processes were not read in order.
#[expect(clippy::cast_precision_loss, reason = "a difference of moments near to each other")]
fn between(from: u64, to: u64) -> f64 {
    to.wrapping_sub(from).cast_signed() as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, began: u64, ended: u64) -> Seen {
        let request = (name == HOPS[0]).then(|| ("request.id".to_owned(), "r-1".to_owned()));
        Seen {
            service: String::new(),
            name: name.to_owned(),
            trace: "t".to_owned(),
            id: name.to_owned(),
            parent: String::new(),
            links: Vec::new(),
            began: began * 1_000_000,
            ended: ended * 1_000_000,
            texts: request.into_iter().collect(),
        }
    }

    #[test]
    fn the_steps_add_up_to_the_whole() {
        let times = [(101, 140), (103, 135), (130, 131), (136, 150), (141, 142), (144, 145)];
        let mut spans: Vec<Seen> =
            HOPS.iter().zip(times).map(|(name, (began, ended))| span(name, began, ended)).collect();
        let seen = Client { sent: 100_000_000, acknowledged: 142_000_000, arrived: 149_000_000 };
        let clients = HashMap::from([("r-1".to_owned(), seen)]);
        let told = explain(&spans, &clients).expect("traced");
        for (way, whole, steps) in [
            ("to_ack", 42.0, vec![1.0, 2.0, 32.0, 5.0, 2.0]),
            ("to_arrival", 49.0, vec![1.0, 2.0, 27.0, 6.0, 5.0, 3.0, 1.0, 4.0]),
        ] {
            let found: Vec<f64> = told[way]["steps_milliseconds"]
                .as_array()
                .expect("steps")
                .iter()
                .map(|step| step["p50"].as_f64().expect("a number"))
                .collect();
            assert_eq!(found, steps, "{way}");
            assert_eq!(told[way]["whole_milliseconds"]["mean"], whole, "{way}");
        }
        assert_eq!(told["span_milliseconds"]["fanout.consume"]["p99"], 14.0);
        spans.pop();
        assert!(explain(&spans, &clients).is_err(), "a message without its last hop explains nothing");
    }
}
