//! The Ingress: one host, the socket to gateway, REST to chatmgmt.

use kube::api::DynamicObject;
use serde_json::json;

use super::{
    http_route::PATHS,
    object::{self, Kind},
    service,
};
use crate::cluster::validate::{Cluster, Service};

pub(super) fn make(cluster: &Cluster, class: Option<&str>, tls_secret: Option<&str>) -> DynamicObject {
    let path = |(path, service): (&str, Service)| {
        let backend = json!({ "service": { "name": service::name(cluster, service), "port": { "name": "http" } } });
        json!({ "path": path, "pathType": "Prefix", "backend": backend })
    };
    let body = json!({
        "spec": {
            "ingressClassName": class,
            "tls": tls_secret.map(|secret| json!([{ "hosts": [cluster.domain], "secretName": secret }])),
            "rules": [{ "host": cluster.domain, "http": { "paths": PATHS.map(path) } }],
        },
    });
    let kind = Kind("networking.k8s.io/v1", "Ingress");
    let mut ingress = object::object(cluster, "route", kind, cluster.name.clone(), body);
    if !cluster.route_annotations.is_empty() {
        ingress.metadata.annotations = Some(cluster.route_annotations.clone());
    }
    ingress
}
