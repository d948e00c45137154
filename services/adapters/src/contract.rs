//! What each port promises, proved on the real systems that `embedded` starts.

mod event_publisher;
mod event_source;
mod membership_cache;
mod connection_registry;
mod revocations;
