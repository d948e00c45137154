//! The operator's tests: its pure middle, which needs nothing; the whole of it on a real API server, scenario by scenario; its
//! engines on Kafka, DynamoDB Local and stores that misbehave.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test whose world is not as it must be has failed")]

mod golden;
#[path = "../../../services/adapters/tests/it/ground.rs"]
mod ground;
mod hashes;
mod invariants;
mod leader;
mod ledger;
mod plan;
mod pods;
mod reconcile;
mod refusals;
mod settings;
mod silent_fields;
mod specs;
mod tables;
mod tables_planned;
mod topics;
mod topics_planned;
mod world;
