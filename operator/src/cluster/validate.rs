//! From a spec and what it refers to, to a cluster whose every setting is known; or all that is wrong, with paths. Pure.

mod resolved;
mod service;

use std::{collections::BTreeMap, fmt};

use crds::{MessagingCluster, MessagingClusterSpec, conditions::Reason};

pub use resolved::{
    Auth, Authorities, Autoscaler, Billing, Cluster, Component, Credentials, DynamoDb, Image, Kafka, KafkaLogin, Redis,
    RedisLogin, Route, Tables, Tls, Topic, Topics, Upgrade,
};
pub use service::Service;

/// What a spec refers to, as it was found.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// The Secrets of [`secrets_of`] by name; `None` when there is none of that name.
    pub secrets: BTreeMap<String, Option<SecretData>>,
    /// Optional kinds that the API server knows.
    pub kinds: Kinds,
    /// The pods that Deployments ask for at present; services without a Deployment are absent.
    pub live_replicas: BTreeMap<Service, LiveReplicas>,
}

/// The data of a Secret. `Debug` shows the keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for SecretData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// Optional kinds that the API server knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// `gateway.networking.k8s.io/v1` `HTTPRoute`.
    pub http_route: bool,
    /// `monitoring.coreos.com/v1` `ServiceMonitor`.
    pub service_monitor: bool,
}

/// The pods that a Deployment asks for at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveReplicas {
    /// Its `spec.replicas`.
    pub replicas: i32,
    /// The field manager other than the operator that owns `spec.replicas`, if one does.
    pub owned_by_other: Option<String>,
}

/// What the operator says where a spec says nothing.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Registry and folder of the images.
    pub image_registry: String,
    /// The operator's own version, as `0.1.0`: newer versions of the platform are refused.
    pub operator_version: String,
    /// The domain of the Kubernetes cluster, as `cluster.local`.
    pub dns_domain: String,
}

/// A Secret that a spec refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// Its name, in the namespace of the cluster.
    pub name: String,
    /// The field that refers to it, as `spec.auth.secretRef.name`.
    pub path: String,
    /// Keys that it must have.
    pub required_keys: Vec<String>,
}

/// Why a spec can't be used: one fault or more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Invalid {
    /// The faults, in the order of the spec.
    pub faults: Vec<Fault>,
}

impl Invalid {
    /// The reason of the condition: that of the first fault.
    pub fn reason(&self) -> Reason {
        self.faults.first().map_or(Reason::InvalidSpec, |fault| fault.reason)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `InvalidSpec`, `SecretNotFound`, `SecretKeyMissing`, `InvalidReference` or `UnsupportedVersion`.
    pub reason: Reason,
    /// The field, as `spec.kafka.bootstrapServers[0]`.
    pub path: String,
    /// What is wrong with it, and what would be accepted.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.message)
    }
}

/// The Secrets that must be at hand before a cluster can be validated, each name once a use.
pub fn secrets_of(_spec: &MessagingClusterSpec) -> Vec<SecretUse> {
    Vec::new()
}

/// Finds out all that the operator needs to know, or all that is wrong.
///
/// # Errors
/// With every fault that was found.
pub fn validate(
    cluster: &MessagingCluster,
    _references: &References,
    _defaults: &Defaults,
) -> Result<Cluster, Invalid> {
    let path = "spec".to_owned();
    let message = format!("{:?} is not validated yet", cluster.metadata.name);
    Err(Invalid { faults: vec![Fault { reason: Reason::InvalidSpec, path, message }] })
}
