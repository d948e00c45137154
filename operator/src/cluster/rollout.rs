//! How far a Deployment's rollout is. Pure.

use kube::core::DynamicObject;
use serde_json::Value;

use crate::cluster::{build::TEMPLATE_HASH, validate::LiveReplicas};

/// The hash of the template that a Deployment was rendered with.
pub fn template(deployment: &DynamicObject) -> Option<&str> {
    deployment.metadata.annotations.as_ref()?.get(TEMPLATE_HASH).map(String::as_str)
}

/// The counts of a Deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods that are wanted.
    pub desired: i32,
    /// Pods that are there.
    pub total: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that were ready for long enough.
    pub available: i32,
    /// Whether the counts are of the newest spec.
    pub is_current: bool,
}

/// The counts of a Deployment.
pub fn counts(deployment: &DynamicObject) -> Counts {
    let number = |path: &str| {
        let number = deployment.data.pointer(path).and_then(Value::as_i64).unwrap_or_default();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    let observed = deployment.data.pointer("/status/observedGeneration").and_then(Value::as_i64);
    Counts {
        desired: number("/spec/replicas"),
        total: number("/status/replicas"),
        updated: number("/status/updatedReplicas"),
        ready: number("/status/readyReplicas"),
        available: number("/status/availableReplicas"),
        is_current: observed.is_some() && observed >= deployment.metadata.generation,
    }
}

/// Whether a Deployment runs what is wanted, with all its pods, and nothing older.
pub fn is_done(live: &DynamicObject, wanted: &DynamicObject) -> bool {
    let counts = counts(live);
    template(live) == template(wanted)
        && counts.is_current
        && counts.updated == counts.desired
        && counts.total == counts.desired
        && counts.available == counts.desired
}

/// Whether a Deployment's rollout made no progress for longer than it may.
pub fn is_stuck(deployment: &DynamicObject) -> Option<String> {
    let conditions = deployment.data.pointer("/status/conditions")?.as_array()?;
    let progress = conditions.iter().find(|condition| condition["type"] == "Progressing")?;
    (progress["status"] == "False" && progress["reason"] == "ProgressDeadlineExceeded")
        .then(|| progress["message"].as_str().unwrap_or_default().to_owned())
}

/// How many pods a Deployment wants, and whether an autoscaler has said so.
pub fn replicas(deployment: &DynamicObject) -> Option<LiveReplicas> {
    let replicas = counts(deployment).desired;
    deployment.data.pointer("/spec/replicas")?;
    let owner = deployment.metadata.managed_fields.iter().flatten().find(|entry| {
        let owns = entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some());
        owns && entry.subresource.as_deref() == Some("scale")
    });
    let owned_by_other = owner.map(|entry| entry.manager.clone().unwrap_or_default());
    Some(LiveReplicas { replicas, owned_by_other })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(hash: &str, observed: i64, updated: i32, total: i32, available: i32) -> DynamicObject {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "chat-gateway", "generation": 3, "annotations": { TEMPLATE_HASH: hash } },
            "spec": { "replicas": 2 },
            "status": {
                "observedGeneration": observed, "replicas": total, "updatedReplicas": updated, "availableReplicas": available,
                "readyReplicas": available,
            },
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_rollout_is_done_when_only_new_pods_run_and_all_are_available() {
        let wanted = deployment("new", 0, 0, 0, 0);
        assert!(is_done(&deployment("new", 3, 2, 2, 2), &wanted));
        for unfinished in [
            deployment("old", 3, 2, 2, 2),
            deployment("new", 2, 2, 2, 2),
            deployment("new", 3, 1, 2, 2),
            deployment("new", 3, 2, 3, 2),
            deployment("new", 3, 2, 2, 1),
        ] {
            assert!(!is_done(&unfinished, &wanted), "{unfinished:?}");
        }
    }

    #[test]
    fn replicas_belong_to_an_autoscaler_once_it_has_scaled() {
        let mut live = deployment("new", 3, 2, 2, 2);
        assert_eq!(replicas(&live), Some(LiveReplicas { replicas: 2, owned_by_other: None }));
        live.metadata.managed_fields = serde_json::from_value(json!([
            { "manager": "kube-controller-manager", "operation": "Update", "subresource": "scale", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
        ]))
        .unwrap();
        assert_eq!(
            replicas(&live),
            Some(LiveReplicas { replicas: 2, owned_by_other: Some("kube-controller-manager".to_owned()) })
        );
    }
}
