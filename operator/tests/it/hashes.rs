//! Who restarts when: only those who read what changed, and nobody when only the operator changed.

use std::collections::{BTreeMap, BTreeSet};

use operator::cluster::{
    build::{CONFIG_HASH, TEMPLATE_HASH, build},
    validate::{Defaults, References, Service, validate},
};
use serde_json::Value;

use crate::specs;

/// The hash of each service's settings, and of its template.
fn hashes(value: &Value, references: &References, defaults: &Defaults) -> BTreeMap<Service, (String, String)> {
    let cluster = validate(&specs::cluster(value), references, defaults).unwrap_or_else(|invalid| panic!("{invalid}"));
    let objects = build(&cluster);
    let hashes = objects.workloads.iter().map(|(service, deployment)| {
        let template = &deployment.data["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH];
        let whole = &deployment.metadata.annotations.as_ref().unwrap()[TEMPLATE_HASH];
        (*service, (template.as_str().unwrap().to_owned(), whole.clone()))
    });
    hashes.collect()
}

/// The services whose pods are replaced when this key of this Secret gets another value.
fn restarted_by(secret: &str, key: &str, value: &str) -> BTreeSet<&'static str> {
    let cluster = specs::every_field();
    let references = specs::references(&specs::cluster(&cluster).spec);
    let before = hashes(&cluster, &references, &specs::defaults());
    let mut changed = references;
    let data = changed.secrets.get_mut(secret).and_then(Option::as_mut).unwrap();
    assert!(data.0.insert(key.to_owned(), value.as_bytes().to_vec()).is_none_or(|old| old != value.as_bytes()));
    let after = hashes(&cluster, &changed, &specs::defaults());
    for service in Service::ALL {
        let (old, new) = (&before[&service], &after[&service]);
        assert_eq!(old.0 == new.0, old.1 == new.1, "{service}: the template has the hash of the settings");
    }
    Service::ALL.into_iter().filter(|service| before[service] != after[service]).map(Service::name).collect()
}

#[test]
fn a_secret_restarts_those_who_read_it_at_start_and_nobody_else() {
    let key = "-----BEGIN PRIVATE KEY-----\nBBBB\n-----END PRIVATE KEY-----\n";
    let certificate = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";
    let cases: [(&str, &str, &str, &[&str]); 10] = [
        ("chat-auth", "internal-token", "another-internal-token", &["gateway", "ingest", "fanout", "chatmgmt"]),
        ("chat-auth", "key-1.pem", key, &["chatmgmt"]),
        ("chat-auth", "refresh-key", "another", &["chatmgmt"]),
        ("chat-auth", "jwks.json", r#"{"keys":[{"kid":"key-1"},{"kid":"new"}]}"#, &[]),
        ("chat-auth", "something-else", "another", &[]),
        ("kafka-login", "password", "another", &["ingest", "fanout", "chatmgmt"]),
        ("kafka-ca", "ca.crt", certificate, &["ingest", "fanout", "chatmgmt"]),
        ("dynamodb-key", "secret-access-key", "another", &["ingest", "fanout", "chatmgmt"]),
        ("redis-auth", "password", "another", &["gateway", "fanout", "chatmgmt"]),
        ("redis-auth", "unused", "another", &[]),
    ];
    for (secret, key, value, expected) in cases {
        assert_eq!(restarted_by(secret, key, value), expected.iter().copied().collect(), "{secret}/{key}");
    }
}

#[test]
fn a_setting_restarts_its_service_only() {
    let cluster = specs::every_field();
    let references = specs::references(&specs::cluster(&cluster).spec);
    let before = hashes(&cluster, &references, &specs::defaults());
    let mut changed = cluster.clone();
    changed["spec"]["fanout"]["settings"]["membershipTtl"] = "3m".into();
    let after = hashes(&changed, &references, &specs::defaults());
    let restarted: Vec<&str> =
        Service::ALL.into_iter().filter(|service| before[service] != after[service]).map(Service::name).collect();
    assert_eq!(restarted, ["fanout"]);
}

#[test]
fn numbers_of_pods_budgets_and_routes_restart_nobody() {
    let cluster = specs::every_field();
    let references = specs::references(&specs::cluster(&cluster).spec);
    let before = hashes(&cluster, &references, &specs::defaults());
    for (path, value) in [
        ("/spec/ingest/replicas", Value::from(7)),
        ("/spec/gateway/autoscaling/max", 20.into()),
        ("/spec/domain", "other.example.com".into()),
        ("/spec/upgrade/timeout", "1h".into()),
        ("/spec/suspend", true.into()),
        ("/spec/kafka/topics/messages/retention", "1d".into()),
    ] {
        let mut changed = cluster.clone();
        *changed.pointer_mut(path).unwrap() = value;
        assert_eq!(hashes(&changed, &references, &specs::defaults()), before, "{path}");
    }
}

#[test]
fn a_newer_operator_restarts_nobody() {
    let cluster = specs::every_field();
    let references = specs::references(&specs::cluster(&cluster).spec);
    let before = hashes(&cluster, &references, &specs::defaults());
    let newer = Defaults {
        operator_version: "0.7.3".to_owned(),
        image_registry: "registry.example.com/moved".to_owned(),
        ..specs::defaults()
    };
    assert_eq!(hashes(&cluster, &references, &newer), before);
}

#[test]
fn no_secret_stands_in_an_object() {
    let cluster = specs::every_field();
    let references = specs::references(&specs::cluster(&cluster).spec);
    let made = validate(&specs::cluster(&cluster), &references, &specs::defaults()).unwrap();
    let objects = format!("{:?}", specs::objects(&made));
    let shown = format!("{made:?}\n{objects}\n{references:?}");
    for (name, data) in &references.secrets {
        for (key, value) in &data.as_ref().unwrap().0 {
            let text = std::str::from_utf8(value).unwrap().trim_end();
            // The public parts may be shown by Debug; no object has them.
            let is_public = key == "ca.crt" || key == "access-key-id";
            let bytes = format!("{value:?}");
            for form in [text, &text.escape_debug().to_string(), bytes.trim_matches(['[', ']'])] {
                assert!(is_public || !shown.contains(form), "{name}/{key} is shown");
                assert!(!objects.contains(form), "{name}/{key} is in an object");
            }
        }
    }
}
