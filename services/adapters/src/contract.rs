//! What each port promises, proved on the systems that `embedded` starts, and on Apache Kafka and DynamoDB Local.

/// Where a suite runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    /// What `embedded` starts.
    Embedded,
    /// Apache Kafka, DynamoDB Local.
    Real,
}

/// Makes each of these functions a test on every store.
macro_rules! on_every_store {
    ($($name:ident),+ $(,)?) => {
        mod on_the_embedded_store {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name(crate::contract::On::Embedded)).await;
            })+
        }
        mod on_dynamodb_local {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name(crate::contract::On::Real)).await;
            })+
        }
    };
}

/// Makes each of these functions a test on every log.
macro_rules! on_every_log {
    ($($name:ident),+ $(,)?) => {
        mod on_the_embedded_log {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name(crate::contract::On::Embedded)).await;
            })+
        }
        mod on_kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name(crate::contract::On::Real)).await;
            })+
        }
    };
}

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

pub(crate) use world::World;
