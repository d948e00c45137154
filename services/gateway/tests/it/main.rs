//! gateway from outside: real sockets, a real gRPC server in the place of ingest, ports in memory.

mod closings;
mod deliveries;
mod handshakes;
mod requests;
mod world;
