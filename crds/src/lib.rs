//! The API that users write YAML against: `MessagingCluster`, its status, and the rules of the schema.

#![expect(clippy::doc_markdown, reason = "the docs become `kubectl explain`, which shows backticks as they are")]

pub mod backends;
pub mod components;
pub mod conditions;
pub mod messaging_cluster;
pub mod quantity;
pub mod routing;
pub mod schema;
pub mod status;
pub mod values;

pub use messaging_cluster::{MessagingCluster, MessagingClusterSpec};
pub use schema::crd;
pub use status::MessagingClusterStatus;

/// The finalizer of a cluster whose external resources are to be deleted with it.
pub const FINALIZER: &str = "messaging.dev/finalizer";

/// The annotation that tells a schema's hash, so that the operator sees a definition that is not its own.
pub const SCHEMA_HASH: &str = "messaging.dev/schema-hash";
