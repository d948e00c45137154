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

/// The topics as the spec names them, and the partitions of each where the spec says nothing.
const PARTITIONS: [(&str, u32); 4] = [("messages", 64), ("memberships", 16), ("chats", 16), ("deadLetters", 8)];

fn rules() -> Value {
    // Each absent field counts with its default, or leaving it out would be a way around a rule.
    let partitions =
        |spec: &str, topic: &str, default: u32| format!("{spec}.kafka.?topics.?{topic}.?partitions.orValue({default})");
    // Texts are compared where they lie: of the value of an optional the API server assumes any length, and refuses the cost.
    let same = |parent: &str| {
        let has = |spec: &str| format!("has({spec}.{parent}) && has({spec}.{parent}.prefix)");
        let (new, old) = (has("self"), has("oldSelf"));
        format!("{new} ? {old} && self.{parent}.prefix == oldSelf.{parent}.prefix : !({old})")
    };
    let [(messages, default), ..] = PARTITIONS;
    let consumed = partitions("self", messages, default);
    let mut rules = vec![
        json!({
            "rule": format!("self.?fanout.?replicas.orValue(0) <= {consumed}"),
            "message": "fanout.replicas must not be above kafka.topics.messages.partitions: pods beyond it would be idle",
            "fieldPath": ".fanout.replicas",
        }),
        json!({
            "rule": format!("self.?fanout.?autoscaling.?max.orValue(0) <= {consumed}"),
            "message": "fanout.autoscaling.max must not be above kafka.topics.messages.partitions: pods beyond it would be idle",
            "fieldPath": ".fanout.autoscaling.max",
        }),
        json!({
            "rule": "!has(self.routing) || self.routing.type == 'None' || has(self.domain)",
            "message": "a route needs a domain",
            "fieldPath": ".domain",
        }),
        json!({
            "rule": same("kafka.topics"),
            "message": "the prefix of topics cannot be changed: the records would be left behind",
            "fieldPath": ".kafka.topics.prefix",
        }),
        json!({
            "rule": same("dynamodb.tables"),
            "message": "the prefix of tables cannot be changed: the data would be left behind",
            "fieldPath": ".dynamodb.tables.prefix",
        }),
    ];
    for (topic, default) in PARTITIONS {
        rules.push(json!({
            "rule": format!("{} >= {}", partitions("self", topic, default), partitions("oldSelf", topic, default)),
            "message": format!("partitions never fall: a topic can't give partitions back ({default} when absent)"),
            "fieldPath": format!(".kafka.topics.{topic}.partitions"),
        }));
    }
    Value::Array(rules)
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

    /// Where the services send their traces. They keep none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Otlp>,
}

/// A collector of traces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Otlp {
    /// Its address for OTLP over gRPC, as http://host:4317, or https:// with a certificate that the public trusts.
    #[schemars(
        length(min = 8, max = 270),
        regex(pattern = r"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?/?$")
    )]
    pub endpoint: String,

    /// Traces a minute that each gateway begins and keeps, of the many that there may be. 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub traces_per_minute: Option<i32>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_partitions_count_as_the_topics_default() {
        use proto::topics::Topic;
        let topics = [Topic::MessagesPersisted, Topic::MembershipsChanged, Topic::ChatsCreated, Topic::DeadLetters];
        for (topic, (name, partitions)) in topics.into_iter().zip(PARTITIONS) {
            assert_eq!(topic.default_partitions(), partitions, "{name}");
        }
    }
}
