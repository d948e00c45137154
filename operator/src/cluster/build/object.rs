//! What all objects have in common: names, labels, and the cluster as their owner.

use std::collections::BTreeMap;

use crds::MessagingCluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Resource as _,
    api::{DynamicObject, ObjectMeta, TypeMeta},
};
use serde_json::Value;

use super::{CLUSTER_LABEL, VERSION_LABEL};
use crate::cluster::validate::{Cluster, Component, Service};

/// What an object of one service is made of.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) service: Service,
    pub(super) component: &'a Component,
}

impl Of<'_> {
    /// `<cluster>-<service>`.
    pub(super) fn name(self) -> String {
        self.cluster.object_name(self.service)
    }

    /// The labels by which the pods of the service are found. They never change: a Deployment's selector can't.
    pub(super) fn selector(self) -> BTreeMap<String, String> {
        selector(self.cluster, self.service)
    }

    /// An object of this service.
    pub(super) fn object(self, kind: Kind, name: String, body: Value) -> DynamicObject {
        object(self.cluster, self.service.name(), kind, name, body)
    }
}

/// Group with version, and kind.
#[derive(Clone, Copy)]
pub(super) struct Kind(pub(super) &'static str, pub(super) &'static str);

/// The labels by which the pods of a service are found.
pub(super) fn selector(cluster: &Cluster, service: Service) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), service.name().to_owned()),
        ("app.kubernetes.io/instance".to_owned(), cluster.name.clone()),
        // Another chart may have an instance and a name like these.
        (CLUSTER_LABEL.to_owned(), cluster.name.clone()),
    ])
}

/// The labels of what belongs to this part of the cluster.
pub(super) fn labels(cluster: &Cluster, part: &str) -> BTreeMap<String, String> {
    let fixed = [
        ("app.kubernetes.io/name", part),
        ("app.kubernetes.io/instance", &cluster.name),
        (VERSION_LABEL, &cluster.version),
        ("app.kubernetes.io/component", part),
        ("app.kubernetes.io/part-of", "messaging"),
        ("app.kubernetes.io/managed-by", "messaging-operator"),
        (CLUSTER_LABEL, &cluster.name),
    ];
    fixed.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// An object of the cluster, without the fields of the body that are null.
pub(super) fn object(
    cluster: &Cluster,
    part: &str,
    Kind(api_version, kind): Kind,
    name: String,
    body: Value,
) -> DynamicObject {
    let owner = OwnerReference {
        api_version: MessagingCluster::api_version(&()).into_owned(),
        kind: MessagingCluster::kind(&()).into_owned(),
        name: cluster.name.clone(),
        uid: cluster.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    DynamicObject {
        types: Some(TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() }),
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(cluster.namespace.clone()),
            labels: Some(labels(cluster, part)),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: without_nulls(body),
    }
}

/// A field that is absent is left out: under server-side apply a null would be a wish of its own.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there = fields.into_iter().filter(|(_, field)| !field.is_null());
            Value::Object(there.map(|(key, field)| (key, without_nulls(field))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}
