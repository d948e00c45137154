//! What is refused: the reason, the path, and that the message says what would be accepted.

use operator::cluster::validate::{Invalid, References, validate};
use serde_json::{Value, json};

use crate::specs;

/// The faults of the cluster with every field after one change, as `reason path`.
fn faults(path: &str, value: Value) -> Vec<String> {
    let mut cluster = specs::every_field();
    set(&mut cluster, path, value);
    match specs::judged(&cluster) {
        Ok(_) => Vec::new(),
        Err(invalid) => shown(&invalid),
    }
}

fn shown(invalid: &Invalid) -> Vec<String> {
    for fault in &invalid.faults {
        assert!(fault.message.len() > 20, "{fault} says too little");
    }
    invalid.faults.iter().map(|fault| format!("{} {}", fault.reason, fault.path)).collect()
}

/// Sets what is at a JSON pointer, making the way to it.
fn set(target: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    if target.pointer(parent).is_none() {
        set(target, parent, json!({}));
    }
    let parent = target.pointer_mut(parent).expect("made");
    if value.is_null() {
        parent.as_object_mut().unwrap().remove(field);
    } else {
        parent[field] = value;
    }
}

/// Each change of the cluster with every field has this one fault.
fn assert_refused(cases: Vec<(&str, Value, &str)>) {
    assert!(specs::judged(&specs::every_field()).is_ok());
    for (path, value, expected) in cases {
        assert_eq!(faults(path, value.clone()), [expected], "{path} = {value}");
    }
}

#[test]
fn what_the_api_server_would_refuse_later_is_refused_with_its_path() {
    let long = "a".repeat(64);
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/metadata/name", "x".repeat(41).into(), "InvalidSpec metadata.name"),
        ("/metadata/name", "9chat".into(), "InvalidSpec metadata.name"),
        ("/spec/version", "0.2.0".into(), "UnsupportedVersion spec.version"),
        ("/spec/version", "latest".into(), "InvalidSpec spec.version"),
        ("/spec/image/registry", "registry.example.com:99999/x".into(), "InvalidSpec spec.image.registry"),
        ("/spec/image/registry", "registry.example.com/a//b".into(), "InvalidSpec spec.image.registry"),
        ("/spec/image/pullSecrets", json!([{ "name": "a..b" }]), "InvalidSpec spec.image.pullSecrets[0].name"),
        ("/spec/domain", format!("{long}.example.com").into(), "InvalidSpec spec.domain"),
        ("/spec/routing/annotations", json!({ "a..b/c": "" }), "InvalidSpec spec.routing.annotations"),
        (
            "/spec/kafka/bootstrapServers",
            json!(["kafka:9092", "kafka:65536"]),
            "InvalidSpec spec.kafka.bootstrapServers[1]",
        ),
        ("/spec/kafka/bootstrapServers", json!(["a..b:9092"]), "InvalidSpec spec.kafka.bootstrapServers[0]"),
        ("/spec/kafka/topics/messages/retention", "59m".into(), "InvalidSpec spec.kafka.topics.messages.retention"),
        (
            "/spec/kafka/topics/deadLetters/retention",
            "366d".into(),
            "InvalidSpec spec.kafka.topics.deadLetters.retention",
        ),
        ("/spec/kafka/authentication", json!({ "type": "AwsIam" }), "InvalidSpec spec.kafka.bootstrapServers"),
        ("/spec/kafka/authentication", json!({ "type": "Scram" }), "InvalidSpec spec.kafka.authentication.secretRef"),
        (
            "/spec/observability/otlp",
            json!({ "endpoint": "http://collector:0" }),
            "InvalidSpec spec.observability.otlp.endpoint",
        ),
        ("/spec/dynamodb/endpoint", "http://store:0".into(), "InvalidSpec spec.dynamodb.endpoint"),
        ("/spec/dynamodb/tables/billing", json!({ "mode": "Provisioned" }), "InvalidSpec spec.dynamodb.tables.billing"),
        ("/spec/redis/endpoint", "redis:70000".into(), "InvalidSpec spec.redis.endpoint"),
    ];
    assert_refused(cases);
}

#[test]
fn what_a_service_or_a_route_can_not_have_is_refused_with_its_path() {
    let long = "a".repeat(64);
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/spec/upgrade/timeout", "59s".into(), "InvalidSpec spec.upgrade.timeout"),
        ("/spec/gateway/settings/connectionAge", "8d".into(), "InvalidSpec spec.gateway.settings.connectionAge"),
        ("/spec/gateway/settings/drain", "11m".into(), "InvalidSpec spec.gateway.settings.drain"),
        (
            "/spec/gateway/settings/allowedOrigins",
            json!(["https://a:99999"]),
            "InvalidSpec spec.gateway.settings.allowedOrigins[0]",
        ),
        ("/spec/ingest/settings/persistDeadline", "99ms".into(), "InvalidSpec spec.ingest.settings.persistDeadline"),
        ("/spec/fanout/settings/holeTimeout", "61s".into(), "InvalidSpec spec.fanout.settings.holeTimeout"),
        ("/spec/chatmgmt/settings/codeLifetime", "29s".into(), "InvalidSpec spec.chatmgmt.settings.codeLifetime"),
        ("/spec/gateway/resources/requests/cpu", 3.into(), "InvalidSpec spec.gateway.resources.requests.cpu"),
        (
            "/spec/gateway/resources/requests/memory",
            "513Mi".into(),
            "InvalidSpec spec.gateway.resources.requests.memory",
        ),
        (
            "/spec/ingest/resources",
            json!({ "limits": { "memory": 512 } }),
            "InvalidSpec spec.ingest.resources.limits.memory",
        ),
        ("/spec/gateway/resources/requests/cpu", 0.into(), "InvalidSpec spec.gateway.resources.requests.cpu"),
        ("/spec/gateway/autoscaling/min", 10.into(), "InvalidSpec spec.gateway.autoscaling.min"),
        ("/spec/gateway/replicas", 2.into(), "InvalidSpec spec.gateway.autoscaling"),
        ("/spec/fanout/autoscaling/max", 129.into(), "InvalidSpec spec.fanout.autoscaling.max"),
        (
            "/spec/gateway/serviceAccount/annotations",
            json!({ "messaging.dev/x": "" }),
            "InvalidSpec spec.gateway.serviceAccount.annotations",
        ),
        (
            "/spec/gateway/podTemplate/labels",
            json!({ "app.kubernetes.io/name": "x" }),
            "InvalidSpec spec.gateway.podTemplate.labels",
        ),
        (
            "/spec/gateway/podTemplate/labels",
            json!({ "pod-template-hash": "x" }),
            "InvalidSpec spec.gateway.podTemplate.labels",
        ),
        (
            "/spec/gateway/podTemplate/labels",
            json!({ "team": long }),
            "InvalidSpec spec.gateway.podTemplate.labels[team]",
        ),
        (
            "/spec/gateway/podTemplate/nodeSelector",
            json!({ "a b": "x" }),
            "InvalidSpec spec.gateway.podTemplate.nodeSelector",
        ),
        (
            "/spec/gateway/podTemplate/tolerations",
            json!([{ "value": "x" }]),
            "InvalidSpec spec.gateway.podTemplate.tolerations[0].operator",
        ),
        (
            "/spec/gateway/podTemplate/tolerations",
            json!([{ "key": "a/b/c" }]),
            "InvalidSpec spec.gateway.podTemplate.tolerations[0].key",
        ),
        (
            "/spec/gateway/podTemplate/priorityClassName",
            "a..b".into(),
            "InvalidSpec spec.gateway.podTemplate.priorityClassName",
        ),
        ("/spec/routing", json!({ "type": "Gateway" }), "InvalidSpec spec.routing.gatewayRef"),
        (
            "/spec/routing",
            json!({ "type": "None", "ingressClassName": "x" }),
            "InvalidSpec spec.routing.ingressClassName",
        ),
        ("/spec/domain", Value::Null, "InvalidSpec spec.domain"),
    ];
    assert_refused(cases);
}

#[test]
fn encryption_is_judged_with_the_kind_of_kafka_and_the_login() {
    let kafka = |extra: Value| {
        let mut kafka = json!({ "bootstrapServers": ["kafka:9092"] });
        kafka.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        faults("/spec/kafka", kafka)
    };
    assert_eq!(
        kafka(json!({ "provider": "Msk", "tls": { "enabled": false } })),
        ["InvalidSpec spec.kafka.tls.enabled"]
    );
    let role = json!({ "authentication": { "type": "AwsIam" }, "bootstrapServers": ["b-1.kafka.eu-west-1.amazonaws.com:9098"] });
    assert_eq!(kafka(role), ["InvalidSpec spec.kafka.tls"]);
    let mtls = json!({ "type": "Mtls", "secretRef": { "name": "kafka-login" } });
    assert_eq!(kafka(json!({ "authentication": mtls })), ["InvalidSpec spec.kafka.tls"]);
    assert!(kafka(json!({ "provider": "Msk", "authentication": mtls })).is_empty());
}

#[test]
fn every_fault_is_named_at_once() {
    let mut cluster = specs::every_field();
    set(&mut cluster, "/spec/redis/endpoint", "redis:0".into());
    set(&mut cluster, "/spec/version", "9.9.9".into());
    set(&mut cluster, "/spec/upgrade/timeout", "1s".into());
    let found = shown(&specs::judged(&cluster).unwrap_err());
    assert_eq!(found.len(), 3, "{found:?}");
}

/// The faults with other Secrets than those that satisfy the spec.
fn with_secrets(change: impl FnOnce(&mut References)) -> Vec<String> {
    let cluster = specs::cluster(&specs::every_field());
    let mut references = specs::references(&cluster.spec);
    change(&mut references);
    validate(&cluster, &references, &specs::defaults()).map_or_else(|invalid| shown(&invalid), |_| Vec::new())
}

/// The faults after a key of a Secret got other content, or lost it.
fn with_key(secret: &str, key: &str, content: Option<&str>) -> Vec<String> {
    with_secrets(|references| {
        let data = references.secrets.get_mut(secret).and_then(Option::as_mut).unwrap();
        match content {
            Some(content) => data.0.insert(key.to_owned(), content.as_bytes().to_vec()),
            None => data.0.remove(key),
        };
    })
}

#[test]
fn secrets_that_are_missing_or_of_no_use_are_named() {
    let secrets = ["kafka-ca", "kafka-login", "dynamodb-key", "redis-ca", "redis-auth", "chat-auth"];
    for name in secrets {
        let missing = with_secrets(|references| {
            references.secrets.insert(name.to_owned(), None);
        });
        assert!(missing.len() == 1 && missing[0].starts_with("SecretNotFound spec."), "{name}: {missing:?}");
        assert_eq!(
            missing,
            with_secrets(|references| drop(references.secrets.remove(name))),
            "{name} was never fetched"
        );
    }
    let auth = "spec.auth.secretRef.name";
    for key in ["jwks.json", "key-1.pem", "otp-pepper", "otp-key", "refresh-key", "internal-token"] {
        assert_eq!(with_key("chat-auth", key, None), [format!("SecretKeyMissing {auth}")], "{key}");
        assert_eq!(with_key("chat-auth", key, Some(" \n")), [format!("SecretKeyMissing {auth}")], "{key} is empty");
    }
    let useless = [
        ("chat-auth", "otp-key", "dG9vIHNob3J0", auth),
        ("chat-auth", "jwks.json", r#"{"keys":[{"kid":"other"}]}"#, auth),
        ("chat-auth", "key-1.pem", "no key", auth),
        ("chat-auth", "internal-token", "two words", auth),
        ("dynamodb-key", "secret-access-key", "word\n", "spec.dynamodb.credentialsSecretRef.name"),
        ("kafka-ca", "ca.crt", "no certificate", "spec.kafka.tls.caSecretRef.name"),
    ];
    for (secret, key, content, path) in useless {
        assert_eq!(with_key(secret, key, Some(content)), [format!("InvalidReference {path}")], "{secret}/{key}");
    }
}

#[test]
fn a_key_that_signs_is_found_by_name_when_none_is_named() {
    let mut cluster = specs::every_field();
    set(&mut cluster, "/spec/auth/signingKey", Value::Null);
    let cluster = specs::cluster(&cluster);
    let mut references = specs::references(&cluster.spec);
    let data = references.secrets.get_mut("chat-auth").and_then(Option::as_mut).unwrap();
    data.0.insert("key-2.pem".to_owned(), data.0["key-1.pem"].clone());
    let made = validate(&cluster, &references, &specs::defaults()).unwrap();
    assert_eq!(made.auth.signing_key, "key-2");
    let data = references.secrets.get_mut("chat-auth").and_then(Option::as_mut).unwrap();
    data.0.retain(|key, _| key.rsplit_once('.').is_none_or(|(_, kind)| kind != "pem"));
    let invalid = validate(&cluster, &references, &specs::defaults()).unwrap_err();
    assert_eq!(shown(&invalid), ["SecretKeyMissing spec.auth.secretRef.name"]);
}

#[test]
fn kinds_that_the_api_server_lacks_are_refused_where_they_are_asked_for() {
    let missing = with_secrets(|references| references.kinds = operator::cluster::validate::Kinds::default());
    assert_eq!(missing, ["InvalidReference spec.routing.type", "InvalidReference spec.observability.serviceMonitor"]);
    let cluster = specs::cluster(&specs::smallest());
    let mut references = specs::references(&cluster.spec);
    references.kinds = operator::cluster::validate::Kinds::default();
    let made = validate(&cluster, &references, &specs::defaults()).unwrap();
    assert!(!made.is_monitored, "where nobody asks, nothing is missing");
}
