//! What services need from the outside, a trait a file. `adapters` implements them, `main.rs` joins them.

pub mod auth_limits;
pub mod chat_list;
pub mod chats;
pub mod connection_registry;
pub mod delivery_state;
pub mod event_publisher;
pub mod heads;
pub mod incarnations;
pub mod membership_directory;
pub mod message_history;
pub mod message_log;
pub mod otp_requests;
pub mod outbox;
pub mod revocations;
pub mod sessions;
pub mod sms;
pub mod users;

pub use auth_limits::AuthLimits;
pub use chat_list::ChatList;
pub use chats::Chats;
pub use connection_registry::ConnectionRegistry;
pub use delivery_state::DeliveryState;
pub use event_publisher::{EventPublisher, Publication, PublishFailure};
pub use heads::Heads;
pub use incarnations::Incarnations;
pub use membership_directory::MembershipDirectory;
pub use message_history::MessageHistory;
pub use message_log::MessageLog;
pub use otp_requests::OtpRequests;
pub use outbox::Outbox;
pub use revocations::Revocations;
pub use sessions::Sessions;
pub use sms::Sms;
pub use users::Users;
