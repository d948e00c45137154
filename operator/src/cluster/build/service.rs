//! The Service of a service: for clients with an address of its own, else headless.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{
    environment::{ADMIN, GRPC, HTTP},
    object::{Kind, Of},
};
use crate::cluster::validate::{Cluster, Service};

/// gateway picks an ingest by the chat, and must see each pod; fanout has a Service only for those who scrape it.
pub(super) fn make(of: Of<'_>) -> DynamicObject {
    let port = |name: &str, port: i32| json!({ "name": name, "port": port, "protocol": "TCP", "targetPort": port });
    let mut ports = Vec::new();
    if of.service.serves_clients() {
        ports.push(port("http", HTTP));
    }
    if of.service == Service::Ingest {
        ports.push(port("grpc", GRPC));
    }
    ports.push(port("admin", ADMIN));
    let address = if of.service.serves_clients() { Value::Null } else { "None".into() };
    let body = json!({
        "spec": { "type": "ClusterIP", "clusterIP": address, "selector": of.selector(), "ports": ports },
    });
    of.object(Kind("v1", "Service"), name(of.cluster, of.service), body)
}

/// The name of a service's Service.
pub(super) fn name(cluster: &Cluster, service: Service) -> String {
    let name = cluster.object_name(service);
    if service.serves_clients() { name } else { format!("{name}-headless") }
}
