//! The platform from outside: the reference client, the world that tests run in, and the checker.

pub mod bench;
pub mod client;
pub mod collector;
pub mod e2e;
pub mod faults;
pub mod history;
pub mod raw;
pub mod world;
