//! What the driver asks the talker, and what it hears.

use serde::{Deserialize, Serialize};

/// Where the talker listens, inside its pod only.
pub(super) const ADDRESS: &str = "127.0.0.1:7000";

/// One line each way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// The one-time code that was sent to a phone.
    Code {
        /// As `+12025550100`.
        phone: String,
        /// Its digits.
        code: String,
    },
    /// A step begins: gaps and counts are those from now on.
    Mark,
    /// How far it is.
    Figures,
    /// Whether all that was acknowledged until now is in history and with both people.
    Verify,
    /// Sends no more, waits for the last acks, then verifies.
    Finish,
}

/// The answer to any question.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Both people are logged in and connected.
    pub(super) is_talking: bool,
    /// Messages acknowledged since the mark.
    pub(super) acknowledged: usize,
    /// Messages acknowledged at all.
    pub(super) in_all: usize,
    /// The longest time that one person was without an ack since the mark, in milliseconds.
    pub(super) longest_gap_ms: u64,
    /// The time since the last ack of the person who waits longest, in milliseconds.
    pub(super) waiting_ms: u64,
    /// Connections that were established at all.
    pub(super) connections: u64,
    /// The chat.
    pub(super) chat: String,
    /// What went against the promises; of `verify` and `finish`.
    pub(super) violations: Vec<String>,
}
