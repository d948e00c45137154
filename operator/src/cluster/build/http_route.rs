//! The `HTTPRoute`: one host, the socket to gateway, REST to chatmgmt.

use crds::routing::GatewayReference;
use kube::api::DynamicObject;
use serde_json::json;

use super::{
    environment::HTTP,
    object::{self, Kind},
    service,
};
use crate::cluster::validate::{Cluster, Service};

/// The paths of clients, and who serves them.
pub(super) const PATHS: [(&str, Service); 2] = [("/v1/ws", Service::Gateway), ("/api", Service::ChatMgmt)];

pub(super) fn make(cluster: &Cluster, gateway: &GatewayReference) -> DynamicObject {
    let rule = |(path, service): (&str, Service)| {
        json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
            "backendRefs": [{ "name": service::name(cluster, service), "port": HTTP }],
        })
    };
    let body = json!({
        "spec": {
            "parentRefs": [{
                "name": gateway.name,
                "namespace": gateway.namespace,
                "sectionName": gateway.section_name,
            }],
            "hostnames": [cluster.domain],
            "rules": PATHS.map(rule),
        },
    });
    let kind = Kind("gateway.networking.k8s.io/v1", "HTTPRoute");
    let mut route = object::object(cluster, "route", kind, cluster.name.clone(), body);
    if !cluster.route_annotations.is_empty() {
        route.metadata.annotations = Some(cluster.route_annotations.clone());
    }
    route
}
