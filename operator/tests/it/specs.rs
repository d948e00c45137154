//! Specs for the tests of the pure middle, with references that satisfy them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crds::{MessagingCluster, MessagingClusterSpec};
use kube::api::DynamicObject;
use operator::cluster::{
    build::build,
    validate::{Cluster, Defaults, Invalid, Kinds, References, SecretData, secrets_of, validate},
};
use serde_json::{Value, json};

/// The examples, which are golden too.
pub(crate) const EXAMPLES: [&str; 3] = ["smallest", "production", "local"];

/// The folder of the crate's tests.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The cluster of a file under the crate's tests, as an API server would hold it, as JSON.
pub(crate) fn read(file: &str) -> Value {
    let path = folder().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut cluster: Value =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    cluster["metadata"]["namespace"] = "team".into();
    cluster["metadata"]["uid"] = "6f1c2f0e-0000-4000-8000-000000000001".into();
    cluster
}

/// An example.
pub(crate) fn example(name: &str) -> Value {
    read(&format!("golden/specs/{name}.yaml"))
}

/// The smallest cluster.
pub(crate) fn smallest() -> Value {
    example("smallest")
}

/// The cluster with every field.
pub(crate) fn every_field() -> Value {
    read("it/every_field.yaml")
}

/// JSON as a cluster.
pub(crate) fn cluster(value: &Value) -> MessagingCluster {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// What the operator says where a spec says nothing.
pub(crate) fn defaults() -> Defaults {
    Defaults {
        image_registry: "registry.example.com/default".to_owned(),
        operator_version: "0.1.0".to_owned(),
        dns_domain: "cluster.local".to_owned(),
    }
}

/// Everything that a spec refers to, in order.
pub(crate) fn references(spec: &MessagingClusterSpec) -> References {
    let mut secrets: BTreeMap<String, Option<SecretData>> = BTreeMap::new();
    for one in secrets_of(spec) {
        let data = secrets.entry(one.name).or_default().get_or_insert_default();
        for key in one.required_keys {
            data.0.entry(key.clone()).or_insert_with(|| content(&key));
        }
        if data.0.contains_key("internal-token") {
            data.0.entry("key-1.pem".to_owned()).or_insert_with(|| content("key-1.pem"));
        }
    }
    References { secrets, kinds: Kinds { http_route: true, service_monitor: true }, live_replicas: BTreeMap::new() }
}

/// What could stand in a Secret under this key.
fn content(key: &str) -> Vec<u8> {
    let text = match key {
        "jwks.json" => {
            let key = |id: &str| json!({ "kid": id, "kty": "OKP" });
            json!({ "keys": (["key-1", "key-2026", "key-2"].map(key)) }).to_string()
        }
        "otp-key" => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
        "internal-token" => "the-internal-token-of-thirty-two-signs".to_owned(),
        "access-key-id" | "secret-access-key" => format!("word-{key}"),
        "key-1.pem" | "key-2.pem" | "key-2026.pem" | "tls.key" => pem("PRIVATE KEY"),
        "ca.crt" | "tls.crt" => pem("CERTIFICATE"),
        _ => format!("what is under {key}\n"),
    };
    text.into_bytes()
}

fn pem(kind: &str) -> String {
    format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n")
}

/// A cluster judged with all that it refers to.
pub(crate) fn judged(value: &Value) -> Result<Cluster, Invalid> {
    let cluster = cluster(value);
    validate(&cluster, &references(&cluster.spec), &defaults())
}

/// A cluster that must be valid.
pub(crate) fn valid(value: &Value) -> Cluster {
    judged(value).unwrap_or_else(|invalid| panic!("{invalid}\n{value}"))
}

/// The objects of a cluster in the order of their application, as JSON.
pub(crate) fn objects(cluster: &Cluster) -> Vec<Value> {
    build(cluster).iter().map(json_of).collect()
}

/// An object as JSON.
pub(crate) fn json_of(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object is JSON")
}

/// The object of this kind and name.
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}
