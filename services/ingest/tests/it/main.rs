//! ingest on ports in memory that can cancel, delay and lose answers; and once on the embedded systems.

mod embedded_systems;
mod leases;
mod log;
mod persist;
mod publish;
mod reads;
mod store;
mod world;
