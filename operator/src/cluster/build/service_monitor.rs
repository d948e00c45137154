//! The `ServiceMonitor` of a cluster: the Prometheus operator scrapes the metrics of all its pods.

use kube::api::DynamicObject;
use serde_json::json;

use super::{
    CLUSTER_LABEL,
    object::{self, Kind},
};
use crate::cluster::validate::Cluster;

pub(super) fn make(cluster: &Cluster) -> DynamicObject {
    let body = json!({
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "selector": { "matchLabels": { CLUSTER_LABEL: cluster.name } },
            "endpoints": [{ "port": "admin", "path": "/metrics" }],
        },
    });
    object::object(cluster, "metrics", Kind("monitoring.coreos.com/v1", "ServiceMonitor"), cluster.name.clone(), body)
}
