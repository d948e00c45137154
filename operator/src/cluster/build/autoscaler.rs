//! The `HorizontalPodAutoscaler` of a service whose spec names a range.

use kube::api::DynamicObject;
use serde_json::json;

use super::object::{Kind, Of};
use crate::cluster::validate::Autoscaler;

pub(super) fn make(of: Of<'_>, range: Autoscaler) -> DynamicObject {
    let target = json!({ "type": "Utilization", "averageUtilization": range.target_cpu_utilization });
    let body = json!({
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": of.name() },
            "minReplicas": range.min,
            "maxReplicas": range.max,
            "metrics": [{ "type": "Resource", "resource": { "name": "cpu", "target": target } }],
        },
    });
    of.object(Kind("autoscaling/v2", "HorizontalPodAutoscaler"), of.name(), body)
}
