//! A cluster whose every setting is known: defaults filled in, times parsed, secrets at hand.

use std::{collections::BTreeMap, time::Duration};

use crds::{
    backends::{AdoptionPolicy, DeletionPolicy, KafkaProvider, Management},
    components::{PodTemplate, Resources},
    messaging_cluster::{LogLevel, Mode, Otlp, PullPolicy, SmsProvider},
    routing::GatewayReference,
};
use platform::Secret;
use proto::topics;

use super::{SecretData, Service};
use crate::topics::Partitions;

/// A cluster that was found valid. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Name of the `MessagingCluster`.
    pub name: String,
    /// Its namespace, in which all of its objects are.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Version of the platform: the tag of the images.
    pub version: String,
    /// Where the images come from.
    pub image: Image,
    /// The host that clients know.
    pub domain: Option<String>,
    /// How clients come in from outside.
    pub route: Route,
    /// Annotations of the route.
    pub route_annotations: BTreeMap<String, String>,
    /// Whether a `ServiceMonitor` is made.
    pub is_monitored: bool,
    /// What the services log.
    pub log_level: LogLevel,
    /// Where they send their traces.
    pub otlp: Option<Otlp>,
    /// How a change is rolled out.
    pub upgrade: Upgrade,
    /// Whether the operator only looks and reports.
    pub is_paused: bool,
    /// Whether no pods run.
    pub is_suspended: bool,
    /// Whether the operator acts.
    pub mode: Mode,
    /// The services.
    pub components: BTreeMap<Service, Component>,
    /// The log.
    pub kafka: Kafka,
    /// The store.
    pub dynamodb: DynamoDb,
    /// The cache.
    pub redis: Redis,
    /// Keys, logins and one-time codes.
    pub auth: Auth,
    /// The domain of the Kubernetes cluster, as `cluster.local`.
    pub dns_domain: String,
    /// Every Secret that the spec refers to, by name.
    pub secrets: BTreeMap<String, SecretData>,
}

impl Cluster {
    /// The log: brokers, how to log in, topics.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// The store: region, how to log in, tables.
    pub fn dynamodb(&self) -> &DynamoDb {
        &self.dynamodb
    }

    /// The name of the objects of one service: `<cluster>-<service>`.
    pub fn object_name(&self, service: Service) -> String {
        format!("{}-{service}", self.name)
    }

    /// Number of pods that the service is to have, where that is the operator's to say: `None` leaves it to an autoscaler.
    pub fn replicas(&self, service: Service) -> Option<i32> {
        self.components.get(&service).and_then(|component| component.replicas)
    }
}

/// Where the images come from.
#[derive(Clone, Debug)]
pub struct Image {
    /// Registry and folder.
    pub registry: String,
    /// When they are pulled.
    pub pull_policy: PullPolicy,
    /// Names of the Secrets that open the registry.
    pub pull_secrets: Vec<String>,
}

/// How clients come in from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Not by anything of the operator's.
    None,
    /// By an `HTTPRoute` at this Gateway.
    Gateway(GatewayReference),
    /// By an Ingress.
    Ingress {
        /// Its class; the cluster's default without one.
        class: Option<String>,
        /// The Secret that it serves TLS with.
        tls_secret: Option<String>,
    },
}

/// How a change is rolled out.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade {
    /// Pods of a service that may be missing meanwhile.
    pub max_unavailable: i32,
    /// How long a rollout may make no progress.
    pub timeout: Duration,
}

/// One service.
#[derive(Clone, Debug, Default)]
pub struct Component {
    /// Pods to ask for; `None` where an autoscaler has them.
    pub replicas: Option<i32>,
    /// The autoscaler, unless the cluster is suspended.
    pub autoscaler: Option<Autoscaler>,
    /// Resources of a pod.
    pub resources: Resources,
    /// Annotations of the `ServiceAccount`.
    pub service_account: BTreeMap<String, String>,
    /// Settings that the spec names, by variable.
    pub settings: BTreeMap<&'static str, String>,
    /// How long a stopping pod may take to finish what it has begun.
    pub drain: Duration,
    /// Where pods run, and what else they carry.
    pub pod: PodTemplate,
    /// Annotations of the pods that only ask for a restart.
    pub restarts: BTreeMap<String, String>,
}

/// A range in which an autoscaler chooses the number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    /// Fewest pods.
    pub min: i32,
    /// Most pods.
    pub max: i32,
    /// The share of the requested CPU that it aims at, in percent.
    pub target_cpu_utilization: i32,
}

/// The log.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Kind of Kafka.
    pub provider: KafkaProvider,
    /// Brokers to begin with, each `host:port`.
    pub brokers: Vec<String>,
    /// Encryption; without it everything is in the clear.
    pub tls: Option<Tls>,
    /// How to log in.
    pub login: KafkaLogin,
    /// The topics.
    pub topics: Topics,
}

/// Encryption on the way to a backing system.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Who may sign the other side's certificate; the public authorities without it.
    pub authorities: Option<Authorities>,
}

/// Authorities from a Secret.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Name of the Secret; its key is `ca.crt`.
    pub secret: String,
    /// The certificates, as PEM.
    pub pem: String,
}

/// How to log in at Kafka.
#[derive(Clone, Debug)]
pub enum KafkaLogin {
    /// Not at all.
    None,
    /// SCRAM-SHA-512.
    Scram {
        /// Name of the Secret; its keys are `username` and `password`.
        secret: String,
        /// The user.
        user: Secret,
        /// The password.
        password: Secret,
    },
    /// The role that AWS gave to the pods; always with encryption.
    AwsIam,
    /// A certificate.
    Mtls {
        /// Name of the Secret; its keys are `tls.crt` and `tls.key`.
        secret: String,
        /// The certificate and what signed it, as PEM.
        certificate: String,
        /// The key, as PEM.
        key: Secret,
    },
}

/// What the operator does with the topics.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Whether the operator makes and changes them.
    pub management: Management,
    /// What every topic's name begins with.
    pub prefix: String,
    /// What becomes of them with the cluster.
    pub deletion_policy: DeletionPolicy,
    /// What may be taken over.
    pub adoption_policy: AdoptionPolicy,
    /// Copies of each partition of new topics; by the provider without it.
    pub replication_factor: Option<i32>,
    /// The four topics.
    pub wanted: Vec<Topic>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Which of the platform's topics.
    pub role: topics::Topic,
    /// Its whole name.
    pub name: String,
    /// Partitions that it is to have.
    pub partitions: Partitions,
    /// How long records are kept; the brokers' own setting without it.
    pub retention: Option<Duration>,
}

/// The store.
#[derive(Clone, Debug)]
pub struct DynamoDb {
    /// AWS region.
    pub region: String,
    /// Another endpoint than the region's own.
    pub endpoint: Option<String>,
    /// The key to it; without one the role of the `ServiceAccount`.
    pub credentials: Option<Credentials>,
    /// The tables.
    pub tables: Tables,
}

/// A key of AWS.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Name of the Secret; its keys are `access-key-id` and `secret-access-key`.
    pub secret: String,
    /// The id of the key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: Secret,
}

/// What the operator does with the tables.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Whether the operator makes and changes them.
    pub management: Management,
    /// What every table's name begins with.
    pub prefix: String,
    /// What becomes of them with the cluster.
    pub deletion_policy: DeletionPolicy,
    /// What may be taken over.
    pub adoption_policy: AdoptionPolicy,
    /// How reads and writes are paid.
    pub billing: Billing,
    /// Whether tables can be restored to any second of the last 35 days; left alone without it.
    pub point_in_time_recovery: Option<bool>,
    /// Whether the store refuses to delete the tables; left alone without it.
    pub deletion_protection: Option<bool>,
}

/// How reads and writes of the tables are paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// By use.
    OnDemand,
    /// By capacity set aside, in units of each table and index.
    Provisioned {
        /// Read capacity.
        read: i64,
        /// Write capacity.
        write: i64,
    },
}

/// The cache.
#[derive(Clone, Debug)]
pub struct Redis {
    /// The primary, as `host:port`.
    pub endpoint: String,
    /// What every key begins with.
    pub prefix: String,
    /// Encryption; without it everything is in the clear.
    pub tls: Option<Tls>,
    /// How to log in; not at all without it.
    pub login: Option<RedisLogin>,
}

/// How to log in at Redis.
#[derive(Clone, Debug)]
pub struct RedisLogin {
    /// Name of the Secret; its keys are `password` and perhaps `username`.
    pub secret: String,
    /// The user, where Redis has users.
    pub user: Option<Secret>,
    /// The password.
    pub password: Secret,
}

/// Keys, logins and one-time codes.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Name of the Secret.
    pub secret: String,
    /// Id of the key that signs tokens.
    pub signing_key: String,
    /// How one-time codes reach a phone.
    pub sms: SmsProvider,
}
