//! gateway from outside: real sockets, a real gRPC server in the place of ingest, ports in memory.

#![expect(clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test that sees another frame has failed")]

mod closings;
mod deliveries;
mod handshakes;
mod hostile;
mod ingest;
mod limits;
mod memory;
mod published;
mod real;
mod requests;
mod routing;
mod traces;
mod world;
