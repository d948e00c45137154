//! What each port promises, proved on the real systems that `embedded` starts.

mod chat_list;
mod chats;
mod connection_registry;
pub(crate) mod delivery_state;
mod event_publisher;
mod event_source;
pub(crate) mod heads;
pub(crate) mod incarnations;
mod membership_cache;
pub(crate) mod membership_directory;
pub(crate) mod message_history;
pub(crate) mod message_log;
mod outbox;
mod revocations;
mod store;
mod world;

pub(crate) use world::World;
