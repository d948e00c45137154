//! fanout: takes events from the log and brings them to the gateways of everybody they concern.

mod attempt;
pub mod config;
pub mod consume;
pub mod gateways;
pub mod members;
pub mod metrics;
mod passed_on;
mod read;
pub mod route;
pub mod wire_up;
