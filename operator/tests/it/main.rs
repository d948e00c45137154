//! The operator on a real API server, scenario by scenario; its engines on Kafka, DynamoDB Local and stores that misbehave.

#[path = "../../../services/adapters/tests/it/ground.rs"]
mod ground;
mod leader;
mod ledger;
mod reconcile;
mod tables;
mod tables_planned;
mod topics;
mod topics_planned;
mod world;
