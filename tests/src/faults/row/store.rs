//! Rows 13, 14 and 19 to 23: brokers are gone, records make no sense, the store answers strangely.

use std::time::Duration;

use anyhow::Context as _;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tokio::time::sleep;

use crate::faults::{
    run::{Evidence, Scene},
    store::{Action, Rule},
};

const TRANSACTION: &str = "TransactWriteItems";

fn rules(scene: &Scene, rules: &[Rule]) {
    for proxy in &scene.rig.edges.store_of_ingest {
        proxy.set(rules);
    }
}

fn done(scene: &Scene, action: Action) -> u64 {
    scene.rig.edges.store_of_ingest.iter().map(|proxy| proxy.count(action)).sum()
}

/// Rows 13 and 14: each of the three brokers is killed in turn; its partitions get other leaders, and it comes back.
pub(super) async fn brokers_killed(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let mut killed = 0;
    let first = scene.random.below(3);
    for turn in 0..3 {
        let number = u8::try_from((first + turn) % 3 + 1).unwrap_or(1);
        scene.begins("kill a broker");
        scene.own.kill_broker(number).await?;
        sleep(Duration::from_secs(5)).await;
        scene.own.start_broker(number).await?;
        sleep(Duration::from_secs(3)).await;
        scene.ends("kill a broker");
        killed += 1;
    }
    Ok(vec![("brokers killed", killed)])
}

/// Row 19: garbage, another version and an empty record in each partition; messages behind them still come.
pub(super) async fn poisoned(scene: &mut Scene) -> anyhow::Result<Evidence> {
    // Not into the topic of messages, which the checker reads as a whole: into those beside it.
    let topic = format!("{}{}", scene.rig.log.prefix, proto::topics::Topic::MembershipsChanged.name());
    scene.begins("poison");
    let brokers = scene.rig.log.brokers.clone();
    let sent = tokio::task::spawn_blocking(move || -> anyhow::Result<u64> {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create()?;
        let mut sent = 0;
        for partition in 0..4 {
            for payload in [b"garbage".as_slice(), b"", &[0xff; 1024]] {
                let record = BaseRecord::to(&topic).partition(partition).key("chat_nobody").payload(payload);
                producer.send(record).map_err(|(error, _)| error)?;
                sent += 1;
            }
        }
        producer.flush(Duration::from_secs(10)).context("the log takes nothing")?;
        Ok(sent)
    });
    let sent = sent.await??;
    sleep(Duration::from_secs(3)).await;
    scene.ends("poison");
    Ok(vec![("records that nobody can read", sent)])
}

/// Row 20: a part of all requests is throttled, then each, then a part again.
pub(super) async fn throttled(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("throttled");
    let part = u16::try_from(scene.random.below(500)).unwrap_or(0) + 100;
    rules(scene, &[Rule::some(part, Action::Throttle), Rule::some(part, Action::Limit)]);
    sleep(Duration::from_secs(3)).await;
    rules(scene, &[Rule::each(TRANSACTION, Action::Throttle)]);
    sleep(Duration::from_secs(2)).await;
    rules(scene, &[Rule::some(part, Action::Limit)]);
    sleep(Duration::from_secs(2)).await;
    rules(scene, &[]);
    scene.ends("throttled");
    Ok(vec![
        ("requests refused for throughput", done(scene, Action::Throttle)),
        ("requests refused for their rate", done(scene, Action::Limit)),
    ])
}

/// Row 21: the store takes requests and says nothing, longer than anybody waits.
pub(super) async fn hangs(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("the store hangs");
    rules(scene, &[Rule::some(1000, Action::Hang)]);
    sleep(Duration::from_secs(8)).await;
    rules(scene, &[]);
    scene.ends("the store hangs");
    Ok(vec![("requests without an answer", done(scene, Action::Hang))])
}

/// Row 22: transactions are executed, and their answers are lost.
pub(super) async fn answers_lost(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("answers lost");
    let lose = |per_mille| Rule { per_mille, ..Rule::each(TRANSACTION, Action::LoseAnswer) };
    rules(scene, &[lose(300)]);
    sleep(Duration::from_secs(4)).await;
    // Each of the next ones: the repetition of a lost one is lost too.
    rules(scene, &[lose(1000).at_most(20)]);
    sleep(Duration::from_secs(3)).await;
    rules(scene, &[]);
    scene.ends("answers lost");
    Ok(vec![("answers lost", done(scene, Action::LoseAnswer))])
}

/// Row 23: transactions meet others, and a part of them is slow meanwhile.
pub(super) async fn conflicts(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("conflicts");
    let some = |per_mille, action| Rule { per_mille, ..Rule::each(TRANSACTION, action) };
    rules(scene, &[some(300, Action::Conflict), some(200, Action::Delay(150))]);
    sleep(Duration::from_secs(6)).await;
    rules(scene, &[]);
    scene.ends("conflicts");
    Ok(vec![
        ("transactions that met another", done(scene, Action::Conflict)),
        ("transactions that were slow", done(scene, Action::Delay(150))),
    ])
}
