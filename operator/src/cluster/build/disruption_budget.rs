//! The `PodDisruptionBudget` of a service: a drained node takes one pod at a time. A single pod may go, so nothing is blocked;
//! and pods that aren't ready may always go.

use kube::api::DynamicObject;
use serde_json::json;

use super::object::{Kind, Of};

pub(super) fn make(of: Of<'_>) -> DynamicObject {
    let body = json!({
        "spec": {
            "maxUnavailable": 1,
            "selector": { "matchLabels": of.selector() },
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    });
    of.object(Kind("policy/v1", "PodDisruptionBudget"), of.name(), body)
}
