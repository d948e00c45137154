//! Where a cluster keeps its data: Kafka, DynamoDB and Redis, and what the operator may do with topics and tables.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{DURATION, HOST_PORT, NAME};

/// A Secret in the namespace of the `MessagingCluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
}

/// Kafka: where it is, how to log in, and the topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(self.?provider.orValue('Kafka') in ['Msk', 'MskServerless']) || self.?tls.?enabled.orValue(true)",
        "message": "Msk and MskServerless are always encrypted: leave tls out, or set enabled: true",
        "fieldPath": ".tls.enabled",
    },
    {
        "rule": "self.?provider.orValue('Kafka') != 'MskServerless' || self.?authentication.?type.orValue('None') == 'AwsIam'",
        "message": "MskServerless takes type: AwsIam only",
        "fieldPath": ".authentication",
    },
    {
        "rule": "self.?authentication.?type.orValue('None') != 'Mtls' || self.?provider.orValue('Kafka') == 'Msk' || self.?tls.?enabled.orValue(false)",
        "message": "Mtls needs tls with enabled: true",
        "fieldPath": ".tls",
    },
]))]
pub struct Kafka {
    /// Kind of Kafka: decides which settings of topics may be altered and how often new topics are replicated. Kafka when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<KafkaProvider>,

    /// Brokers to begin with, each as host:port.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 3, max = 261), regex(pattern = HOST_PORT)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub bootstrap_servers: Vec<String>,

    /// Encryption on the way to the brokers. Msk and MskServerless use it always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// How to log in. None when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<KafkaAuthentication>,

    /// What the operator does with the topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topics: Option<Topics>,
}

/// Kinds of Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KafkaProvider {
    /// Apache Kafka that somebody runs.
    #[default]
    Kafka,
    /// Amazon MSK with brokers of a chosen size.
    Msk,
    /// Amazon MSK Serverless.
    MskServerless,
    /// Redpanda.
    Redpanda,
}

/// Encryption on the way to a backing system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.enabled || !has(self.caSecretRef)",
    "message": "caSecretRef is of use only with enabled: true",
    "fieldPath": ".caSecretRef",
}]))]
pub struct Tls {
    /// Whether connections are encrypted.
    pub enabled: bool,

    /// Secret whose key ca.crt holds the authorities to trust (PEM). The public ones when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretReference>,
}

/// How to log in at Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(self.type in ['Scram', 'Mtls']) == has(self.secretRef)",
        "message": "secretRef is required with Scram and Mtls, and unused with None and AwsIam",
        "fieldPath": ".secretRef",
    },
]))]
pub struct KafkaAuthentication {
    /// None, Scram (SCRAM-SHA-512), Mtls or AwsIam (by the ServiceAccounts' roles).
    #[serde(rename = "type")]
    pub method: KafkaAuthenticationMethod,

    /// For Scram a Secret with the keys username and password; for Mtls one with tls.crt and tls.key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
}

/// Ways to log in at Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KafkaAuthenticationMethod {
    /// Whoever reaches the brokers may use them.
    #[default]
    None,
    /// Name and password, SCRAM-SHA-512.
    Scram,
    /// A client certificate.
    Mtls,
    /// The AWS role of the ServiceAccount.
    AwsIam,
}

/// What the operator does with the topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topics {
    /// Managed: the operator creates and changes them; External: it looks and reports. Managed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,

    /// What every topic's name begins with. <namespace>.<name>. when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"))]
    pub prefix: Option<String>,

    /// What becomes of the topics when the cluster is deleted. Retain when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Which topics that exist already may be taken over. Never when absent: only its own, of an earlier life of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adoption_policy: Option<AdoptionPolicy>,

    /// Copies of each partition of new topics. By the provider when absent: 3, or what the brokers say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub replication_factor: Option<i32>,

    /// The topic of stored messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Topic>,

    /// The topic of changed memberships.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memberships: Option<Topic>,

    /// The topic of new and changed chats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chats: Option<Topic>,

    /// The topic of records that nobody could read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<Topic>,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    /// Number of partitions; a power of two keeps a chat's records in order while it grows. It may grow, never fall.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub partitions: Option<i32>,

    /// How long records are kept, for example 7d; from 1h to 365d.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub retention: Option<String>,
}

/// Who makes and changes something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Management {
    /// The operator.
    #[default]
    Managed,
    /// Somebody else; the operator looks and reports.
    External,
}

/// What becomes of data when the cluster is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays, and a cluster of the same namespace and name finds it again.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

/// What may be taken over that exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdoptionPolicy {
    /// Only what carries the mark of a cluster of this namespace and name.
    #[default]
    Never,
    /// Also what carries nobody's mark.
    Unowned,
}

/// DynamoDB: where it is, and the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.region == oldSelf.region",
        "message": "the region cannot be changed: the tables would be left behind",
        "fieldPath": ".region",
    },
]))]
pub struct DynamoDb {
    /// AWS region of the tables.
    #[schemars(length(min = 4, max = 32), regex(pattern = r"^[a-z]{2,}(-[a-z]+)+-[0-9]+$"))]
    pub region: String,

    /// Another endpoint than the region's own, as http://host:port, for a store in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 8, max = 270),
        regex(pattern = r"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?/?$")
    )]
    pub endpoint: Option<String>,

    /// Secret with the keys access-key-id and secret-access-key. Without it the ServiceAccounts' own AWS roles are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,

    /// What the operator does with the tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<Tables>,
}

/// What the operator does with the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tables {
    /// Managed: the operator creates and changes them; External: it looks and reports. Managed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,

    /// What every table's name begins with. <namespace>-<name>- when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 120), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$"))]
    pub prefix: Option<String>,

    /// What becomes of the tables when the cluster is deleted. Retain when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Which tables that exist already may be taken over. Never when absent: only its own, of an earlier life of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adoption_policy: Option<AdoptionPolicy>,

    /// How reads and writes are paid. OnDemand when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,

    /// Whether tables can be restored to any second of the last 35 days. No when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_in_time_recovery: Option<bool>,

    /// Whether the store itself refuses to delete the tables. No when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
}

/// How reads and writes of the tables are paid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(self.mode == 'Provisioned') == has(self.readCapacity) && (self.mode == 'Provisioned') == has(self.writeCapacity)",
        "message": "readCapacity and writeCapacity are required with Provisioned, and unused with OnDemand",
        "fieldPath": ".mode",
    },
]))]
pub struct Billing {
    /// OnDemand or Provisioned.
    pub mode: BillingMode,

    /// Read capacity units of each table and index.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 40000))]
    pub read_capacity: Option<i64>,

    /// Write capacity units of each table and index.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 40000))]
    pub write_capacity: Option<i64>,
}

/// Ways of paying for reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BillingMode {
    /// By use.
    #[default]
    OnDemand,
    /// By capacity set aside.
    Provisioned,
}

/// Redis: where it is, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// The primary, as host:port.
    #[schemars(length(min = 3, max = 261), regex(pattern = HOST_PORT))]
    pub endpoint: String,

    /// Encryption on the way to Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// How to log in. Not at all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<RedisAuthentication>,
}

/// How to log in at Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisAuthentication {
    /// Secret with the key password, and username where Redis has users.
    pub secret_ref: SecretReference,
}
