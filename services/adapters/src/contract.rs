//! What each port promises, proved on the real systems that `embedded` starts.

mod chat_list;
mod chats;
mod event_publisher;
mod outbox;
mod store;
