//! Rows 15, 25 and 28: what lies between the processes is slow, silent or parted.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::{
    faults::{
        proxy::{Counted, Proxy, Toxics},
        random::Random,
        rig::Edges,
        run::{Evidence, Scene},
        store::{Action, Rule, StoreProxy},
    },
    history::line::{Kind, Line, What},
};

/// A send fails after 5 s (CHAOS-6.2.5), and a busy machine is a little late.
const TOLD_WITHIN: Duration = Duration::from_secs(7);

/// Row 15: two seconds to the log and back, then silence for longer than its clients wait.
pub(super) async fn log_away(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let edges = &scene.rig.edges;
    let proxies = [&edges.log_of_ingest, &edges.log_of_fanout];
    scene.begins("log away");
    let slow = Toxics { latency: Duration::from_secs(1), ..Toxics::default() };
    for proxy in proxies {
        proxy.set(slow);
    }
    sleep(Duration::from_secs(4)).await;
    for proxy in proxies {
        proxy.set(Toxics::black_hole());
    }
    sleep(Duration::from_secs(8)).await;
    for proxy in proxies {
        proxy.set(Toxics { refuses: true, ..Toxics::default() });
    }
    for proxy in proxies {
        proxy.reset();
    }
    sleep(Duration::from_secs(4)).await;
    for proxy in proxies {
        proxy.heal();
    }
    scene.ends("log away");
    let counted = proxies.map(Proxy::counted);
    Ok(vec![
        ("pieces delayed", counted.iter().map(|counted| counted.delayed).sum()),
        ("pieces held", counted.iter().map(|counted| counted.held).sum()),
        ("connections refused", counted.iter().map(|counted| counted.refused).sum()),
    ])
}

/// Row 28: deliveries to each gateway wait by themselves for up to 300 ms.
pub(super) async fn jittered(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let gateways = &scene.rig.edges.gateway;
    scene.begins("jitter");
    for proxy in gateways {
        proxy.set(Toxics { jitter: Duration::from_millis(300), ..Toxics::default() });
    }
    sleep(Duration::from_secs(6)).await;
    for proxy in gateways {
        proxy.heal();
    }
    scene.ends("jitter");
    Ok(vec![("pieces delayed", gateways.iter().map(|proxy| proxy.counted().delayed).sum())])
}

/// An edge that can be parted.
enum Edge<'a> {
    Plain(&'static str, &'a Proxy),
    Store(&'static str, &'a StoreProxy),
}

impl Edge<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Plain(name, _) | Self::Store(name, _) => name,
        }
    }

    fn part(&self, random: &mut Random) {
        match self {
            Self::Plain(_, proxy) => {
                let requests = Toxics { holds_requests: true, ..Toxics::default() };
                let answers = Toxics { holds_answers: true, ..Toxics::default() };
                proxy.set(*random.one_of(&[Toxics::black_hole(), requests, answers]));
            }
            Self::Store(_, proxy) => {
                let action = *random.one_of(&[Action::Hang, Action::LoseAnswer]);
                proxy.set([Rule::some(1000, action)]);
            }
        }
    }

    fn heal(&self) {
        match self {
            Self::Plain(_, proxy) => proxy.heal(),
            Self::Store(_, proxy) => proxy.heal(),
        }
    }

    /// What was held back or lost until now.
    fn parted(&self) -> u64 {
        match self {
            Self::Plain(_, proxy) => {
                let Counted { held, .. } = proxy.counted();
                held
            }
            Self::Store(_, proxy) => proxy.count(Action::Hang) + proxy.count(Action::LoseAnswer),
        }
    }
}

fn all(edges: &Edges) -> Vec<Edge<'_>> {
    vec![
        Edge::Plain("gateway - ingest", &edges.ingest[0]),
        Edge::Plain("gateway - ingest", &edges.ingest[1]),
        Edge::Store("ingest - store", &edges.store_of_ingest[0]),
        Edge::Store("ingest - store", &edges.store_of_ingest[1]),
        Edge::Plain("ingest - log", &edges.log_of_ingest),
        Edge::Plain("fanout - log", &edges.log_of_fanout),
        Edge::Plain("fanout - Redis", &edges.redis_of_fanout),
        Edge::Plain("fanout - gateway", &edges.gateway[0]),
        Edge::Plain("fanout - gateway", &edges.gateway[1]),
        Edge::Plain("gateway - Redis", &edges.redis_of_gateway),
    ]
}

/// Row 25: each edge is parted for a while, one way or both, in the seed's order; then all one after another, and they
/// heal in another order.
pub(super) async fn parted(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let mut random = scene.random.branch();
    let mut edges = all(&scene.rig.edges);
    shuffle(&mut edges, &mut random);
    for edge in &edges {
        scene.begins(edge.name());
        edge.part(&mut random);
        sleep(random.between(Duration::from_millis(1500), Duration::from_secs(4))).await;
        edge.heal();
        scene.ends(edge.name());
        sleep(Duration::from_millis(500)).await;
    }
    scene.begins("all edges");
    for edge in &edges {
        edge.part(&mut random);
        sleep(Duration::from_millis(300)).await;
    }
    shuffle(&mut edges, &mut random);
    for edge in &edges {
        edge.heal();
        sleep(Duration::from_millis(300)).await;
    }
    scene.ends("all edges");
    // One of two may have had nothing to say.
    let mut parted = BTreeMap::new();
    for edge in &edges {
        *parted.entry(edge.name()).or_default() += edge.parted();
    }
    Ok(parted.into_iter().collect())
}

/// CHAOS-6.2.5: nobody reaches ingest for longer than a gateway waits; senders are told so, and send again.
pub(super) async fn ingest_parted(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("ingest parted");
    for proxy in &scene.rig.edges.ingest {
        proxy.set(Toxics::black_hole());
    }
    sleep(Duration::from_secs(8)).await;
    for proxy in &scene.rig.edges.ingest {
        proxy.heal();
    }
    scene.ends("ingest parted");
    let lines = scene.recorder.lines()?;
    let healed = lines.iter().rfind(|line| line.what == What::Fault).map_or(u64::MAX, |line| line.at);
    let mut told = 0;
    let refused = |line: &&Line| line.what == What::Send && line.error.as_deref() == Some("SERVICE_UNAVAILABLE");
    for line in lines.iter().filter(refused).filter(|line| line.at < healed) {
        let is_its_begin =
            |other: &&Line| other.what == What::Send && other.kind == Kind::Invoke && other.client_id == line.client_id;
        let begun = lines.iter().filter(is_its_begin).map(|other| other.at).filter(|at| *at <= line.at).max();
        let took = Duration::from_micros(line.at - begun.context("a refusal of what nobody sent")?);
        anyhow::ensure!(took < TOLD_WITHIN, "a sender was told after {took:?} that its message is not stored");
        told += 1;
    }
    let held = scene.rig.edges.ingest.iter().map(|proxy| proxy.counted().held).sum();
    Ok(vec![("senders that were told in time", told), ("pieces held", held)])
}

fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for place in (1..all.len()).rev() {
        let other = usize::try_from(random.below(place as u64 + 1)).unwrap_or(0);
        all.swap(place, other);
    }
}
