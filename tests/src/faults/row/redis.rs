//! Rows 9 to 12, and 18 without Redis: it is gone, forgetful, slow, or another one.

use std::time::Duration;

use anyhow::Context as _;
use proto::topics::Topic;
use redis::FromRedisValue;
use tokio::time::{Instant, sleep};

use crate::{
    faults::{
        proxy::{Proxy, Toxics},
        run::{Evidence, Scene},
    },
    world::ground::{PlainRedis, System},
};

/// How long the services may stay with a primary that is none any more, and a replica may lag.
const MOVED_WITHIN: Duration = Duration::from_secs(20);
/// A killed member is missed after its session, 6 s.
const CHANGED_WITHIN: Duration = Duration::from_secs(20);
const ROUNDS: u32 = 3;
const GROUPS: u32 = 6;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What that server answers to a command, over a connection for this alone.
pub(super) async fn ask<T: FromRedisValue>(address: &str, words: &[&str]) -> anyhow::Result<T> {
    let client = redis::Client::open(format!("redis://{address}/"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    command.query_async(&mut connection).await.with_context(|| format!("Redis does not do {words:?}"))
}

/// Row 9: Redis is killed, and comes back after a while with what it had.
pub(super) async fn away(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("Redis away");
    scene.own.kill(System::Redis).await?;
    sleep(Duration::from_secs(6)).await;
    scene.own.start_again(System::Redis).await?;
    scene.rig.all_ready().await?;
    scene.ends("Redis away");
    Ok(vec![("Redis killed", 1)])
}

/// Row 10: Redis forgets everything, twice.
pub(super) async fn wiped(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let connections =
        |scene: &Scene| -> u64 { scene.people.clients.iter().map(|client| client.wire().connections()).sum() };
    let before = connections(scene);
    let mut wiped = 0;
    for _ in 0..2 {
        scene.begins("Redis wiped");
        ask::<()>(&scene.rig.redis, &["FLUSHALL"]).await?;
        wiped += 1;
        scene.ends("Redis wiped");
        sleep(Duration::from_secs(8)).await;
    }
    let more = connections(scene) - before;
    anyhow::ensure!(more == 0, "{more} connections were made anew: open sockets live through it (CHAOS-6.2.3)");
    Ok(vec![("Redis wiped", wiped), ("connections that lived", before)])
}

/// Row 11: 200 ms and more to and from Redis, and its connections are reset in between.
pub(super) async fn slow(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let edges = &scene.rig.edges;
    let slow = Toxics { latency: Duration::from_millis(200), jitter: Duration::from_millis(50), ..Toxics::default() };
    scene.begins("slow Redis");
    let proxies = [&edges.redis_of_gateway, &edges.redis_of_fanout];
    for proxy in proxies {
        proxy.set(slow);
    }
    sleep(Duration::from_secs(3)).await;
    for proxy in proxies {
        proxy.reset();
    }
    sleep(Duration::from_secs(3)).await;
    for proxy in proxies {
        proxy.heal();
    }
    scene.ends("slow Redis");
    let counted = proxies.map(Proxy::counted);
    Ok(vec![
        ("pieces delayed", counted.iter().map(|counted| counted.delayed).sum()),
        ("connections reset", counted.iter().map(|counted| counted.reset).sum()),
    ])
}

/// Row 12: a replica becomes the primary, and its primary becomes its replica; then that one says nothing more, and the
/// first one takes over again. Connections that are there stay where they are, as with a name that leads elsewhere.
pub(super) async fn fails_over(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let (first, other) = (scene.rig.redis.clone(), PlainRedis::start().await?);
    follow(&other.address, &first).await?;
    let before = connections(&first).await?;
    let begun = scene.rig.edges.redis().map(|proxy| proxy.counted().connections);

    scene.begins("Redis fails over");
    ask::<()>(&other.address, &["REPLICAOF", "NO", "ONE"]).await?;
    lead(scene, &other.address);
    follow(&first, &other.address).await?;
    moved(&other.address, before).await?;
    scene.ends("Redis fails over");
    sleep(Duration::from_secs(3)).await;

    scene.begins("Redis fails over in silence");
    ask::<()>(&other.address, &["CLIENT", "PAUSE", "600000", "ALL"]).await?;
    ask::<()>(&first, &["REPLICAOF", "NO", "ONE"]).await?;
    lead(scene, &first);
    moved(&first, before).await?;
    scene.ends("Redis fails over in silence");
    sleep(Duration::from_secs(3)).await;
    let made = scene.rig.edges.redis().map(|proxy| proxy.counted().connections);
    let made = made.iter().sum::<u64>() - begun.iter().sum::<u64>();
    Ok(vec![("failovers of Redis", 2), ("connections made for them", made)])
}

fn lead(scene: &Scene, to: &str) {
    for proxy in scene.rig.edges.redis() {
        proxy.lead_to(to);
    }
}

/// Makes one the replica of the other, and waits until it has all of it.
async fn follow(replica: &str, primary: &str) -> anyhow::Result<()> {
    let (host, port) = primary.split_once(':').context("an address without a port")?;
    ask::<()>(replica, &["REPLICAOF", host, port]).await?;
    let deadline = Instant::now() + MOVED_WITHIN;
    while !ask::<String>(replica, &["INFO", "replication"]).await?.contains("master_link_status:up") {
        anyhow::ensure!(Instant::now() < deadline, "{replica} does not follow {primary}");
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// How many clients are connected, but for who asks.
async fn connections(server: &str) -> anyhow::Result<usize> {
    let clients: String = ask(server, &["CLIENT", "LIST", "TYPE", "NORMAL"]).await?;
    Ok(clients.lines().count() - 1)
}

/// Waits until so many clients are connected there.
async fn moved(server: &str, count: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + MOVED_WITHIN;
    while connections(server).await? < count {
        anyhow::ensure!(Instant::now() < deadline, "not all of {count} clients have come to the new primary");
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Row 18 while no fanout reaches Redis: partitions rest, for nobody knows who is connected where; then some of those go
/// to another fanout, and come back.
pub(super) async fn rebalanced_without(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let (one, other) = if scene.random.hits(500) { (0, 1) } else { (1, 0) };
    scene.begins("rebalance without Redis");
    scene.rig.edges.redis_of_fanout.set(Toxics { refuses: true, ..Toxics::default() });
    scene.rig.edges.redis_of_fanout.reset();
    scene.rig.fanouts[one].terminate().await?;
    scene.rig.fanouts[one].ended().await?;
    // A new member gets the partitions of this topic before those of messages.
    let [ana, ben] = [0, 1].map(|person| scene.people.clients[person].clone());
    for _ in 0..GROUPS {
        ana.rest().group("Nobody is told", &[ben.user_id()]).await.context("a group")?;
    }
    // Each chat has said something by then, so that all that can rest does.
    sleep(Duration::from_secs(4)).await;
    let all = wait_for(scene, other, |now| now.resting > 0).await?;
    let mut went = 0;
    for _ in 0..ROUNDS {
        let before = wait_for(scene, other, |now| now.held == all.held).await?;
        scene.rig.fanouts[one].start_again()?;
        let after = wait_for(scene, other, |now| now.held < all.held).await?;
        went += before.resting.saturating_sub(after.resting);
        scene.rig.fanouts[one].kill().await?;
        // Which ones go is the group's choice.
        if went > 0 {
            break;
        }
    }
    scene.rig.edges.redis_of_fanout.heal();
    wait_for(scene, other, |now| now.held == all.held && now.resting == 0).await?;
    // Before there is another who would get them fresh.
    delivered(scene).await?;
    scene.rig.repair().await?;
    scene.ends("rebalance without Redis");
    Ok(vec![("partitions that rested", all.resting), ("resting partitions that went and came back", went)])
}

/// The partitions of a fanout.
#[derive(Clone, Copy, Debug)]
struct Partitions {
    held: u64,
    resting: u64,
}

/// Waits until a fanout's partitions are as wanted.
async fn wait_for(scene: &Scene, fanout: usize, wanted: impl Fn(Partitions) -> bool) -> anyhow::Result<Partitions> {
    let deadline = Instant::now() + CHANGED_WITHIN;
    loop {
        let (_, page) = scene.rig.fanouts[fanout].page("/metrics").await?;
        let gauge = |name: &str| -> anyhow::Result<u64> {
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(value.with_context(|| format!("{name} is not measured"))?.parse()?)
        };
        let now = Partitions { held: gauge("fanout_partitions")?, resting: gauge("fanout_paused_partitions")? };
        if wanted(now) {
            return Ok(now);
        }
        anyhow::ensure!(Instant::now() < deadline, "the partitions of a fanout stay {now:?}");
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until nothing is left of the topic of new chats.
async fn delivered(scene: &Scene) -> anyhow::Result<()> {
    let deadline = Instant::now() + CHANGED_WITHIN;
    loop {
        let log = scene.rig.log.clone();
        let lag = tokio::task::spawn_blocking(move || log.lag_of(Topic::ChatsCreated)).await??;
        if lag == 0 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{lag} records lie in partitions that rested, went and came back");
        sleep(LOOK_EVERY).await;
    }
}
