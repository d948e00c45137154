//! What each port promises, proved on the real systems that `embedded` starts.

pub(crate) mod delivery_state;
mod event_publisher;
mod event_source;
mod membership_cache;
mod connection_registry;
mod revocations;
pub(crate) mod heads;
pub(crate) mod incarnations;
pub(crate) mod membership_directory;
pub(crate) mod message_history;
pub(crate) mod message_log;
mod world;
pub(crate) use world::World;
