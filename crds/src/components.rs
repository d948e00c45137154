//! The four services of a cluster: how many, how large, and their settings.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    quantity::Quantity,
    schema::{self, DURATION, NAME},
};

/// One service of the cluster: how many pods, how large, and its settings `S`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.replicas) || !has(self.autoscaling)",
        "message": "set replicas or autoscaling, not both",
        "fieldPath": ".autoscaling",
    },
]))]
pub struct Component<S> {
    /// Number of pods. 2 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,

    /// A range in which an autoscaler chooses the number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// CPU and memory of each pod. Requests of 25m and 64Mi, no limit of CPU, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// The ServiceAccount of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,

    /// Settings of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<S>,

    /// Where pods run, and what else they carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// A range in which an autoscaler chooses the number of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.min <= self.max", "message": "min must not be above max", "fieldPath": ".min" },
]))]
pub struct Autoscaling {
    /// Fewest pods.
    #[schemars(range(min = 1, max = 1000))]
    pub min: i32,

    /// Most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,

    /// The share of the requested CPU that the autoscaler aims at, in percent. 70 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu_utilization: Option<i32>,
}

/// CPU and memory of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Amounts>,

    /// What is never passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Amounts>,
}

/// Amounts of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// Cores, for example 1 or 250m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,

    /// Bytes, for example 512Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// The ServiceAccount of a service's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// Annotations, for example the role of AWS that the pods take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = schema::annotation_value(), "x-kubernetes-validations" = schema::keys()))]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Where pods run, and what else they carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels added to the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = schema::label_value(), "x-kubernetes-validations" = schema::keys()))]
    pub labels: Option<BTreeMap<String, String>>,

    /// Annotations added to the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = schema::annotation_value(), "x-kubernetes-validations" = schema::keys()))]
    pub annotations: Option<BTreeMap<String, String>>,

    /// Labels that a node must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = schema::label_value(), "x-kubernetes-validations" = schema::node_keys()))]
    pub node_selector: Option<BTreeMap<String, String>>,

    /// Taints that the pods bear.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Option<Vec<Toleration>>,

    /// How pods of the service are spread. Over nodes where possible when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["topologyKey", "whenUnsatisfiable"])
    )]
    pub topology_spread_constraints: Option<Vec<TopologySpread>>,

    /// Priority class of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub priority_class_name: Option<String>,
}

/// A taint that pods bear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "message": "tolerationSeconds is of use only with effect: NoExecute",
        "fieldPath": ".tolerationSeconds",
    },
    {
        "rule": "has(self.operator) && self.operator == 'Exists' ? !has(self.value) : has(self.key)",
        "message": "with operator Exists there is no value; otherwise a key is required",
        "fieldPath": ".operator",
    },
]))]
pub struct Toleration {
    /// Key of the taint. Every taint when absent, with operator Exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub key: Option<String>,

    /// Equal or Exists. Equal when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,

    /// Value of the taint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,

    /// Effect of the taint. Every effect when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,

    /// Seconds that a pod stays after the taint came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Key and value are equal.
    Equal,
    /// The key is there.
    Exists,
}

/// Effects of a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away where possible.
    PreferNoSchedule,
    /// Running pods leave.
    NoExecute,
}

/// How pods of a service are spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// How far the numbers of pods in two places may differ.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,

    /// Label of nodes that names the place, for example topology.kubernetes.io/zone.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,

    /// What happens when a pod fits nowhere.
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// What happens to a pod that would break a spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// It waits.
    DoNotSchedule,
    /// It runs all the same.
    ScheduleAnyway,
}

/// Settings of gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySettings {
    /// Connections of one pod. 100000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_pod: Option<i32>,

    /// Connections of one user. 5 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub connections_per_user: Option<i32>,

    /// New connections of one user in ten seconds. 5 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub new_connections_per_user: Option<i32>,

    /// Age at which a connection is asked to come anew, from 1m to 7d. 24h when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub connection_age: Option<String>,

    /// Time between heartbeats, from 1s to 5m. 30s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub heartbeat_interval: Option<String>,

    /// Messages waiting for one connection before it counts as slow. 1000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 100_000))]
    pub outbound_queue: Option<i32>,

    /// Messages a user may send to one chat in a second. 10 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub send_rate: Option<i32>,

    /// Messages a user may send to one chat at once. 20 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub send_burst: Option<i32>,

    /// Messages a user may send in an hour. 1000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub send_per_hour: Option<i32>,

    /// Origins of web pages that may connect besides those of the gateway's own host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 8, max = 270), regex(pattern = r"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_origins: Option<Vec<String>>,

    /// How long a stopping pod may take to finish what it has begun, from 1s to 10m. 20s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub drain: Option<String>,
}

/// Settings of ingest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestSettings {
    /// Messages stored in one transaction. 33 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 33))]
    pub batch_messages: Option<i32>,

    /// Messages waiting in one chat. 1000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub chat_queue: Option<i32>,

    /// Messages waiting in one pod. 20000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub total_queue: Option<i32>,

    /// Longest wait of a message for its place, from 100ms to 1m. 5s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub persist_deadline: Option<String>,

    /// Calls of the store in flight. 256 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub store_calls: Option<i32>,

    /// How long a stopping pod may take to finish what it has begun, from 1s to 10m. 20s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub drain: Option<String>,
}

/// Settings of fanout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FanoutSettings {
    /// Deliveries in flight to one gateway. 1024 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub deliveries_in_flight: Option<i32>,

    /// How long the members of a chat are remembered, from 1s to 1h. 5m when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub membership_ttl: Option<String>,

    /// How long a hole in a chat is waited for before it is read from the store, from 100ms to 1m. 2s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub hole_timeout: Option<String>,

    /// How long a stopping pod may take to finish what it has begun, from 1s to 10m. 20s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub drain: Option<String>,
}

/// Settings of chatmgmt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatMgmtSettings {
    /// Lifetime of an access token, from 1m to 24h. 60m when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub access_token_lifetime: Option<String>,

    /// Lifetime of a login that isn't used, from 1h to 365d. 30d when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub session_lifetime: Option<String>,

    /// Lifetime of a one-time code, from 30s to 1h. 5m when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub code_lifetime: Option<String>,

    /// One-time codes for one phone in 15 minutes. 3 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub codes_per_phone: Option<i32>,

    /// One-time codes for one address of the network in 15 minutes. 10 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub codes_per_address: Option<i32>,

    /// Members of a group. 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1000))]
    pub group_members: Option<i32>,

    /// Proxies before the pods that append to X-Forwarded-For. 1 with a route, else 0, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub trusted_proxy_hops: Option<i32>,

    /// How long a stopping pod may take to finish what it has begun, from 1s to 10m. 20s when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub drain: Option<String>,
}
