//! The pod of a service: one container without any privilege, its settings, its Secrets, its probes.

use std::{collections::BTreeMap, time::Duration};

use crds::{components::Amounts, messaging_cluster::PullPolicy, quantity::Quantity};
use serde_json::{Value, json};

use super::{
    CONFIG_HASH,
    environment::{self, ADMIN, DRAIN_DELAY, Environment, Folder, GRPC, HTTP},
    hash,
    object::{self, Of},
};
use crate::cluster::validate::Service;

/// The user and group `nobody`.
const NOBODY: i64 = 65534;
/// Secrets are readable by the pod's group only.
const FILE_MODE: i32 = 0o440;
/// What a process may need to end after all its deadlines.
const MARGIN: Duration = Duration::from_secs(12);

/// The template of a service's pods. Nothing in it depends on the operator's own version.
pub(super) fn template(of: Of<'_>) -> Value {
    let environment = environment::of(of);
    let pod = &of.component.pod;
    let config_hash = hash::config(&environment, &of.cluster.secrets);
    let mut annotations = pod.annotations.clone().unwrap_or_default();
    annotations.extend(of.component.restarts.clone());
    annotations.insert(CONFIG_HASH.to_owned(), config_hash);
    let mut labels = pod.labels.clone().unwrap_or_default();
    labels.extend(object::labels(of.cluster, of.service.name()));
    let pull_secrets: Vec<_> = of.cluster.image.pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    let grace = (DRAIN_DELAY + of.component.drain + MARGIN).as_millis().div_ceil(1000);
    json!({
        "metadata": { "labels": labels, "annotations": annotations },
        "spec": {
            "serviceAccountName": of.name(),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": grace,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": NOBODY,
                "runAsGroup": NOBODY,
                "fsGroup": NOBODY,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "imagePullSecrets": some(pull_secrets),
            "nodeSelector": pod.node_selector.as_ref().filter(|selector| !selector.is_empty()),
            "tolerations": pod.tolerations.as_ref().filter(|tolerations| !tolerations.is_empty()),
            "topologySpreadConstraints": some(spread(of)),
            "priorityClassName": pod.priority_class_name,
            "containers": [container(of, &environment)],
            "volumes": some(environment.folders.iter().map(volume).collect()),
        },
    })
}

fn container(of: Of<'_>, environment: &Environment) -> Value {
    let image = &of.cluster.image;
    let policy = match image.pull_policy {
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Always => "Always",
        PullPolicy::Never => "Never",
    };
    let mut variables = Vec::new();
    if of.service == Service::Gateway {
        let own_address = json!({ "fieldRef": { "apiVersion": "v1", "fieldPath": "status.podIP" } });
        variables.push(json!({ "name": "POD_IP", "valueFrom": own_address }));
    }
    for variable in &environment.secret_variables {
        let key = json!({ "secretKeyRef": { "name": variable.secret, "key": variable.key } });
        variables.push(json!({ "name": variable.name, "valueFrom": key }));
    }
    let mount = |folder: &Folder| json!({ "name": folder.name, "mountPath": folder.mount_path(), "readOnly": true });
    json!({
        "name": of.service.name(),
        "image": format!("{}/{}:{}", image.registry, of.service, of.cluster.version),
        "imagePullPolicy": policy,
        "ports": ports(of.service),
        "envFrom": [{ "configMapRef": { "name": of.name() } }],
        "env": some(variables),
        "resources": {
            "requests": amounts(of.component.resources.requests.as_ref()),
            "limits": amounts(of.component.resources.limits.as_ref()),
        },
        "volumeMounts": some(environment.folders.iter().map(mount).collect()),
        "startupProbe": probe("/livez", Every { seconds: 1, failures: 60 }),
        "readinessProbe": probe("/readyz", Every { seconds: 2, failures: 3 }),
        "livenessProbe": probe("/livez", Every { seconds: 10, failures: 3 }),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "capabilities": { "drop": ["ALL"] },
        },
    })
}

fn amounts(amounts: Option<&Amounts>) -> Value {
    let Some(Amounts { cpu, memory }) = amounts.filter(|amounts| **amounts != Amounts::default()) else {
        return Value::Null;
    };
    let text = |amount: &Option<Quantity>| amount.as_ref().map(ToString::to_string);
    json!({ "cpu": text(cpu), "memory": text(memory) })
}

fn ports(service: Service) -> Vec<Value> {
    let mut ports = Vec::new();
    if service.serves_clients() {
        ports.push(("http", HTTP));
    }
    if service != Service::Fanout {
        ports.push(("grpc", GRPC));
    }
    ports.push(("admin", ADMIN));
    ports.into_iter().map(|(name, port)| json!({ "name": name, "containerPort": port, "protocol": "TCP" })).collect()
}

/// How often a probe asks, and how many refusals in a row count.
#[derive(Clone, Copy)]
struct Every {
    seconds: i32,
    failures: i32,
}

fn probe(path: &str, every: Every) -> Value {
    json!({
        "httpGet": { "path": path, "port": ADMIN, "scheme": "HTTP" },
        "periodSeconds": every.seconds,
        "timeoutSeconds": 2,
        "successThreshold": 1,
        "failureThreshold": every.failures,
    })
}

/// The constraints that the spec names, else: over nodes where possible. Each counts the pods of one template only, so that
/// the new ones are spread among themselves.
fn spread(of: Of<'_>) -> Vec<Value> {
    let constraint = |skew: i32, key: &str, otherwise: Value| {
        json!({
            "maxSkew": skew,
            "topologyKey": key,
            "whenUnsatisfiable": otherwise,
            "labelSelector": { "matchLabels": of.selector() },
            "matchLabelKeys": ["pod-template-hash"],
        })
    };
    match &of.component.pod.topology_spread_constraints {
        None => vec![constraint(1, "kubernetes.io/hostname", "ScheduleAnyway".into())],
        Some(wanted) => {
            let one = |spread: &crds::components::TopologySpread| {
                constraint(spread.max_skew, &spread.topology_key, json!(spread.when_unsatisfiable))
            };
            wanted.iter().map(one).collect()
        }
    }
}

/// A volume of exactly the files that the service reads.
fn volume(folder: &Folder) -> Value {
    let mut sources: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for file in &folder.files {
        sources.entry(&file.secret).or_default().push(json!({ "key": file.key, "path": file.path }));
    }
    let source = |(name, items): (&str, Vec<Value>)| json!({ "secret": { "name": name, "items": items } });
    json!({
        "name": folder.name,
        "projected": {
            "defaultMode": FILE_MODE,
            "sources": sources.into_iter().map(source).collect::<Vec<_>>(),
        },
    })
}

/// A list that isn't empty: an empty one is left out.
fn some(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { Value::Array(list) }
}
