//! The operator: from one `MessagingCluster` to a running platform, and keeping it so.

pub mod cluster;
