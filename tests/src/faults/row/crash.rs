//! Rows 1 to 6 and 8: processes that die at a point of their code, are killed, or stand still.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::redis::ask;
use crate::{
    faults::{
        random::Random,
        rig::Extra,
        run::{Evidence, Scene},
    },
    world::service::Service,
};

/// How long a point may take to be reached.
const DIES_WITHIN: Duration = Duration::from_secs(20);
/// A lease expires after 6 s and is looked for each second; by 10 s all of a dead one is on the log (D4.4).
const TAKEN_OVER: Duration = Duration::from_secs(11);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until one of them has ended by itself; which.
async fn one_ends(services: &mut [Service]) -> anyhow::Result<usize> {
    let deadline = Instant::now() + DIES_WITHIN;
    loop {
        for (number, service) in services.iter_mut().enumerate() {
            if !service.is_running()? {
                return Ok(number);
            }
        }
        anyhow::ensure!(Instant::now() < deadline, "nobody died:\n{}", services[0].log());
        sleep(LOOK_EVERY).await;
    }
}

/// Starts those again whose failpoints are still armed, so that none dies later.
async fn disarm(services: &mut [Service]) -> anyhow::Result<()> {
    for service in services {
        service.unset("FAILPOINTS");
        if service.is_running()? {
            service.terminate().await?;
            service.ended().await?;
        }
        service.start_again()?;
        service.ready().await?;
    }
    Ok(())
}

/// Rows 3 to 5: the busier ingest dies there after some commits, and stays away until the other has taken over.
pub(super) async fn ingest_dies(scene: &mut Scene, points: &[&str], how: &str) -> anyhow::Result<Evidence> {
    let count = scene.random.below(40) + 5;
    let point = *scene.random.one_of(points);
    scene.begins(point);
    let busier = arm_the_busier(scene, &format!("{point}={count}*off->return({how})")).await?;
    let dead = one_ends(&mut scene.rig.ingests[busier..=busier]).await? + busier;
    scene.ends(point);
    sleep(TAKEN_OVER).await;
    anyhow::ensure!(dead == busier, "another ingest died");
    Ok(vec![("ingest died at a point", 1)])
}

/// The ingest with more transactions is started again with these failpoints; which it is.
async fn arm_the_busier(scene: &mut Scene, failpoints: &str) -> anyhow::Result<usize> {
    let transactions = |number: usize| scene.rig.edges.store_of_ingest[number].passed("TransactWriteItems");
    let busier = usize::from(transactions(1) > transactions(0));
    let ingest = &mut scene.rig.ingests[busier];
    ingest.set("FAILPOINTS", failpoints);
    ingest.terminate().await?;
    ingest.ended().await?;
    ingest.start_again()?;
    ingest.ready().await?;
    scene.rig.lead_edges().await?;
    Ok(busier)
}

/// Row 4 in silence: the message is the last of its chat, so only the search for dead leases finds it.
pub(super) async fn ingest_dies_in_silence(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.hush().await?;
    let point = *scene.random.one_of(&["commit.after", "publish.before"]);
    scene.begins(point);
    let busier = arm_the_busier(scene, &format!("{point}=return(abort)")).await?;
    // A moment for the gateways to go back to it.
    sleep(Duration::from_secs(4)).await;
    let mut sent = 0;
    for (chat, members) in scene.people.chats.clone() {
        let answer = scene.people.clients[members[0]].begin_send(&chat, "into the silence").await?;
        sent += 1;
        let died =
            tokio::time::timeout(Duration::from_secs(2), one_ends(&mut scene.rig.ingests[busier..=busier])).await;
        if died.is_ok_and(|died| died.is_ok()) {
            scene.ends(point);
            tokio::time::timeout(DIES_WITHIN, answer).await.context("no answer in time")???;
            sleep(TAKEN_OVER).await;
            return Ok(vec![("ingest died at a point", 1), ("messages into the silence", sent)]);
        }
        tokio::time::timeout(DIES_WITHIN, answer).await.context("no answer in time")???;
    }
    anyhow::bail!("the ingest did not die, for no chat is its own")
}

/// Row 6: at one of these points a fanout dies after some batches; each of the two at another moment.
pub(super) fn fanout_points(random: &mut Random) -> Extra {
    fanout_at(&["route.before", "route.after", "deliver.after", "offset.before", "offset.after"], random)
}

/// Both fanouts die at one of these.
pub(super) fn fanout_at(points: &[&str], random: &mut Random) -> Extra {
    let point = *random.one_of(points);
    let mut armed = |name| {
        let count = random.below(60) + 60;
        (name, "FAILPOINTS", format!("{point}={count}*off->return(abort)"))
    };
    vec![armed("fanout-0"), armed("fanout-1")]
}

pub(in crate::faults) async fn fanout_dies(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("a fanout dies");
    let dead = one_ends(&mut scene.rig.fanouts).await?;
    sleep(Duration::from_secs(1)).await;
    // It comes back while the other may die too.
    let fanout = &mut scene.rig.fanouts[dead];
    fanout.unset("FAILPOINTS");
    fanout.start_again()?;
    fanout.ready().await?;
    sleep(Duration::from_secs(2)).await;
    disarm(&mut scene.rig.fanouts[1 - dead..=1 - dead]).await?;
    scene.ends("a fanout dies");
    Ok(vec![("fanout died at a point", 1)])
}

/// Row 1: kill -9, twice, each time another one; its clients come back at the other.
pub(super) async fn gateway_killed(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let first = usize::from(scene.random.hits(500));
    let mut lapsing = 0;
    for gateway in [first, 1 - first] {
        scene.begins("kill a gateway");
        scene.rig.gateways[gateway].kill().await?;
        lapsing += routes_that_lapse(&scene.rig.redis).await?;
        scene.rig.redirect(gateway, 1 - gateway).await?;
        sleep(Duration::from_secs(3)).await;
        scene.rig.repair().await?;
        scene.ends("kill a gateway");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(vec![("gateways killed", 2), ("routes that lapse", lapsing)])
}

/// `zombie_prevention` of CHAOS-6.2.1: whatever a dead gateway left in the registry ends by itself; how much there is.
async fn routes_that_lapse(redis: &str) -> anyhow::Result<u64> {
    const SCRIPT: &str = "local count = 0 for _, key in ipairs(redis.call('KEYS', '*connection*')) do \
        local left = redis.call('PTTL', key) if left < 0 or left > 60000 then return -1 end count = count + 1 end return count";
    let count: i64 = ask(redis, &["EVAL", SCRIPT, "0"]).await?;
    u64::try_from(count).context("a route in the registry has no end within the TTL of 60 s")
}

/// Row 2: a gateway dies with a frame in hand, before or after ingest has answered.
pub(super) fn gateway_points(random: &mut Random) -> Extra {
    let point = *random.one_of(&["receive.before", "receive.after"]);
    let count = random.below(60) + 60;
    vec![("gateway-0", "FAILPOINTS", format!("{point}={count}*off->return(abort)"))]
}

pub(super) async fn gateway_dies(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("a gateway dies");
    one_ends(&mut scene.rig.gateways[..1]).await?;
    scene.rig.redirect(0, 1).await?;
    sleep(Duration::from_secs(3)).await;
    scene.rig.repair().await?;
    scene.ends("a gateway dies");
    Ok(vec![("gateway died at a point", 1)])
}

/// Row 8: one of each kind stands still for longer than its lease, its session or its registration, then goes on.
pub(super) async fn each_stands_still(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let mut stood = 0;
    for (kind, seconds) in [("ingest", 8), ("fanout", 8), ("gateway", 6), ("chatmgmt", 5)] {
        let number = usize::from(scene.random.hits(500));
        scene.begins("stand still");
        let service = match kind {
            "ingest" => &scene.rig.ingests[number],
            "fanout" => &scene.rig.fanouts[number],
            "gateway" => &scene.rig.gateways[number],
            _ => &scene.rig.chatmgmt,
        };
        service.signal("STOP").await?;
        sleep(Duration::from_secs(seconds)).await;
        anyhow::ensure!(service.is_stopped(), "{} did not stand still", service.name());
        service.signal("CONT").await.context("it did not live through it")?;
        stood += 1;
        scene.ends("stand still");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(vec![("processes that stood still", stood)])
}
