//! fanout on ports in memory and real delivery streams; and once on the embedded systems.

mod embedded_systems;
mod gateway;
mod order;
mod trouble;
mod world;
