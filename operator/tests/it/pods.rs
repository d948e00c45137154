//! What every object must be: owned, labelled, restricted; and how many pods there are when.

use operator::cluster::{
    build::{CLUSTER_LABEL, build},
    validate::{LiveReplicas, Service, validate},
};
use serde_json::{Value, json};

use crate::specs;

/// Each example and the spec with every field, with its objects.
fn all() -> Vec<(Value, Vec<Value>)> {
    let specs = specs::EXAMPLES.map(specs::example).into_iter().chain([specs::every_field()]);
    specs.map(|value| (value.clone(), specs::objects(&specs::valid(&value)))).collect()
}

#[test]
fn every_object_belongs_to_its_cluster() {
    for (cluster, objects) in all() {
        for object in objects {
            let metadata = &object["metadata"];
            assert_eq!(metadata["namespace"], "team");
            assert_eq!(metadata["labels"][CLUSTER_LABEL], cluster["metadata"]["name"]);
            let owner = json!([{
                "apiVersion": "messaging.dev/v1alpha1",
                "kind": "MessagingCluster",
                "name": cluster["metadata"]["name"],
                "uid": cluster["metadata"]["uid"],
                "controller": true,
                "blockOwnerDeletion": true,
            }]);
            assert_eq!(metadata["ownerReferences"], owner);
            for key in ["name", "instance", "version", "component", "part-of", "managed-by"] {
                assert!(metadata["labels"][format!("app.kubernetes.io/{key}")].is_string(), "{key} of {metadata}");
            }
            assert_invariants(&object);
        }
    }
}

/// What holds for any object of any valid spec.
pub(crate) fn assert_invariants(object: &Value) {
    assert_no_nulls(object);
    let name = object["metadata"]["name"].as_str().unwrap();
    assert!(is_dns_label(name), "{name}");
    assert_labels(&object["metadata"]["labels"]);
    if object["kind"] == "Deployment" {
        let template = &object["spec"]["template"];
        assert_labels(&template["metadata"]["labels"]);
        for (key, value) in object["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(&template["metadata"]["labels"][key], value, "the selector finds its own pods");
        }
        assert_restricted(&template["spec"]);
    }
}

fn assert_no_nulls(value: &Value) {
    match value {
        Value::Null => panic!("a null"),
        Value::Object(fields) => fields.values().for_each(assert_no_nulls),
        Value::Array(items) => items.iter().for_each(assert_no_nulls),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn assert_labels(labels: &Value) {
    for (key, value) in labels.as_object().unwrap() {
        let value = value.as_str().unwrap();
        let inner = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let outer = |letter: Option<char>| letter.is_none_or(|letter| letter.is_ascii_alphanumeric());
        assert!(
            value.len() <= 63 && value.chars().all(inner) && outer(value.chars().next()) && outer(value.chars().last()),
            "{key}: {value}"
        );
        assert!(key.len() <= 317 && !key.is_empty());
    }
}

/// The rules of Pod Security's level *restricted*, and our own beyond it.
fn assert_restricted(pod: &Value) {
    for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers", "ephemeralContainers"] {
        assert!(pod.get(field).is_none(), "{field}");
    }
    let context = &pod["securityContext"];
    assert_eq!(context["runAsNonRoot"], true);
    assert!(context["runAsUser"].as_i64().unwrap() > 0);
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    assert!(context.get("sysctls").is_none() && context.get("supplementalGroups").is_none());
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["enableServiceLinks"], false);
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kinds: Vec<_> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        assert_eq!(kinds, ["projected"]);
        assert_eq!(volume["projected"]["defaultMode"], 0o440);
        for source in volume["projected"]["sources"].as_array().unwrap() {
            assert!(!source["secret"]["items"].as_array().unwrap().is_empty(), "only the keys that are read");
        }
    }
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert!(context.get("privileged").is_none() && context.get("procMount").is_none());
        for port in container["ports"].as_array().unwrap() {
            assert!(port.get("hostPort").is_none());
            assert!(port["name"].as_str().unwrap().len() <= 15);
        }
        for resource in ["cpu", "memory"] {
            assert!(container["resources"]["requests"][resource].is_string(), "{resource} is requested");
        }
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], 9100);
        }
    }
}

#[test]
fn gateway_sees_two_keys_of_the_auth_secret_and_no_store() {
    let objects = specs::objects(&specs::valid(&specs::every_field()));
    let gateway = specs::find(&objects, "Deployment", "chat-gateway").unwrap();
    let pod = &gateway["spec"]["template"]["spec"];
    let keys: Vec<&Value> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|volume| volume["name"] == "auth")
        .flat_map(|volume| volume["projected"]["sources"][0]["secret"]["items"].as_array().unwrap())
        .map(|item| &item["key"])
        .collect();
    assert_eq!(keys, ["internal-token", "jwks.json"]);
    assert!(!pod.to_string().contains("dynamodb-key") && !pod.to_string().contains("kafka-login"));
}

#[test]
fn a_pod_has_more_time_to_end_than_its_process_takes() {
    for (service, drain, grace) in [("chat-gateway", "30s", 45), ("chat-ingest", "1500ms", 17)] {
        let mut cluster = specs::every_field();
        let name = service.trim_start_matches("chat-");
        cluster["spec"][name]["settings"]["drain"] = drain.into();
        let objects = specs::objects(&specs::valid(&cluster));
        let deployment = specs::find(&objects, "Deployment", service).unwrap();
        assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], grace);
        let settings = specs::find(&objects, "ConfigMap", service).unwrap();
        assert_eq!(settings["data"]["STOP_TIMEOUT"], drain);
    }
}

#[test]
fn grpc_is_open_to_the_siblings_that_call_it() {
    let objects = specs::objects(&specs::valid(&specs::smallest()));
    for (service, caller) in
        [("gateway", Some("fanout")), ("ingest", Some("gateway")), ("fanout", None), ("chatmgmt", None)]
    {
        let policy = specs::find(&objects, "NetworkPolicy", &format!("chat-{service}")).unwrap();
        let rules = policy["spec"]["ingress"].as_array().unwrap();
        let grpc: Vec<&Value> = rules.iter().filter(|rule| rule["ports"][0]["port"] == 9090).collect();
        let callers: Vec<Option<&str>> = grpc
            .iter()
            .map(|rule| rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"].as_str())
            .collect();
        assert_eq!(callers, caller.map(Some).into_iter().collect::<Vec<_>>(), "{service}");
        assert!(rules.iter().any(|rule| rule["ports"][0]["port"] == 9100 && rule.get("from").is_none()));
    }
}

/// `spec.replicas` of gateway, and whether it has an autoscaler.
fn gateway_pods(cluster: &Value, live: Option<LiveReplicas>) -> (Option<i64>, bool) {
    let cluster = specs::cluster(cluster);
    let mut references = specs::references(&cluster.spec);
    references.live_replicas.extend(live.map(|live| (Service::Gateway, live)));
    let made = validate(&cluster, &references, &specs::defaults()).unwrap_or_else(|invalid| panic!("{invalid}"));
    let objects = build(&made);
    let replicas = objects.workloads[&Service::Gateway].data["spec"]["replicas"].as_i64();
    let has_autoscaler = objects.base.iter().any(|object| {
        object.types.as_ref().unwrap().kind == "HorizontalPodAutoscaler"
            && object.metadata.name.as_deref() == Some("chat-gateway")
    });
    (replicas, has_autoscaler)
}

#[test]
fn replicas_are_handed_over_to_an_autoscaler_and_taken_back() {
    let live =
        |replicas: i32, owner: Option<&str>| Some(LiveReplicas { replicas, owned_by_other: owner.map(str::to_owned) });
    let fixed = specs::smallest();
    assert_eq!(gateway_pods(&fixed, None), (Some(2), false));
    assert_eq!(gateway_pods(&fixed, live(9, Some("horizontal-pod-autoscaler"))), (Some(2), false));

    let mut scaled = specs::smallest();
    scaled["spec"]["gateway"] = json!({ "autoscaling": { "min": 3, "max": 9 } });
    assert_eq!(gateway_pods(&scaled, None), (Some(3), true), "a first installation");
    assert_eq!(gateway_pods(&scaled, live(5, None)), (Some(5), true), "nobody else owns it yet");
    assert_eq!(gateway_pods(&scaled, live(0, None)), (Some(3), true), "after a suspension");
    assert_eq!(gateway_pods(&scaled, live(20, None)), (Some(9), true));
    assert_eq!(gateway_pods(&scaled, live(5, Some("horizontal-pod-autoscaler"))), (None, true));

    scaled["spec"]["suspend"] = true.into();
    assert_eq!(gateway_pods(&scaled, live(5, Some("horizontal-pod-autoscaler"))), (Some(0), false));
}

#[test]
fn a_request_is_never_above_its_limit() {
    let mut cluster = specs::smallest();
    cluster["spec"]["ingest"] = json!({ "resources": { "limits": { "cpu": "10m", "memory": "48Mi" } } });
    let objects = specs::objects(&specs::valid(&cluster));
    let deployment = specs::find(&objects, "Deployment", "chat-ingest").unwrap();
    let resources = &deployment["spec"]["template"]["spec"]["containers"][0]["resources"];
    assert_eq!(resources["requests"], json!({ "cpu": "10m", "memory": "48Mi" }));
}

#[test]
fn an_annotation_of_the_cluster_restarts_all_or_one() {
    let names = |annotation: &str| -> Vec<String> {
        let mut cluster = specs::smallest();
        cluster["metadata"]["annotations"] = json!({ annotation: "2026-01-01" });
        let plain = specs::objects(&specs::valid(&specs::smallest()));
        let objects = specs::objects(&specs::valid(&cluster));
        let changed = objects.iter().zip(&plain).filter(|(new, old)| new != old);
        changed.map(|(object, _)| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("messaging.dev/restart-at").len(), 4);
    assert_eq!(names("messaging.dev/restart-fanout-at"), ["chat-fanout"]);
    assert!(names("messaging.dev/reconcile-at").is_empty());
}
