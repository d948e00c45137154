//! The operator: from one `MessagingCluster` to a running platform, and keeping it so.

pub mod backends;
pub mod client;
pub mod cluster;
pub mod config;
pub mod crd;
pub mod engine;
pub mod events;
pub mod kinds;
pub mod lease;
pub mod ledger;
pub mod metrics;
pub mod plan_command;
pub mod run;
pub mod tables;
pub mod topics;
pub mod watch;
