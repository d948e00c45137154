//! chatmgmt over HTTP and gRPC, on the real adapters and embedded systems.

mod chat_world;
mod chats;
mod chats_over_rest;
mod history;
mod login;
mod outbox;
mod refresh;
mod rest;
mod users;
mod world;
