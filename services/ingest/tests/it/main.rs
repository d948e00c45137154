//! ingest on ports in memory that can cancel, delay and lose answers; and on embedded and real systems.

#[macro_use]
#[path = "../../../adapters/tests/it/on.rs"]
mod on;

mod contract;
#[path = "../../../adapters/tests/it/ground.rs"]
mod ground;
mod leases;
mod log;
mod model;
mod persist;
mod publish;
mod reads;
mod starts;
mod store;
mod systems;
mod world;
