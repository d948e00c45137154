//! Settings of the operator.

use std::time::Duration;

use clap::{Args, Parser};

/// Settings of the operator's process.
#[derive(Clone, Debug, Parser)]
#[command(name = "operator", version, about = "Makes running platforms of MessagingClusters, and keeps them so")]
pub struct Config {
    /// The platform's part.
    #[command(flatten)]
    pub platform: platform::Config,

    /// The operator's own part.
    #[command(flatten)]
    pub settings: Settings,
}

impl platform::Settings for Config {
    fn platform(&self) -> &platform::Config {
        &self.platform
    }
}

/// The operator's own settings.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Settings {
    /// Namespaces whose clusters are this operator's; every namespace when empty
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Registry of the images of clusters that name none
    #[arg(long, env = "IMAGE_REGISTRY", default_value = "messaging.dev")]
    pub image_registry: String,

    /// Name of this pod, which holds the Lease
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,

    /// Namespace of this pod, where the Lease is
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,

    /// Name of the Lease; operators of different namespaces side by side need different ones
    #[arg(long, env = "LEASE_NAME", default_value = "messaging-operator")]
    pub lease_name: String,

    /// Domain of the Kubernetes cluster, in which Services have their names
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Clusters that are worked on at a time
    #[arg(long, env = "CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// How long one pass over a cluster may take
    #[arg(long, env = "RECONCILE_TIMEOUT", default_value = "120s", value_parser = humantime::parse_duration)]
    pub reconcile_timeout: Duration,

    /// Time between looks at a cluster that nothing changed in; secrets are read that often
    #[arg(long, env = "RESYNC", default_value = "30s", value_parser = humantime::parse_duration)]
    pub resync: Duration,

    /// Time between looks at topics that are in sync
    #[arg(long, env = "TOPICS_RESYNC", default_value = "2m", value_parser = humantime::parse_duration)]
    pub topics_resync: Duration,

    /// Time between looks at tables that are in sync
    #[arg(long, env = "TABLES_RESYNC", default_value = "5m", value_parser = humantime::parse_duration)]
    pub tables_resync: Duration,

    /// How long a deletion waits for Kafka or DynamoDB before it lets go of what it can't reach
    #[arg(long, env = "DELETION_TIMEOUT", default_value = "10m", value_parser = humantime::parse_duration)]
    pub deletion_timeout: Duration,
}
