//! What each port promises, proved on the systems that `embedded` starts, and on Apache Kafka and DynamoDB Local.

mod auth_limits;
mod chat_list;
mod chats;
mod connection_registry;
pub(crate) mod delivery_state;
mod event_publisher;
mod event_source;
#[path = "../tests/it/ground.rs"]
mod ground;
pub(crate) mod heads;
pub(crate) mod incarnations;
mod membership_cache;
pub(crate) mod membership_directory;
pub(crate) mod message_history;
pub(crate) mod message_log;
pub(crate) mod otp_requests;
mod outbox;
mod revocations;
mod sessions;
mod store;
mod users;
mod world;

pub(crate) use crate::on::On;
pub(crate) use world::World;
