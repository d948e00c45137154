//! Words and rules of the platform: no I/O, no async runtime.

#![deny(missing_docs)]

pub mod chat;
pub mod clock;
pub mod error;
pub mod event;
pub mod ids;
pub mod limits;
pub mod membership;
pub mod message;
pub mod ports;
pub mod publisher;
pub mod route;
pub mod session;
pub mod user;

pub use clock::{Clock, Ids, Millis};
pub use error::{Error, ErrorKind};
