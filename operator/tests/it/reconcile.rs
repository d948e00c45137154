//! From the smallest spec to all objects, and what keeps them so.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Event, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::world::{World, auth, config_hash, image, owner};

const SERVICES: [&str; 4] = ["gateway", "ingest", "fanout", "chatmgmt"];

#[tokio::test]
async fn the_smallest_spec_becomes_all_objects_at_once() {
    let world = World::new("smallest").await;
    let operator = world.operator("a");
    let cluster = world.create("chat", json!({})).await;
    for service in SERVICES {
        let name = format!("chat-{service}");
        let deployment = world.deployment(&name).await;
        assert_eq!(owner(&deployment), cluster.uid(), "{name} belongs to the cluster");
        assert_eq!(image(&deployment), format!("messaging.dev/{service}:0.1.0"));
        world.api::<ServiceAccount>().get(&name).await.unwrap();
        world.api::<PodDisruptionBudget>().get(&name).await.unwrap();
        world.api::<NetworkPolicy>().get(&name).await.unwrap();
    }
    assert!(world.api::<Service>().list(&ListParams::default()).await.unwrap().items.len() >= 3);
    assert!(
        !world
            .api::<ConfigMap>()
            .list(&ListParams::default().labels("messaging.dev/cluster=chat"))
            .await
            .unwrap()
            .items
            .is_empty()
    );

    let ready = world.reason("chat", "Ready", "ComponentsNotReady").await;
    assert_eq!(ready.status, "False");
    world.roll_out_all("chat").await;
    for kind in ["GatewayReady", "IngestReady", "FanoutReady", "ChatMgmtReady"] {
        assert_eq!(world.reason("chat", kind, "DeploymentAvailable").await.status, "True");
    }
    let status = world.clusters().get("chat").await.unwrap().status.unwrap();
    assert!(status.components.iter().all(|component| component.pods == "2/2"), "{:?}", status.components);
    operator.stop().await;
}

#[tokio::test]
async fn what_others_change_is_changed_back_and_a_cluster_at_rest_costs_no_writes() {
    let world = World::new("drift").await;
    let operator = world.operator("a");
    world.create("chat", json!({})).await;
    world.roll_out_all("chat").await;
    world.reason("chat", "GatewayReady", "DeploymentAvailable").await;

    let deployments = world.api::<Deployment>();
    let change = json!({ "spec": { "replicas": 7 } });
    deployments.patch("chat-ingest", &PatchParams::apply("somebody").force(), &Patch::Apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "chat-ingest" }, "spec": change["spec"],
    }))).await.unwrap();
    let back = world.until(|| async {
        let replicas = deployments.get("chat-ingest").await.unwrap().spec?.replicas?;
        (replicas == 2).then_some(())
    });
    assert!(back.await.is_some(), "replicas were not changed back");

    world.api::<Service>().delete("chat-gateway", &DeleteParams::default()).await.unwrap();
    let again = world.until(|| async { world.api::<Service>().get_opt("chat-gateway").await.unwrap() }).await;
    assert!(again.is_some(), "the Service was not made again");

    world.roll_out_all("chat").await;
    world.reason("chat", "IngestReady", "DeploymentAvailable").await;
    // At rest: passes go on, each second here, and write nothing.
    let mut before = (operator.passes(), operator.writes(), operator.patches());
    let settled = world.until(|| {
        let now = (operator.passes(), operator.writes(), operator.patches());
        if (now.1, now.2) != (before.1, before.2) {
            before = now;
        }
        let is_at_rest = now.0 >= before.0 + 3;
        async move { is_at_rest.then_some(()) }
    });
    assert!(settled.await.is_some(), "it never came to rest");
    operator.stop().await;
}

#[tokio::test]
async fn a_change_rolls_through_the_services_in_their_order() {
    let world = World::new("order").await;
    let operator = world.operator("a");
    world.create("chat", json!({ "image": { "registry": "old.example" } })).await;
    world.roll_out_all("chat").await;
    world.reason("chat", "GatewayReady", "DeploymentAvailable").await;

    let change = json!({ "image": { "registry": "new.example" }, "observability": { "logLevel": "debug" } });
    world.change("chat", change).await.unwrap();
    let order = ["chatmgmt", "ingest", "fanout", "gateway"];
    for (place, service) in order.iter().enumerate() {
        let changed = world.until(|| async {
            image(&world.deployment(&format!("chat-{service}")).await).starts_with("new.example").then_some(())
        });
        assert!(changed.await.is_some(), "{service} was not rolled out");
        if let Some(next) = order.get(place + 1) {
            let kind = match *next {
                "ingest" => "IngestReady",
                "fanout" => "FanoutReady",
                _ => "GatewayReady",
            };
            world.reason("chat", kind, "RolloutWaiting").await;
        }
        for later in &order[place + 1..] {
            let deployment = world.deployment(&format!("chat-{later}")).await;
            assert!(image(&deployment).starts_with("old.example"), "{later} must wait for {service}");
            let settings = world.api::<ConfigMap>().get(&format!("chat-{later}")).await.unwrap();
            assert_eq!(settings.data.unwrap()["LOG"], "info", "the settings of {later} must wait for {service}");
        }
        world.roll_out(&format!("chat-{service}")).await;
    }
    world.reason("chat", "GatewayReady", "DeploymentAvailable").await;
    operator.stop().await;
}

#[tokio::test]
async fn a_changed_secret_restarts_only_who_reads_it() {
    let world = World::new("secret").await;
    let operator = world.operator("a");
    world.create("chat", json!({})).await;
    world.roll_out_all("chat").await;
    world.reason("chat", "GatewayReady", "DeploymentAvailable").await;
    let hash = async |service: &str| config_hash(&world.deployment(&format!("chat-{service}")).await);
    let before = [hash("chatmgmt").await, hash("ingest").await, hash("fanout").await, hash("gateway").await];

    let mut data = auth();
    data.insert("otp-pepper", "q".repeat(32));
    let old = world.api::<k8s_openapi::api::core::v1::Secret>().get("chat-auth").await.unwrap().data.unwrap();
    for key in ["k1.pem", "refresh-key", "internal-token", "otp-key", "jwks.json"] {
        data.insert(key, String::from_utf8(old[key].0.clone()).unwrap());
    }
    world.secret("chat-auth", data).await;
    let restarted = world.until(|| async { (hash("chatmgmt").await != before[0]).then_some(()) }).await;
    assert!(restarted.is_some(), "chatmgmt reads the pepper when it starts");
    world.roll_out("chat-chatmgmt").await;
    world.reason("chat", "ChatMgmtReady", "DeploymentAvailable").await;
    assert_eq!([hash("ingest").await, hash("fanout").await, hash("gateway").await], before[1..]);
    operator.stop().await;
}

#[tokio::test]
async fn what_is_wrong_becomes_a_condition_and_heals_without_hands() {
    let world = World::new("wrong").await;
    let operator = world.operator("a");
    world.create("chat", json!({ "auth": { "secretRef": { "name": "later" } } })).await;
    let missing = world.reason("chat", "ConfigurationValid", "SecretNotFound").await;
    assert!(
        missing.message.contains("spec.auth.secretRef") && missing.message.contains("later"),
        "{}",
        missing.message
    );
    assert_eq!(world.reason("chat", "Stalled", "NotStalled").await.status, "False", "a Secret may come by itself");
    assert!(world.api::<Deployment>().get_opt("chat-gateway").await.unwrap().is_none());

    world.secret("later", auth()).await;
    world.deployment("chat-gateway").await;
    world.reason("chat", "ConfigurationValid", "Valid").await;

    // A version of the future is refused; what runs goes on running, and the way back needs no hands.
    let before = image(&world.deployment("chat-gateway").await);
    world.change("chat", json!({ "version": "99.0.0" })).await.unwrap();
    let stalled = world.reason("chat", "Stalled", "InvalidSpec").await;
    assert!(stalled.message.contains("spec.version"), "{}", stalled.message);
    assert_eq!(image(&world.deployment("chat-gateway").await), before);
    world.change("chat", json!({ "version": "0.1.0" })).await.unwrap();
    world.reason("chat", "ConfigurationValid", "Valid").await;
    world.reason("chat", "Stalled", "NotStalled").await;
    let events = world.api::<Event>().list(&ListParams::default()).await.unwrap();
    assert!(events.items.iter().any(|event| event.reason.as_deref() == Some("SecretNotFound")), "an event tells of it");
    operator.stop().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_left_alone_and_said() {
    let world = World::new("taken").await;
    let foreign: Service = serde_json::from_value(json!({
        "metadata": { "name": "chat-gateway" }, "spec": { "ports": [{ "port": 80 }], "selector": { "app": "other" } },
    }))
    .unwrap();
    world.api::<Service>().create(&PostParams::default(), &foreign).await.unwrap();
    let operator = world.operator("a");
    world.create("chat", json!({})).await;
    let stalled = world.reason("chat", "Stalled", "OwnershipConflict").await;
    assert!(stalled.message.contains("Service/chat-gateway"), "{}", stalled.message);
    let untouched = world.api::<Service>().get("chat-gateway").await.unwrap();
    assert_eq!(untouched.spec.unwrap().selector.unwrap()["app"], "other");
    world.api::<Service>().delete("chat-gateway", &DeleteParams::default()).await.unwrap();
    world.reason("chat", "Stalled", "NotStalled").await;
    operator.stop().await;
}

#[tokio::test]
async fn paused_changes_nothing_suspended_runs_nothing_and_a_plan_only_tells() {
    let world = World::new("modes").await;
    let operator = world.operator("a");
    world.create("chat", json!({})).await;
    world.roll_out_all("chat").await;
    world.reason("chat", "GatewayReady", "DeploymentAvailable").await;

    world.change("chat", json!({ "paused": true, "gateway": { "replicas": 5 } })).await.unwrap();
    world.reason("chat", "Paused", "PausedBySpec").await;
    assert_eq!(world.deployment("chat-gateway").await.spec.unwrap().replicas, Some(2));

    world.change("chat", json!({ "paused": null, "mode": "Plan" })).await.unwrap();
    world.reason("chat", "UpToDate", "PlanPending").await;
    let plan = world.clusters().get("chat").await.unwrap().status.unwrap().plan.unwrap();
    let change =
        plan.changes.iter().find(|change| change.object == "Deployment/chat-gateway").expect("the change is told");
    assert_eq!(
        (change.field.as_deref(), change.from.as_deref(), change.to.as_deref()),
        (Some("spec.replicas"), Some("2"), Some("5"))
    );
    assert_eq!(world.deployment("chat-gateway").await.spec.unwrap().replicas, Some(2));

    world.change("chat", json!({ "mode": null, "suspend": true })).await.unwrap();
    for service in SERVICES {
        let gone = world.until(|| async {
            (world.deployment(&format!("chat-{service}")).await.spec?.replicas? == 0).then_some(())
        });
        assert!(gone.await.is_some(), "{service} still runs");
        world.roll_out(&format!("chat-{service}")).await;
    }
    world.reason("chat", "Ready", "Suspended").await;
    world.change("chat", json!({ "suspend": null })).await.unwrap();
    let back = world.until(|| async { (world.deployment("chat-gateway").await.spec?.replicas? == 5).then_some(()) });
    assert!(back.await.is_some());
    operator.stop().await;
}

#[tokio::test]
async fn what_is_no_longer_asked_for_is_deleted_and_an_autoscaler_is_not_fought() {
    let world = World::new("prune").await;
    let operator = world.operator("a");
    world.create("chat", json!({ "domain": "chat.example.com", "routing": { "type": "Ingress" } })).await;
    let made = world.until(|| async {
        world.api::<Ingress>().list(&ListParams::default()).await.unwrap().items.into_iter().next()
    });
    let ingress = made.await.expect("an Ingress").name_any();
    world.roll_out_all("chat").await;
    world.change("chat", json!({ "routing": { "type": "None" } })).await.unwrap();
    let gone =
        world.until(|| async { world.api::<Ingress>().get_opt(&ingress).await.unwrap().is_none().then_some(()) }).await;
    assert!(gone.is_some(), "the Ingress is no longer wanted");
    // Fewer proxies stand before both that serve clients, and the gateway waits for its turn.
    world.roll_out("chat-chatmgmt").await;

    world.change("chat", json!({ "gateway": { "autoscaling": { "min": 3, "max": 9 } } })).await.unwrap();
    let scaler =
        world.until(|| async { world.api::<HorizontalPodAutoscaler>().get_opt("chat-gateway").await.unwrap() }).await;
    assert_eq!(scaler.expect("an autoscaler").spec.unwrap().max_replicas, 9);
    let deployments = world.api::<Deployment>();
    let scale = json!({ "spec": { "replicas": 6 } });
    deployments
        .patch_scale(
            "chat-gateway",
            &PatchParams { field_manager: Some("autoscaler".into()), ..PatchParams::default() },
            &Patch::Merge(&scale),
        )
        .await
        .unwrap();
    let passes = operator.passes();
    assert!(world.until(|| async { (operator.passes() > passes + 3).then_some(()) }).await.is_some());
    assert_eq!(
        deployments.get("chat-gateway").await.unwrap().spec.unwrap().replicas,
        Some(6),
        "the autoscaler's number stands"
    );
    world.change("chat", json!({ "gateway": { "autoscaling": null, "replicas": 2 } })).await.unwrap();
    let back = world
        .until(|| async { (deployments.get("chat-gateway").await.unwrap().spec?.replicas? == 2).then_some(()) })
        .await;
    assert!(back.is_some());
    operator.stop().await;
}

#[tokio::test]
async fn a_status_that_somebody_deletes_comes_back() {
    let world = World::new("status").await;
    let operator = world.operator("a");
    world.create("chat", json!({})).await;
    world.reason("chat", "Ready", "ComponentsNotReady").await;
    let none = json!({ "status": null });
    world.clusters().patch_status("chat", &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
    world.reason("chat", "Ready", "ComponentsNotReady").await;
    operator.stop().await;
}

#[tokio::test]
async fn a_cluster_that_retains_its_data_has_no_finalizer_and_one_that_deletes_them_lets_go_in_time() {
    let world = World::new("ends").await;
    let operator = world.operator_with("a", &["--deletion-timeout", "4s"]);
    world.create("keeps", json!({})).await;
    world.reason("keeps", "Ready", "ComponentsNotReady").await;
    assert!(world.clusters().get("keeps").await.unwrap().finalizers().is_empty());
    world.delete("keeps").await;
    assert!(
        world
            .until(|| async { world.clusters().get_opt("keeps").await.unwrap().is_none().then_some(()) })
            .await
            .is_some()
    );

    world.create("deletes", json!({ "kafka": { "topics": { "deletionPolicy": "Delete" } } })).await;
    world.reason("deletes", "Ready", "ComponentsNotReady").await;
    assert_eq!(world.clusters().get("deletes").await.unwrap().finalizers(), [crds::FINALIZER]);
    world.delete("deletes").await;
    // Nobody answers for Kafka: the object must go all the same, when its time is over.
    let gone =
        world.until(|| async { world.clusters().get_opt("deletes").await.unwrap().is_none().then_some(()) }).await;
    assert!(gone.is_some(), "the finalizer kept it");
    operator.stop().await;
}
