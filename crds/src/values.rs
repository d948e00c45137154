//! The schema of the values of the chart `messaging-cluster`: its `spec` is the resource's, made strict.

use serde_json::{Map, Value, json};

use crate::schema;

/// The schema of the values as JSON text (draft 07), with a line break at its end.
///
/// # Errors
/// When it can't be written as JSON, which would be a fault of this crate.
pub fn json() -> Result<String, Box<dyn std::error::Error>> {
    Ok(format!("{}\n", serde_json::to_string_pretty(&schema())?))
}

fn schema() -> Value {
    let definition = schema::crd();
    let mut spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    close(&mut spec);
    // The chart's own version stands in for an absent one.
    if let Some(required) = spec["required"].as_array_mut() {
        required.retain(|field| field != "version");
    }
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let word = json!({ "type": "string", "minLength": 1, "maxLength": 128 });
    let name = json!({ "type": "string", "maxLength": 253, "pattern": schema::NAME });
    let closed = |description: &str, properties: Value| json!({ "type": "object", "description": description, "additionalProperties": false, "properties": properties });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of messaging-cluster",
        "type": "object",
        "additionalProperties": false,
        "required": ["spec"],
        "properties": {
            "global": { "type": "object" },
            "name": {
                "type": "string",
                "maxLength": 40,
                "pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$",
                "description": "Name of the MessagingCluster. The release's when empty.",
            },
            "labels": texts,
            "annotations": texts,
            "spec": spec,
            "operatorAccess": closed("Who may read the Secrets that the cluster names.", json!({
                "create": { "type": "boolean" },
                "serviceAccount": name,
                "namespace": name,
            })),
            "development": closed("Secrets made by the chart, for one's own machine.", json!({
                "createSecrets": { "type": "boolean" },
                "kafka": closed("Login at Kafka.", json!({ "username": word, "password": word })),
                "dynamodb": closed("Keys of the store.", json!({ "accessKeyId": word, "secretAccessKey": word })),
                "redis": closed("Login at Redis.", json!({ "password": word })),
            })),
        },
    })
}

/// Makes a schema of Kubernetes one of JSON: nothing of Kubernetes' own, and no property that isn't named.
fn close(schema: &mut Value) {
    if let Value::Object(object) = schema {
        close_object(object);
    }
}

fn close_object(object: &mut Map<String, Value>) {
    if object.remove("x-kubernetes-int-or-string").is_some() {
        object.insert("type".into(), json!(["integer", "string"]));
    }
    if object.get("x-kubernetes-list-type") == Some(&"set".into()) {
        object.insert("uniqueItems".into(), true.into());
    }
    object.retain(|key, _| !key.starts_with("x-kubernetes-") && key != "format");
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(close);
        object.insert("additionalProperties".into(), false.into());
    } else if let Some(values) = object.get_mut("additionalProperties") {
        close(values);
    }
    if let Some(items) = object.get_mut("items") {
        close(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_the_generated_one() {
        let committed = include_str!("../../charts/messaging-cluster/values.schema.json");
        assert!(committed == json().unwrap(), "charts/messaging-cluster/values.schema.json is old: run `make crds`");
    }

    #[test]
    fn the_operators_chart_carries_the_generated_definition() {
        let carried = include_str!("../../charts/operator/files/messagingclusters.yaml");
        assert!(carried == schema::yaml().unwrap(), "charts/operator/files is old: run `make crds`");
    }

    #[test]
    fn every_field_of_the_spec_is_there_and_nothing_else_is_let_in() {
        fn walk(schema: &Value, path: &str) {
            assert!(!schema.to_string().starts_with("{\"x-"), "{path}");
            if let Some(properties) = schema["properties"].as_object() {
                assert_eq!(schema["additionalProperties"], false, "{path} lets in what nobody knows");
                for (name, property) in properties {
                    walk(property, &format!("{path}.{name}"));
                }
            }
            if schema["items"].is_object() {
                walk(&schema["items"], &format!("{path}[]"));
            }
        }
        let values = schema();
        walk(&values, "");
        let definition = schema::crd();
        let fields = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
        for name in fields.as_object().unwrap().keys() {
            assert!(values["properties"]["spec"]["properties"].get(name).is_some(), "{name}");
        }
        assert!(!values.to_string().contains("x-kubernetes"), "something of Kubernetes' own is left");
    }
}
