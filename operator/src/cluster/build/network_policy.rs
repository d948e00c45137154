//! The `NetworkPolicy` of a service: who may call its pods. What they call is not restricted.
//!
//! HTTP is for clients, wherever they are. gRPC is for the pods of the same cluster that call it. Probes and scrapes come
//! from anywhere. No one calls gRPC of chatmgmt, so nobody may.

use kube::api::DynamicObject;
use serde_json::json;

use super::{
    environment::{ADMIN, GRPC, HTTP},
    object::{self, Kind, Of},
};
use crate::cluster::validate::Service;

pub(super) fn make(of: Of<'_>) -> DynamicObject {
    let mut rules = Vec::new();
    let port = |port: i32| json!([{ "protocol": "TCP", "port": port }]);
    if of.service.serves_clients() {
        rules.push(json!({ "ports": port(HTTP) }));
    }
    let callers = callers(of.service).iter();
    let callers: Vec<_> = callers
        .map(|caller| json!({ "podSelector": { "matchLabels": object::selector(of.cluster, *caller) } }))
        .collect();
    if !callers.is_empty() {
        rules.push(json!({ "from": callers, "ports": port(GRPC) }));
    }
    rules.push(json!({ "ports": port(ADMIN) }));
    let body = json!({
        "spec": {
            "podSelector": { "matchLabels": of.selector() },
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    });
    of.object(Kind("networking.k8s.io/v1", "NetworkPolicy"), of.name(), body)
}

/// Who calls the gRPC of a service. Gateways tell each other of devices that connect anew.
fn callers(service: Service) -> &'static [Service] {
    match service {
        Service::Gateway => &[Service::Fanout, Service::Gateway],
        Service::Ingest => &[Service::Gateway],
        Service::Fanout | Service::ChatMgmt => &[],
    }
}
