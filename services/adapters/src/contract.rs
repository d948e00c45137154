//! What each port promises, proved on the real systems that `embedded` starts.

mod chat_list;
mod chats;
pub(crate) mod delivery_state;
mod event_publisher;
pub(crate) mod heads;
pub(crate) mod incarnations;
pub(crate) mod membership_directory;
pub(crate) mod message_history;
pub(crate) mod message_log;
mod outbox;
mod revocations;
mod store;
mod world;

pub(crate) use world::World;
