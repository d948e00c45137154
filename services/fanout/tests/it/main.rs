//! fanout on ports in memory and real delivery streams; and on embedded and real systems.

#[macro_use]
#[path = "../../../adapters/tests/it/on.rs"]
mod on;

mod contract;
mod gateway;
#[path = "../../../adapters/tests/it/ground.rs"]
mod ground;
mod group;
mod order;
mod systems;
mod trouble;
mod whatever;
mod world;
