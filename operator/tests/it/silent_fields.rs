//! No field is silent: whatever a spec says changes what is made, or is on a list with the reason.

use serde_json::{Value, json};

use crate::specs;

/// Fields that change no object of Kubernetes, and who heeds them. They change the validated cluster.
const HEEDED_ELSEWHERE: &[(&str, &str)] = &[
    ("spec.kafka.provider", "the topic engine: which settings of topics may be altered"),
    ("spec.kafka.topics.management", "the topic engine"),
    ("spec.kafka.topics.deletionPolicy", "the topic engine"),
    ("spec.kafka.topics.adoptionPolicy", "the topic engine"),
    ("spec.kafka.topics.replicationFactor", "the topic engine"),
    ("spec.kafka.topics.messages.partitions", "the topic engine"),
    ("spec.kafka.topics.messages.retention", "the topic engine"),
    ("spec.kafka.topics.memberships.partitions", "the topic engine"),
    ("spec.kafka.topics.memberships.retention", "the topic engine"),
    ("spec.kafka.topics.chats.partitions", "the topic engine"),
    ("spec.kafka.topics.chats.retention", "the topic engine"),
    ("spec.kafka.topics.deadLetters.partitions", "the topic engine"),
    ("spec.kafka.topics.deadLetters.retention", "the topic engine"),
    ("spec.dynamodb.tables.management", "the table engine"),
    ("spec.dynamodb.tables.deletionPolicy", "the table engine"),
    ("spec.dynamodb.tables.adoptionPolicy", "the table engine"),
    ("spec.dynamodb.tables.billing.mode", "the table engine"),
    ("spec.dynamodb.tables.billing.readCapacity", "the table engine"),
    ("spec.dynamodb.tables.billing.writeCapacity", "the table engine"),
    ("spec.dynamodb.tables.pointInTimeRecovery", "the table engine"),
    ("spec.dynamodb.tables.deletionProtection", "the table engine"),
    ("spec.paused", "the reconciler, which then applies nothing"),
    ("spec.mode", "the reconciler, which then plans only"),
];

/// Fields with one possible value: there is no other to change to.
const ONE_VALUE: &[&str] = &["spec.auth.sms.provider"];

/// The schema of a field of the spec, as its leaves: path and schema. A list is at its first item, a map at a key.
fn leaves() -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    let definition = crds::crd();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    walk(spec, "spec", &mut leaves);
    leaves
}

fn walk(schema: &Value, path: &str, leaves: &mut Vec<(String, Value)>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            walk(property, &format!("{path}.{name}"), leaves);
        }
    } else if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}.0"), leaves);
    } else {
        leaves.push((path.to_owned(), schema.clone()));
    }
}

/// Another valid value than this one. `None` when there is none.
fn other(path: &str, schema: &Value, value: &Value) -> Option<Value> {
    if let Some(choices) = schema["enum"].as_array() {
        return choices.iter().find(|choice| *choice != value).cloned();
    }
    let name = path.rsplit('.').find(|part| part.parse::<usize>().is_err())?;
    match value {
        Value::Bool(is) => Some(json!(!is)),
        Value::Number(number) => {
            let (number, least) = (number.as_i64()?, schema["minimum"].as_i64().unwrap_or(0));
            Some(json!(if number > least { number - 1 } else { number + 1 }))
        }
        Value::Object(map) => Some(map.keys().map(|key| (key.clone(), "another")).collect()),
        Value::String(_) => Some(json!(match name {
            "version" => "0.1.1",
            "registry" => "other.example.com/messaging",
            "domain" => "other.example.com",
            "bootstrapServers" => "other:9092",
            "endpoint" if path.contains("dynamodb") || path.contains("otlp") => "https://other:8443",
            "endpoint" => "other:6379",
            "region" => "us-east-1",
            "prefix" => "other.",
            "signingKey" => "key-2",
            "allowedOrigins" => "https://other.example.com",
            "cpu" => "750m",
            "memory" => "300Mi",
            "retention" => "3d",
            "topologyKey" => "example.com/rack",
            "timeout" => "20m",
            "connectionAge" | "sessionLifetime" => "2h",
            "heartbeatInterval" | "drain" | "membershipTtl" | "persistDeadline" | "holeTimeout" => "7s",
            "codeLifetime" | "accessTokenLifetime" => "9m",
            _ => "another",
        })),
        Value::Null | Value::Array(_) => None,
    }
}

#[test]
fn every_field_changes_what_is_made_or_has_a_reason_not_to() {
    let mut faults = Vec::new();
    let mut heeded: Vec<&str> = HEEDED_ELSEWHERE.iter().map(|(path, _)| *path).collect();
    for (path, schema) in leaves() {
        let (base, value) = base_with(&path);
        let Some(value) = value else {
            faults.push(format!("{path}: no spec of this test has it"));
            continue;
        };
        let Some(changed) = other(&path, &schema, &value) else {
            if !ONE_VALUE.contains(&path.as_str()) {
                faults.push(format!("{path}: this test knows no other value"));
            }
            continue;
        };
        let mut after = base.clone();
        *after.pointer_mut(&pointer(&path)).unwrap() = changed.clone();
        mend(&path, &mut after);
        let (old, new) = (specs::valid(&base), specs::judged(&after));
        let new = match new {
            Ok(new) => new,
            Err(invalid) => {
                faults.push(format!("{path} = {changed}: {invalid}"));
                continue;
            }
        };
        let is_heeded =
            heeded.iter().position(|heeded| *heeded == path).map(|place| heeded.swap_remove(place)).is_some();
        let changes_objects = specs::objects(&old) != specs::objects(&new);
        let changes_cluster = format!("{old:?}") != format!("{new:?}");
        if changes_objects == is_heeded || !changes_cluster {
            faults.push(format!(
                "{path}: changes objects: {changes_objects}; the cluster: {changes_cluster}; listed: {is_heeded}"
            ));
        }
    }
    faults.extend(heeded.iter().map(|path| format!("{path}: listed, but no such field")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A valid cluster that has this field, and the field's value.
fn base_with(path: &str) -> (Value, Option<Value>) {
    let mut base = specs::every_field();
    if path.starts_with("spec.routing.ingressClassName") || path.starts_with("spec.routing.tlsSecretRef") {
        base["spec"]["routing"] =
            json!({ "type": "Ingress", "ingressClassName": "nginx", "tlsSecretRef": { "name": "tls" } });
    }
    // The cluster with every field has an autoscaler at two services and a fixed number at the others.
    for (scaled, fixed) in [("ingest", "gateway"), ("chatmgmt", "fanout")] {
        if path.starts_with(&format!("spec.{scaled}.autoscaling")) || path == format!("spec.{fixed}.replicas") {
            let range = base["spec"][fixed].as_object_mut().unwrap().remove("autoscaling").unwrap();
            let replicas = base["spec"][scaled].as_object_mut().unwrap().remove("replicas").unwrap();
            base["spec"][scaled]["autoscaling"] = range;
            base["spec"][fixed]["replicas"] = replicas;
        }
    }
    let value = base.pointer(&pointer(path)).cloned();
    (base, value)
}

/// What must change with a field for the spec to stay valid.
fn mend(path: &str, cluster: &mut Value) {
    if let Some(toleration) = path.strip_suffix(".operator") {
        let toleration = cluster.pointer_mut(&pointer(toleration)).and_then(Value::as_object_mut);
        toleration.map(|toleration| toleration.remove("value"));
    }
    let spec = &mut cluster["spec"];
    match path {
        "spec.routing.type" => spec["routing"] = json!({ "type": spec["routing"]["type"] }),
        "spec.kafka.tls.enabled" => spec["kafka"]["tls"] = json!({ "enabled": false }),
        "spec.redis.tls.enabled" => spec["redis"]["tls"] = json!({ "enabled": false }),
        "spec.kafka.authentication.type" => spec["kafka"]["authentication"] = json!({ "type": "None" }),
        "spec.dynamodb.tables.billing.mode" => spec["dynamodb"]["tables"]["billing"] = json!({ "mode": "OnDemand" }),
        _ => {}
    }
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}
