//! The operator on a real API server, scenario by scenario.

mod leader;
mod reconcile;
mod world;
