//! The backing systems in one process, each a real server on loopback that services know by its address only (D8).
//!
//! A store (DynamoDB's protocol on a SQLite file), a log (Kafka's protocol, in memory), a cache (a
//! `redis-server` child). What must survive lies in one locked [`DataFolder`].

mod cache;
mod folder;
mod log;
mod record;
mod store;

pub use cache::Cache;
pub use folder::DataFolder;
pub use log::Log;
pub use store::Store;
