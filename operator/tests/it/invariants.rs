//! What holds for any spec: drawn at random from the one with every field, with the seed in the message.

use serde_json::{Map, Value, json};

use crate::{pods, specs};

/// How many specs are drawn.
const DRAWS: u64 = 300;

/// A small generator of numbers (xorshift64*), so that a seed makes the same specs everywhere.
struct Draw(u64);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// What can't be left out, or not by itself.
const KEPT: &[&str] =
    &["version", "kafka", "dynamodb", "redis", "auth", "bootstrapServers", "region", "endpoint", "provider"];

/// Leaves out about a fifth of the fields, at every depth.
fn thin(draw: &mut Draw, value: &Value, is_kept: bool) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let mut thinner = Map::new();
    for (key, field) in fields {
        if is_kept || KEPT.contains(&key.as_str()) || draw.below(5) > 0 {
            // What a name or a choice belongs to goes as a whole.
            let is_whole = field.as_object().is_some_and(|field| {
                ["name", "type", "enabled", "mode", "min", "secretRef"].iter().any(|key| field.contains_key(*key))
            });
            thinner.insert(key.clone(), thin(draw, field, is_whole));
        }
    }
    Value::Object(thinner)
}

fn drawn(seed: u64) -> Value {
    let mut draw = Draw::new(seed);
    let mut cluster = specs::every_field();
    let spec = thin(&mut draw, &cluster["spec"], false);
    cluster["spec"] = spec;
    for service in ["gateway", "ingest", "fanout", "chatmgmt"] {
        if draw.below(4) == 0 {
            cluster["spec"][service] = json!({ "replicas": draw.below(5) });
        }
    }
    if draw.below(5) == 0 {
        cluster["spec"]["suspend"] = true.into();
    }
    if draw.below(3) == 0 {
        cluster["spec"]["routing"] = json!({ "type": "Ingress", "ingressClassName": "nginx" });
    }
    cluster
}

#[test]
fn any_spec_makes_sound_objects_or_is_refused_with_paths() {
    let (mut valid, mut invalid) = (0, 0);
    for seed in 0..DRAWS {
        let cluster = drawn(seed);
        match specs::judged(&cluster) {
            Ok(made) => {
                valid += 1;
                let objects = specs::objects(&made);
                objects.iter().for_each(pods::assert_invariants);
                assert_eq!(
                    text(&objects),
                    text(&specs::objects(&specs::valid(&cluster))),
                    "seed {seed}: not the same twice"
                );
                assert_eq!(text(&objects), text(&specs::objects(&made)), "seed {seed}: not the same twice");
            }
            Err(faults) => {
                invalid += 1;
                for fault in &faults.faults {
                    assert!(
                        fault.path.starts_with("spec.") && fault.message.len() > 10,
                        "seed {seed}: {fault} of {cluster}"
                    );
                }
            }
        }
    }
    assert!(valid > 100 && invalid > 10, "{valid} valid, {invalid} refused: that proves little");
}

fn text(objects: &[Value]) -> String {
    objects.iter().map(Value::to_string).collect()
}

/// Fields whose emptiness means something: no constraint at all, instead of the default.
const MEANS_SOMETHING: &[&str] = &["topologySpreadConstraints", "allowedOrigins", "bootstrapServers"];

#[test]
fn what_was_unset_is_as_if_it_had_never_been_set() {
    let whole = specs::every_field();
    let (mut checked, mut path) = (0, Vec::new());
    empty_each(&whole["spec"], &mut path, &mut |path, empty| {
        let pointer = format!("/spec/{}", path.join("/"));
        let mut without = whole.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
        let mut emptied = whole.clone();
        *emptied.pointer_mut(&pointer).unwrap() = empty;
        let (Ok(without), Ok(emptied)) = (parsed(&without), parsed(&emptied)) else { return };
        let (Ok(without), Ok(emptied)) = (specs::judged(&without), specs::judged(&emptied)) else { return };
        checked += 1;
        assert_eq!(specs::objects(&without), specs::objects(&emptied), "{pointer}: empty is not as absent");
    });
    assert!(checked > 30, "{checked} fields were emptied: that proves little");
}

/// The spec if its type takes it.
fn parsed(value: &Value) -> Result<Value, serde_json::Error> {
    serde_json::from_value::<crds::MessagingCluster>(value.clone()).map(|_| value.clone())
}

fn empty_each(value: &Value, path: &mut Vec<String>, see: &mut impl FnMut(&[String], Value)) {
    let Some(fields) = value.as_object() else { return };
    for (key, field) in fields {
        path.push(key.clone());
        match field {
            Value::Object(_) => see(path, json!({})),
            Value::Array(_) if !MEANS_SOMETHING.contains(&key.as_str()) => see(path, json!([])),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {}
        }
        empty_each(field, path, see);
        path.pop();
    }
}

#[test]
fn a_default_that_is_written_out_makes_the_same_objects() {
    let plain = specs::objects(&specs::valid(&specs::smallest()));
    let mut written = specs::smallest();
    let component = || {
        json!({
            "replicas": 2,
            "resources": { "requests": { "cpu": "25m", "memory": "64Mi" } },
            "settings": { "drain": "20s" },
        })
    };
    let spec = written["spec"].as_object_mut().unwrap();
    for service in ["gateway", "ingest", "fanout", "chatmgmt"] {
        spec.insert(service.to_owned(), component());
    }
    spec["chatmgmt"]["settings"]["trustedProxyHops"] = 0.into();
    spec["kafka"]["provider"] = "Kafka".into();
    spec["kafka"]["topics"] = json!({ "prefix": "team.chat." });
    spec["dynamodb"]["tables"] = json!({ "prefix": "team-chat-" });
    spec.insert("upgrade".to_owned(), json!({ "maxUnavailable": 0, "timeout": "15m" }));
    spec.insert("observability".to_owned(), json!({ "serviceMonitor": true, "logLevel": "info" }));
    spec.insert("routing".to_owned(), json!({ "type": "None" }));
    spec.insert(
        "image".to_owned(),
        json!({ "registry": "registry.example.com/default", "pullPolicy": "IfNotPresent" }),
    );
    assert_eq!(specs::objects(&specs::valid(&written)), plain);
}
