//! Several operators: one acts, and the others take over.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::api::{Patch, PatchParams};
use operator::lease::{Election, Fence};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::World;

#[tokio::test]
async fn a_second_operator_waits_is_ready_and_takes_over_when_the_first_stops() {
    let world = World::new("leads").await;
    let first = world.operator("first");
    world.create("chat", json!({})).await;
    world.deployment("chat-gateway").await;
    let second = world.operator("second");
    let ready = tokio::time::timeout(Duration::from_secs(20), second.process.ready()).await;
    assert!(ready.is_ok(), "one that waits for the lease is ready: {:?}", second.process.not_ready());
    assert_eq!(second.passes(), 0);
    first.stop().await;

    world.change("chat", json!({ "gateway": { "replicas": 3 } })).await.unwrap();
    let taken = world.until(|| async {
        (world.api::<Deployment>().get("chat-gateway").await.unwrap().spec?.replicas? == 3).then_some(())
    });
    assert!(taken.await.is_some(), "nobody took over");
    let lease = world.api::<Lease>().get("messaging-operator").await.unwrap().spec.unwrap();
    assert!(lease.holder_identity.unwrap().starts_with("second_"));
    second.stop().await;
}

#[tokio::test]
async fn who_loses_the_lease_writes_no_more_and_ends() {
    let world = World::new("loses").await;
    let fence = Fence::new();
    let mut election = Election::new(world.client.clone(), &world.namespace, "lease", "me".to_owned(), fence.clone());
    let never = CancellationToken::new();
    assert!(election.acquire(&never).await);
    assert!(fence.check().is_ok());
    let stolen = json!({ "spec": { "holderIdentity": "another" } });
    world.api::<Lease>().patch("lease", &PatchParams::default(), &Patch::Merge(stolen)).await.unwrap();
    let kept = tokio::time::timeout(Duration::from_secs(20), election.keep(&never)).await;
    assert!(kept.expect("it notices").is_err());
    assert!(fence.check().is_err(), "the fence has fallen");
}
