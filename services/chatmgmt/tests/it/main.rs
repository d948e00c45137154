//! chatmgmt over HTTP, on the real adapters and embedded systems.

mod login;
mod refresh;
mod rest;
mod users;
mod world;
