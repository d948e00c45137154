//! What services need from the outside, a trait a file. `adapters` implements them, `main.rs` joins them.

pub mod auth_limits;
pub mod connection_registry;
pub mod event_publisher;
pub mod membership_directory;
pub mod message_history;
pub mod otp_requests;
pub mod revocations;
pub mod sessions;
pub mod sms;
pub mod users;

pub use auth_limits::AuthLimits;
pub use connection_registry::ConnectionRegistry;
pub use event_publisher::{EventPublisher, Publication, PublishFailure};
pub use membership_directory::MembershipDirectory;
pub use message_history::MessageHistory;
pub use otp_requests::OtpRequests;
pub use revocations::Revocations;
pub use sessions::Sessions;
pub use sms::Sms;
pub use users::Users;
