//! Rows 0, 18, 27, 39 and 40: processes come, go and are replaced; the log is read again.

use std::time::Duration;

use tokio::time::sleep;

use crate::faults::{
    proxy::{Proxy, Toxics},
    run::{Evidence, Scene},
};

/// Row 0: what the others are compared with.
pub(super) async fn nothing() -> anyhow::Result<Evidence> {
    sleep(Duration::from_secs(4)).await;
    Ok(vec![("nothing", 1)])
}

/// Row 18: a consumer leaves and comes back, another stands still for longer than its session, one is killed.
pub(super) async fn rebalanced(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let (one, other) = if scene.random.hits(500) { (0, 1) } else { (1, 0) };
    let mut changes = 0;
    scene.begins("rebalance");
    for _ in 0..2 {
        let fanout = &mut scene.rig.fanouts[one];
        fanout.terminate().await?;
        fanout.ended().await?;
        sleep(Duration::from_secs(1)).await;
        fanout.start_again()?;
        fanout.ready().await?;
        changes += 2;
    }
    scene.rig.fanouts[other].signal("STOP").await?;
    sleep(Duration::from_secs(8)).await;
    anyhow::ensure!(scene.rig.fanouts[other].is_stopped(), "it did not stand still");
    scene.rig.fanouts[other].signal("CONT").await?;
    sleep(Duration::from_secs(2)).await;
    scene.rig.fanouts[one].kill().await?;
    sleep(Duration::from_secs(1)).await;
    scene.rig.repair().await?;
    scene.ends("rebalance");
    Ok(vec![("members that came or went", changes + 3)])
}

/// Row 27: with no fanout there, the group goes back to the first record of each partition.
pub(super) async fn replayed(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("replay");
    for fanout in &mut scene.rig.fanouts {
        fanout.terminate().await?;
        fanout.ended().await?;
    }
    let log = scene.rig.log.clone();
    let again = tokio::task::spawn_blocking(move || log.go_back()).await??;
    scene.rig.repair().await?;
    sleep(Duration::from_secs(2)).await;
    scene.ends("replay");
    Ok(vec![("records delivered again", again)])
}

/// Row 39: each process is asked to stop, ends well, and is followed by another, while people write.
pub(super) async fn each_replaced(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let mut replaced = 0;
    scene.begins("rolling replacement");
    let count = scene.rig.services().len();
    for number in 0..count {
        let service = scene.rig.services().swap_remove(number);
        service.terminate().await?;
        let (code, log) = service.ended().await?;
        anyhow::ensure!(code == Some(0), "{} ended with {code:?}:\n{log}", service.name());
        service.start_again()?;
        service.ready().await?;
        scene.rig.repair().await?;
        replaced += 1;
        sleep(Duration::from_millis(500)).await;
    }
    scene.ends("rolling replacement");
    Ok(vec![("processes replaced", replaced)])
}

/// Row 40: an ingest and a fanout are asked to stop while the log is silent: they end in time, and nothing is lost.
pub(super) async fn stopped_without_log(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.begins("stopped without the log");
    let edges = [&scene.rig.edges.log_of_ingest, &scene.rig.edges.log_of_fanout];
    for edge in edges {
        edge.set(Toxics::black_hole());
    }
    sleep(Duration::from_secs(2)).await;
    let one = usize::from(scene.random.hits(500));
    for service in [&mut scene.rig.ingests[one], &mut scene.rig.fanouts[one]] {
        service.terminate().await?;
        // A second request changes nothing.
        service.terminate().await?;
        let (code, log) = service.ended().await?;
        anyhow::ensure!(code == Some(0), "{} ended with {code:?}:\n{log}", service.name());
    }
    let edges = [&scene.rig.edges.log_of_ingest, &scene.rig.edges.log_of_fanout];
    let held = edges.map(Proxy::counted).iter().map(|counted| counted.held).sum();
    for proxy in edges {
        proxy.heal();
    }
    scene.rig.repair().await?;
    scene.ends("stopped without the log");
    Ok(vec![("processes that were asked to stop", 2), ("pieces held", held)])
}
