//! `MessagingCluster`: what a team asks for.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    backends::{DynamoDb, Kafka, Redis, SecretReference},
    components::{ChatMgmtSettings, Component, FanoutSettings, GatewaySettings, IngestSettings},
    routing::Routing,
    schema::DURATION,
    status::MessagingClusterStatus,
};

/// What a team asks for.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "messaging.dev",
    version = "v1alpha1",
    kind = "MessagingCluster",
    doc = "A realtime messaging platform: four services, their Kafka topics and their DynamoDB tables.",
    namespaced,
    derive = "PartialEq",
    shortname = "msgc",
    category = "messaging",
    status = "MessagingClusterStatus",
    selectable = ".spec.version",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Gateway", type_ = "string", json_path = r#".status.components[?(@.name=="gateway")].pods"#),
    printcolumn(name = "Ingest", type_ = "string", json_path = r#".status.components[?(@.name=="ingest")].pods"#),
    printcolumn(name = "Fanout", type_ = "string", json_path = r#".status.components[?(@.name=="fanout")].pods"#),
    printcolumn(name = "Chatmgmt", type_ = "string", json_path = r#".status.components[?(@.name=="chatmgmt")].pods"#),
    printcolumn(name = "Topics", type_ = "string", json_path = ".status.topicsSynced"),
    printcolumn(name = "Tables", type_ = "string", json_path = ".status.tablesSynced"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(
        name = "Paused",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Paused")].status"#,
        priority = 1
    ),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label of at most 40 characters that begins with a letter: the names of Services are made of it")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct MessagingClusterSpec {
    /// Version of the platform, which is the tag of the images.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+([-.][0-9A-Za-z]+)*$"))]
    pub version: String,

    /// Where the images come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,

    /// The host that clients know: /v1/ws leads to gateway, /api to chatmgmt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$")
    )]
    pub domain: Option<String>,

    /// How clients reach the cluster from outside. Not at all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,

    /// The log.
    pub kafka: Kafka,

    /// The store.
    pub dynamodb: DynamoDb,

    /// The cache.
    pub redis: Redis,

    /// Keys, logins and one-time codes.
    pub auth: Auth,

    /// The service that holds the connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Component<GatewaySettings>>,

    /// The service that stores messages and gives them their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest: Option<Component<IngestSettings>>,

    /// The service that finds who is to see a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fanout: Option<Component<FanoutSettings>>,

    /// The service of logins, chats and history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chatmgmt: Option<Component<ChatMgmtSettings>>,

    /// Logs and metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observability: Option<Observability>,

    /// How a change is rolled out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,

    /// Leave everything as it is: the operator looks and reports, and changes nothing. No when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,

    /// Run no pods, keep all else. No when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Apply, or Plan: look, write status.plan, change nothing. Apply when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

fn rules() -> Value {
    // Each absent field counts with its default: 64 partitions, 2 pods.
    let partitions = "(has(self.kafka.topics) && has(self.kafka.topics.messages) && has(self.kafka.topics.messages.partitions) \
                      ? self.kafka.topics.messages.partitions : 64)";
    json!([
        {
            "rule": format!("!has(self.fanout) || !has(self.fanout.replicas) || self.fanout.replicas <= {partitions}"),
            "message": "fanout.replicas must not be above kafka.topics.messages.partitions: pods beyond it would be idle",
            "fieldPath": ".fanout.replicas",
        },
        {
            "rule": format!("!has(self.fanout) || !has(self.fanout.autoscaling) || self.fanout.autoscaling.max <= {partitions}"),
            "message": "fanout.autoscaling.max must not be above kafka.topics.messages.partitions: pods beyond it would be idle",
            "fieldPath": ".fanout.autoscaling.max",
        },
        {
            "rule": "!has(self.routing) || self.routing.type == 'None' || has(self.domain)",
            "message": "a route needs a domain",
            "fieldPath": ".domain",
        },
        {
            "rule": "has(self.kafka.topics) && has(self.kafka.topics.prefix) \
                     ? has(oldSelf.kafka.topics) && has(oldSelf.kafka.topics.prefix) \
                     : !(has(oldSelf.kafka.topics) && has(oldSelf.kafka.topics.prefix))",
            "message": "the prefix of topics cannot be changed: the records would be left behind",
            "fieldPath": ".kafka.topics",
        },
        {
            "rule": "has(self.dynamodb.tables) && has(self.dynamodb.tables.prefix) \
                     ? has(oldSelf.dynamodb.tables) && has(oldSelf.dynamodb.tables.prefix) \
                     : !(has(oldSelf.dynamodb.tables) && has(oldSelf.dynamodb.tables.prefix))",
            "message": "the prefix of tables cannot be changed: the data would be left behind",
            "fieldPath": ".dynamodb.tables",
        },
        {
            "rule": "has(oldSelf.kafka.topics) && has(oldSelf.kafka.topics.messages) && has(oldSelf.kafka.topics.messages.partitions) \
                     ? has(self.kafka.topics) : true",
            "message": "partitions never fall: a topic can't give partitions back",
            "fieldPath": ".kafka.topics",
        },
    ])
}

/// Where the images come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Registry and folder; the image of a service is <registry>/<service>:<version>. The operator's own setting when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([-._a-z0-9]*[a-z0-9])?)*$")
    )]
    pub registry: Option<String>,

    /// When images are pulled. IfNotPresent when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,

    /// Secrets that open the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pull_secrets: Option<Vec<SecretReference>>,
}

/// When images are pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// When the node has none.
    #[default]
    IfNotPresent,
    /// At every start.
    Always,
    /// Never: somebody else brings them to the nodes.
    Never,
}

/// Keys, logins and one-time codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Secret with jwks.json, <key id>.pem, otp-pepper, otp-key, refresh-key and internal-token.
    pub secret_ref: SecretReference,

    /// Id of the key that signs tokens. The last <key id>.pem by name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"))]
    pub signing_key: Option<String>,

    /// How one-time codes reach a phone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sms: Option<Sms>,
}

/// How one-time codes reach a phone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sms {
    /// Log: a line in the log of chatmgmt, for development.
    pub provider: SmsProvider,
}

/// Ways of a one-time code to a phone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SmsProvider {
    /// A line in the log of chatmgmt.
    #[default]
    Log,
}

/// Logs and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observability {
    /// Whether ServiceMonitors are made. Where the cluster knows their kind when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_monitor: Option<bool>,

    /// What the services log. Info when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

/// What the services log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures.
    Error,
    /// And what may become one.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And how.
    Debug,
    /// And each step.
    Trace,
}

/// How a change is rolled out: chatmgmt, ingest, fanout, gateway, each when the one before has finished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// Pods of a service that may be missing while it is rolled out. 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_unavailable: Option<i32>,

    /// How long the rollout of one service may make no progress, from 1m to 24h, before it counts as stuck. 15m when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = DURATION))]
    pub timeout: Option<String>,
}

/// Whether the operator acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// It makes what is asked for.
    #[default]
    Apply,
    /// It writes into status.plan what it would change.
    Plan,
}
