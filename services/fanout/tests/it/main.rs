//! fanout on ports in memory and real delivery streams.

mod gateway;
mod order;
mod trouble;
mod world;
