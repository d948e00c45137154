//! From a spec and what it refers to, to a cluster whose every setting is known; or all that is wrong, with paths. Pure.

mod auth;
mod backends;
mod components;
mod faults;
mod names;
mod resolved;
mod routing;
mod secrets;
mod service;
mod settings;
pub(crate) mod times;

use std::{collections::BTreeMap, fmt, time::Duration};

use crds::{MessagingCluster, MessagingClusterSpec, conditions::Reason, messaging_cluster};

use backends::Identity;
use faults::Faults;
use secrets::Found;

pub use resolved::{
    Auth, Authorities, Autoscaler, Billing, Cluster, Component, Credentials, DynamoDb, Image, Kafka, KafkaLogin, Redis,
    RedisLogin, Route, Tables, Tls, Topic, Topics, Upgrade,
};
pub use service::Service;

/// The longest name of a cluster: names of Services, of at most 63 characters, are made of it.
const NAME_LENGTH: usize = 40;
/// The longest name of an image without its tag.
const IMAGE_NAME: usize = 255;
const UPGRADE_TIMEOUT: Duration = Duration::from_mins(15);

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

/// The Secrets that must be at hand before a cluster can be validated: one entry for each field that names one.
pub fn secrets_of(spec: &MessagingClusterSpec) -> Vec<SecretUse> {
    secrets::uses(spec)
}

/// Finds out all that the operator needs to know, or all that is wrong.
///
/// # Errors
/// With every fault that was found.
pub fn validate(cluster: &MessagingCluster, references: &References, defaults: &Defaults) -> Result<Cluster, Invalid> {
    let mut faults = Faults::default();
    let resolved = resolve(&mut faults, cluster, references, defaults);
    faults.or_else_invalid(resolved)
}

fn resolve(
    faults: &mut Faults,
    cluster: &MessagingCluster,
    references: &References,
    defaults: &Defaults,
) -> Option<Cluster> {
    let (metadata, spec) = (&cluster.metadata, &cluster.spec);
    let name = metadata.name.clone().unwrap_or_default();
    if name.len() > NAME_LENGTH
        || !names::is_dns_label(&name)
        || !name.starts_with(|first: char| first.is_ascii_lowercase())
    {
        let message = format_args!(
            "must be a DNS label of at most {NAME_LENGTH} characters that begins with a letter: names of Services are made of it"
        );
        faults.spec("metadata.name", message);
    }
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let uid = metadata.uid.clone().unwrap_or_default();
    for (field, value) in [("namespace", &namespace), ("uid", &uid)] {
        if value.is_empty() {
            faults.spec(format_args!("metadata.{field}"), "is empty: only an object of an API server can be run");
        }
    }
    version(faults, &spec.version, &defaults.operator_version);
    let image = image(faults, spec.image.clone().unwrap_or_default(), defaults);
    let route = routing::route(faults, spec, references.kinds);
    let found = Found::look(faults, spec, &references.secrets);
    let who = Identity { namespace: &namespace, name: &name };
    let kafka = backends::kafka(faults, &found, who, &spec.kafka);
    let dynamodb = backends::dynamodb(faults, &found, who, &spec.dynamodb);
    let topic_prefix = kafka.as_ref().map(|kafka| kafka.topics.prefix.clone()).unwrap_or_default();
    let redis = backends::redis(faults, &found, &topic_prefix, &spec.redis);
    let auth = auth::auth(faults, &found, &spec.auth);
    let components = components::components(faults, metadata, spec, references);
    let kafka = kafka?;
    consumers(faults, &kafka, spec);
    let observability = spec.observability.clone().unwrap_or_default();
    if observability.service_monitor == Some(true) && !references.kinds.service_monitor {
        let message = "the API server knows no ServiceMonitor of monitoring.coreos.com/v1: install the Prometheus operator, or leave this out";
        faults.reference("spec.observability.serviceMonitor", message);
    }
    let upgrade = spec.upgrade.clone().unwrap_or_default();
    let bounds = Duration::from_mins(1)..=Duration::from_hours(24);
    let timeout = upgrade.timeout.and_then(|text| times::read(faults, "spec.upgrade.timeout", &text, &bounds));
    Some(Cluster {
        name: name.clone(),
        namespace: namespace.clone(),
        uid,
        version: spec.version.clone(),
        image,
        domain: spec.domain.clone(),
        route,
        route_annotations: spec.routing.as_ref().and_then(|routing| routing.annotations.clone()).unwrap_or_default(),
        is_monitored: observability.service_monitor.unwrap_or(references.kinds.service_monitor),
        log_level: observability.log_level.unwrap_or_default(),
        otlp: otlp(faults, observability.otlp.as_ref()),
        upgrade: Upgrade {
            max_unavailable: upgrade.max_unavailable.unwrap_or_default(),
            timeout: timeout.unwrap_or(UPGRADE_TIMEOUT),
        },
        is_paused: spec.paused.unwrap_or_default(),
        is_suspended: spec.suspend.unwrap_or_default(),
        mode: spec.mode.unwrap_or_default(),
        components,
        kafka,
        dynamodb: dynamodb?,
        redis: redis?,
        auth: auth?,
        dns_domain: defaults.dns_domain.clone(),
        secrets: found.all(),
    })
}

fn otlp(faults: &mut Faults, otlp: Option<&messaging_cluster::Otlp>) -> Option<messaging_cluster::Otlp> {
    let endpoint = otlp.map(|otlp| otlp.endpoint.trim_end_matches('/'));
    if endpoint.is_some_and(|endpoint| !names::is_origin(endpoint, &["http", "https"])) {
        faults.spec("spec.observability.otlp.endpoint", "a collector is http://host:port or https://host:port");
    }
    otlp.cloned()
}

/// A version that this operator knows: of its own major and minor version, or older.
fn version(faults: &mut Faults, version: &str, operator: &str) {
    let numbers = |text: &str| {
        let mut parts = text.split(['.', '-']).map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    let Some(wanted) = numbers(version) else {
        faults.spec("spec.version", format_args!("{version:?} is no version, such as {operator}"));
        return;
    };
    if numbers(operator).is_some_and(|known| wanted > known) {
        let message = format_args!(
            "{version} is newer than this operator, which is {operator}: upgrade the operator first, or take a version up to its own"
        );
        faults.add(Reason::UnsupportedVersion, "spec.version", message);
    }
}

fn image(faults: &mut Faults, image: messaging_cluster::Image, defaults: &Defaults) -> Image {
    let registry = image.registry.unwrap_or_else(|| defaults.image_registry.clone());
    let (host, folders) = registry.split_once('/').unwrap_or((&registry, ""));
    let is_host = names::is_host(host) || names::is_host_port(host);
    let is_folder = |folder: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = folder.as_bytes();
        folder.bytes().all(inner) && outer(bytes.first()) && outer(bytes.last()) && !folder.contains("..")
    };
    let longest = registry.len() + "/chatmgmt".len();
    if !is_host || longest > IMAGE_NAME || !(folders.is_empty() || folders.split('/').all(is_folder)) {
        let message = format_args!("{registry:?} is no registry and folder, such as registry.example.com/messaging");
        faults.spec("spec.image.registry", message);
    }
    let pull_secrets = image.pull_secrets.unwrap_or_default();
    for (place, secret) in pull_secrets.iter().enumerate().filter(|(_, secret)| !names::is_dns_subdomain(&secret.name))
    {
        let message = format_args!("{:?} is no name of Kubernetes", secret.name);
        faults.spec(format_args!("spec.image.pullSecrets[{place}].name"), message);
    }
    Image {
        registry,
        pull_policy: image.pull_policy.unwrap_or_default(),
        pull_secrets: pull_secrets.into_iter().map(|secret| secret.name).collect(),
    }
}

/// Pods of fanout beyond the partitions would be idle.
fn consumers(faults: &mut Faults, kafka: &Kafka, spec: &MessagingClusterSpec) {
    let Some(fanout) = &spec.fanout else { return };
    let partitions = kafka.topics.wanted.first().map_or(0, |topic| i64::from(topic.partitions.count()));
    let most = fanout.autoscaling.as_ref().map(|range| range.max);
    for (field, pods) in [("replicas", fanout.replicas), ("autoscaling.max", most)] {
        if pods.is_some_and(|pods| i64::from(pods) > partitions) {
            let message = format_args!(
                "must not be above kafka.topics.messages.partitions, which is {partitions}: pods beyond it would be idle"
            );
            faults.spec(format_args!("spec.fanout.{field}"), message);
        }
    }
}
