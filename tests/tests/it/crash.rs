//! The process is killed, again and again, and started on the same folder: nothing acknowledged is lost or doubled.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use prost::Message as _;
use proto::{events::v1::Envelope, events::v1::envelope::Event, topics::Topic};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, Producer as _},
};
use tests::{
    client::{Client, Sent},
    history::{Acknowledged, Violations, check_history, check_log, check_order, check_view},
    world::World,
};
use tokio::time::{Instant, sleep_until};

const WITHIN: Duration = Duration::from_mins(1);
const KILLS: u64 = 20;

#[tokio::test]
async fn every_acknowledged_message_survives_being_killed_at_seeded_points() -> anyhow::Result<()> {
    let seed = seed()?;
    println!("KILL_SEED={seed}");
    let mut random = seed;
    let mut world = World::start().await?;
    let phones = ["+12025550100", "+12025550101", "+12025550102"];
    let mut people = Vec::new();
    for phone in phones {
        people.push(world.client(phone).await?);
    }
    let others: Vec<&str> = people[1..].iter().map(Client::user_id).collect();
    let chat = people[0].rest().group("Survivors", &others).await?.chat_id;

    let mut answers = Vec::new();
    let mut on_their_way = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..KILLS {
        for number in 0..20 {
            for (who, person) in people.iter().enumerate() {
                let content = format!("{round}/{who}/{number}");
                answers.push((content.clone(), person.begin_send(&chat, &content).await?));
            }
        }
        sleep_until(Instant::now() + Duration::from_micros(next(&mut random) % 150_000)).await;
        world.kill().await?;
        for person in &people {
            on_their_way += person.unsent()?;
        }
        slowest = slowest.max(world.restart().await?);
        for person in &people {
            person.ready(WITHIN).await?;
        }
    }
    // The clients came back by themselves and sent again what had no answer: now everything has one.
    let attempted: Vec<String> = answers.iter().map(|(content, _)| content.clone()).collect();
    let mut acknowledged = Vec::new();
    for (content, answer) in answers {
        let sent = tokio::time::timeout(WITHIN, answer).await.context("no answer in time")???;
        acknowledged.push(Acknowledged { chat: chat.clone(), content, sent });
    }
    let history = people[0].rest().history(&chat).await?;
    let duplicates: u64 = people.iter().map(|person| person.wire().duplicates()).sum();
    println!(
        "{KILLS} kills, {} messages, {on_their_way} of them unanswered at a kill; \
         {duplicates} wire duplicates; slowest start {slowest:?}",
        history.len()
    );
    assert!(on_their_way > 0, "no kill hit a message on its way");
    assert_eq!(history.len(), attempted.len());
    assert_eq!(check_history(&history, &acknowledged, &attempted), Violations::new());
    let sender = |ack: &Acknowledged| ack.content.split('/').nth(1).unwrap_or_default().to_owned();
    assert_eq!(check_order(&acknowledged, sender), Violations::new());
    for person in &people {
        let view = person.wait_for(&chat, history.len(), WITHIN).await?;
        assert_eq!(check_view(&view, &history), Violations::new());
    }
    Ok(())
}

#[tokio::test]
async fn what_was_committed_and_not_published_is_published_after_a_kill() -> anyhow::Result<()> {
    let log = Log::start()?;
    let flag = format!("--log-brokers={}", log.brokers);
    let mut world = World::start_with(&[&flag]).await?;
    let (ana, ben) = (world.client("+12025550100").await?, world.client("+12025550101").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    ana.send(&chat, "on the log").await?;
    ben.wait_for(&chat, 1, WITHIN).await?;

    // The log is away: sends are acknowledged all the same, and stay between commit and publish.
    log.down()?;
    let mut last = Sent { client_message_id: String::new(), message_id: String::new(), sequence: 0 };
    for number in 0..50 {
        last = ana.send(&chat, &format!("off the log {number}")).await?;
    }
    world.kill().await?;
    ana.stop().await;
    ben.stop().await;
    log.up()?;
    let begun = Instant::now();
    world.restart().await?;

    // Nobody is connected; an independent consumer of the log sees every sequence.
    let sequences = log.sequences(&chat, last.sequence, WITHIN)?;
    println!("{} records after {:?}", sequences.len(), begun.elapsed());
    assert_eq!(check_log(&sequences, 1, last.sequence), Violations::new());
    Ok(())
}

/// A log that outlives the platform's process.
struct Log {
    brokers: String,
    client: BaseProducer,
}

impl Log {
    fn start() -> anyhow::Result<Self> {
        let client: BaseProducer = ClientConfig::new().set("test.mock.num.brokers", "1").create()?;
        let brokers = {
            let cluster = client.client().mock_cluster().context("no brokers")?;
            for topic in Topic::ALL {
                cluster.create_topic(&format!("local.messaging.{}", topic.name()), 4, 1)?;
            }
            cluster.bootstrap_servers()
        };
        Ok(Self { brokers, client })
    }

    fn down(&self) -> anyhow::Result<()> {
        Ok(self.client.client().mock_cluster().context("no brokers")?.broker_down(1)?)
    }

    fn up(&self) -> anyhow::Result<()> {
        Ok(self.client.client().mock_cluster().context("no brokers")?.broker_up(1)?)
    }

    /// The sequences of a chat in the order of its partition, until the last is there.
    fn sequences(&self, chat: &str, last: u64, within: Duration) -> anyhow::Result<Vec<u64>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "independent")
            .set("fetch.wait.max.ms", "10")
            .create()?;
        let mut all = TopicPartitionList::new();
        let topic = format!("local.messaging.{}", Topic::MessagesPersisted.name());
        for partition in 0..4 {
            all.add_partition_offset(&topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let mut sequences = Vec::new();
        let mut missing: BTreeSet<u64> = (1..=last).collect();
        let begun = std::time::Instant::now();
        while !missing.is_empty() {
            anyhow::ensure!(begun.elapsed() < within, "not on the log after {within:?}: {missing:?}");
            let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
            let record = record?;
            let envelope = Envelope::decode(record.payload().context("no value")?)?;
            if let Some(Event::MessagePersisted(message)) = envelope.event
                && message.chat_id == chat
            {
                missing.remove(&message.sequence);
                sequences.push(message.sequence);
            }
        }
        Ok(sequences)
    }
}

/// Other points than always, or those of a run that failed.
#[expect(clippy::disallowed_methods, reason = "a test has no settings but this one")]
fn seed() -> anyhow::Result<u64> {
    std::env::var("KILL_SEED").map_or(Ok(20_261_121), |seed| seed.parse().context("KILL_SEED must be a number"))
}

/// A plain linear congruential generator: the same points for the same seed.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}
