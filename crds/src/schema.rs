//! The definition of the resource: what the derive makes, cleaned so that every API server takes it and says what it means.

use kube::CustomResourceExt as _;
use serde_json::{Map, Value, json};

use crate::{MessagingCluster, SCHEMA_HASH};

/// A name of Kubernetes.
pub const NAME: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// A host and a port from 1 to 65535.
pub const HOST_PORT: &str = r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";

/// A length of time: one or more whole numbers with their units, as 90s or 1h30m.
pub const DURATION: &str = r"^([0-9]{1,9}(ms|s|m|h|d))+$";

/// Longest value of an annotation.
const ANNOTATION_LENGTH: u32 = 4096;

/// The definition of `MessagingCluster`, as it is applied to an API server.
///
/// It carries a hash of its schema as the annotation [`SCHEMA_HASH`].
///
/// # Panics
/// Never: the derive's definition is an object.
pub fn crd() -> Value {
    let mut definition = serde_json::to_value(MessagingCluster::crd()).unwrap_or_default();
    if let Some(versions) = definition.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                clean(schema);
                if let Some(item) = schema.pointer_mut("/properties/status/properties/conditions/items") {
                    *item = condition();
                }
            }
        }
    }
    let hash = hash(&definition["spec"]);
    definition["metadata"]["annotations"] = json!({ SCHEMA_HASH: hash });
    definition
}

/// The definition as YAML, with a line that says where it comes from.
///
/// # Errors
/// When it can't be written as YAML, which would be a fault of this crate.
pub fn yaml() -> Result<String, Box<dyn std::error::Error>> {
    let text = serde_saphyr::to_string(&crd())?;
    Ok(format!("# Made by `make crds` from the types of the crate `crds`; do not edit.\n{text}"))
}

/// The schema's hash: 16 hexadecimal digits (FNV-1a of its canonical JSON).
fn hash(spec: &Value) -> String {
    let text = spec.to_string();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// What a map of labels may hold: values of at most 63 characters.
pub(crate) fn label_value() -> Value {
    json!({ "type": "string", "maxLength": 63, "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$" })
}

/// What a map of annotations may hold.
pub(crate) fn annotation_value() -> Value {
    json!({ "type": "string", "maxLength": ANNOTATION_LENGTH })
}

/// Keys of labels and annotations: qualified names that are not the operator's own.
pub(crate) fn keys() -> Value {
    json!([
        {
            "rule": "self.all(key, key.size() <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
            "message": "keys are names of at most 63 characters, with an optional prefix of a domain and a slash",
        },
        {
            "rule": "self.all(key, !key.startsWith('messaging.dev/') && !key.startsWith('app.kubernetes.io/'))",
            "message": "keys under messaging.dev/ and app.kubernetes.io/ are the operator's own",
        },
    ])
}

/// Keys of labels of nodes.
pub(crate) fn node_keys() -> Value {
    json!([keys()[0]])
}

/// Cleans a schema and all below it.
fn clean(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            clean_object(object);
            object.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn clean_object(object: &mut Map<String, Value>) {
    // An absent field is absent, never null; and no default is stored, or it would outlive the version that chose it.
    let is_schema = ["type", "properties", "enum", "anyOf", "x-kubernetes-int-or-string"]
        .iter()
        .any(|key| object.contains_key(*key));
    if is_schema {
        object.remove("nullable");
        if object.get("default").is_none_or(|default| default.get("type").is_none()) {
            object.remove("default");
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if object.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        for key in ["anyOf", "oneOf", "type"] {
            object.remove(key);
        }
    }
    for key in ["minimum", "maximum"] {
        if let Some(whole) = object.get(key).and_then(Value::as_f64).and_then(whole) {
            object.insert(key.to_owned(), whole.into());
        }
    }
}

/// A float that is a whole number, as that number.
fn whole(number: f64) -> Option<i64> {
    let text = format!("{number}");
    text.parse().ok()
}

/// A condition: as `meta/v1` defines it, with bounds.
fn condition() -> Value {
    json!({
        "type": "object",
        "description": "One aspect of the cluster.",
        "required": ["lastTransitionTime", "message", "reason", "status", "type"],
        "properties": {
            "type": { "type": "string", "maxLength": 316, "description": "The aspect." },
            "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds." },
            "reason": {
                "type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                "description": "Why, in one word of a closed list.",
            },
            "message": { "type": "string", "maxLength": 32768, "description": "Why, and what to do next." },
            "lastTransitionTime": { "type": "string", "format": "date-time", "description": "When the status changed last." },
            "observedGeneration": {
                "type": "integer", "format": "int64", "minimum": 0,
                "description": "The generation of the object that the condition describes.",
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks every schema below one, with its path.
    fn walk(schema: &Value, path: &str, see: &mut impl FnMut(&str, &Value)) {
        see(path, schema);
        if let Some(properties) = schema["properties"].as_object() {
            for (name, property) in properties {
                walk(property, &format!("{path}.{name}"), see);
            }
        }
        for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            if schema[key].is_object() {
                walk(&schema[key], &format!("{path}{mark}"), see);
            }
        }
    }

    fn root() -> Value {
        crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn every_field_is_bounded() {
        let mut faults = Vec::new();
        walk(&root(), "", &mut |path, schema| {
            let has = |key: &str| schema.get(key).is_some();
            let bounded = match schema["type"].as_str() {
                Some("string") => has("maxLength") || has("enum") || has("format"),
                Some("integer") => has("minimum") && (has("maximum") || path.starts_with(".status")),
                Some("array") => has("maxItems"),
                Some("object") => has("properties") || has("maxProperties") || path == ".metadata" || path.is_empty(),
                Some("boolean") => true,
                None => schema["x-kubernetes-int-or-string"] == true && has("maxLength"),
                Some(_) => false,
            };
            if !bounded {
                faults.push(format!("{path}: {schema}"));
            }
        });
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn every_field_is_documented() {
        let mut faults = Vec::new();
        walk(&root(), "", &mut |path, schema| {
            let item = path.ends_with(']') || path.ends_with('}');
            if path != ".metadata" && !item && schema["description"].as_str().is_none_or(|text| text.len() < 8) {
                faults.push(path.to_owned());
            }
        });
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn nothing_is_nullable_and_nothing_has_a_stored_default() {
        walk(&root(), "", &mut |path, schema| {
            assert!(schema.get("nullable").is_none(), "{path} is nullable");
            assert!(schema.get("default").is_none(), "{path} has a default");
            let enumerated = schema["enum"].as_array().cloned().unwrap_or_default();
            assert!(enumerated.iter().all(|value| !value.is_null()), "{path} lists null");
        });
    }

    #[test]
    fn every_rule_has_a_message_and_every_list_its_kind() {
        walk(&root(), "", &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                assert!(rule["message"].is_string(), "{path}: {rule}");
            }
            assert!(
                schema["type"] != "array" || schema.get("x-kubernetes-list-type").is_some(),
                "{path}: a list without its kind"
            );
        });
    }

    #[test]
    fn the_committed_definition_is_the_generated_one() {
        let committed = include_str!("../generated/messagingclusters.yaml");
        assert!(committed == yaml().unwrap(), "crds/generated is old: run `make crds`");
    }

    #[test]
    fn the_definition_fits_into_an_annotation() {
        assert!(crd().to_string().len() < 262_144 / 2, "client-side apply keeps a copy in an annotation");
    }
}
