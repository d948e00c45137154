//! chatmgmt on the embedded store.

mod chats;
mod history;
mod outbox;
mod world;
