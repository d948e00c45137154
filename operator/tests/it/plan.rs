//! `operator plan` on a real API server: all that would change, and nothing changed.

use clap::Parser as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{ResourceExt as _, api::ListParams};
use operator::plan_command::{self, PlanCommand};
use serde_json::{Value, json};

use crate::world::World;

/// A file with a cluster, and the plan of it as people read it.
async fn plan(world: &World, spec: Value) -> anyhow::Result<String> {
    let mut whole = json!({
        "version": "0.1.0",
        "kafka": { "bootstrapServers": ["127.0.0.1:9"] },
        "dynamodb": { "region": "eu-west-1", "endpoint": "http://127.0.0.1:9" },
        "redis": { "endpoint": "127.0.0.1:9" },
        "auth": { "secretRef": { "name": "chat-auth" } },
    });
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    let object = json!({
        "apiVersion": "messaging.dev/v1alpha1", "kind": "MessagingCluster", "metadata": { "name": "chat" }, "spec": whole,
    });
    let file = serde_saphyr::to_string(&object)?;
    let command = PlanCommand::try_parse_from(["operator plan", "--file", "-", "--namespace", &world.namespace])?;
    let (clients, metrics) = world.clients();
    let found = Box::pin(plan_command::plan(&command, &file, clients, metrics)).await?;
    let mut text = Vec::new();
    plan_command::write(&mut text, &found)?;
    Ok(String::from_utf8(text)?)
}

#[tokio::test]
async fn a_plan_tells_every_change_and_makes_none() {
    let world = World::new("plan").await;
    let new = plan(&world, json!({})).await.unwrap();
    let first = new.lines().next().unwrap();
    assert!(first.starts_with(&format!("MessagingCluster {}/chat: 0 to change, ", world.namespace)), "{new}");
    for service in ["gateway", "ingest", "fanout", "chatmgmt"] {
        assert!(new.contains(&format!("  + Deployment/chat-{service} created\n")), "{new}");
    }
    assert!(new.contains("topics: KafkaUnreachable: "), "{new}");
    assert!(new.contains("\ntables: "), "{new}");
    assert!(world.clusters().get_opt("chat").await.unwrap().is_none());
    assert!(world.api::<Deployment>().list(&ListParams::default()).await.unwrap().items.is_empty());

    let operator = world.operator("a");
    world.create("chat", json!({})).await;
    world.roll_out_all("chat").await;
    let same = plan(&world, json!({})).await.unwrap();
    assert!(same.contains("/chat: 0 to change, 0 to add, 0 to delete\n"), "{same}");

    let before = world.deployment("chat-gateway").await.resource_version();
    let other = plan(&world, json!({ "version": "0.1.1", "gateway": { "replicas": 3 } })).await.unwrap();
    assert!(other.contains("  ~ Deployment/chat-gateway spec.replicas: 2 -> 3\n"), "{other}");
    let image = "  ~ Deployment/chat-ingest spec.template.spec.containers[0].image: messaging.dev/ingest:0.1.0 -> \
                 messaging.dev/ingest:0.1.1 (disruptive)\n";
    assert!(other.contains(image), "{other}");
    assert!(other.contains("/chat: 5 to change, 0 to add, 0 to delete\n"), "{other}");
    assert_eq!(world.deployment("chat-gateway").await.resource_version(), before);
    operator.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_told_with_its_field() {
    let world = World::new("plan-refused").await;
    let replicas = plan(&world, json!({ "fanout": { "replicas": 65 } })).await.unwrap_err();
    assert!(format!("{replicas:#}").contains("the API server refuses it: "), "{replicas:#}");
    assert!(format!("{replicas:#}").contains("must not be above kafka.topics.messages.partitions"), "{replicas:#}");
    let secret = plan(&world, json!({ "auth": { "secretRef": { "name": "nowhere" } } })).await.unwrap_err();
    assert!(format!("{secret:#}").contains("SecretNotFound spec.auth.secretRef"), "{secret:#}");
}
