//! One line of a history: what was asked of the system, or what was seen of it.

use serde::{Deserialize, Serialize};

/// A line. What a line does not say is left out of its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Line {
    /// Microseconds since the run began, by the monotonic clock of one host.
    #[serde(rename = "t")]
    pub at: u64,
    /// Who wrote the line: one driver.
    #[serde(rename = "proc", skip_serializing_if = "String::is_empty")]
    pub process: String,
    /// Which client, service or reader it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// Which connection of the client, from 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// What the line is in its operation.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The operation.
    #[serde(rename = "f")]
    pub what: What,
    /// Whose it is: the client's user, a message's sender, a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// The client's own id of the message, or the digest of a token that was shown.
    #[serde(rename = "ckey", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// A digest of the text.
    #[serde(rename = "body_hash", skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The server's id of the message, or the digest of a token that was given.
    #[serde(rename = "mid", skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Its place in the chat; the head of a chat.
    #[serde(rename = "seq", skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// After which sequence a page was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// What a page holds: sequence, message id, digest of the text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<(u64, String, String)>,
    /// Whether more follows after a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<bool>,
    /// Partition of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// Offset in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Open files of a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Resident memory of a process, in kilobytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// An error code, or the name of a fault.
    #[serde(rename = "err", skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is promised of this run; on its first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// What a line is in its operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It was done, or seen.
    Ok,
    /// It was not done, for sure.
    Fail,
    /// Nobody knows, or a remark.
    #[default]
    Info,
}

/// An operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The first line: `run` says what is promised.
    #[default]
    Run,
    /// A message of the session's user.
    Send,
    /// A message came by push.
    Deliver,
    /// The application saw a message.
    Show,
    /// A page of a chat.
    Sync,
    /// A connection was established.
    Connect,
    /// The client has caught up.
    Ready,
    /// The connection ended.
    Close,
    /// `user` is in `chat`.
    AddMember,
    /// `user` is not in `chat` any more.
    RemoveMember,
    /// A refresh token was shown (`ckey`), and another given (`mid`).
    Refresh,
    /// A fault begins (`invoke`) or has ended (`ok`).
    Fault,
    /// The session, which began with nothing, has read everything after the end.
    Final,
    /// A record of the log.
    Log,
    /// All records of the log were read.
    Dumped,
    /// Where a consumer group stands in a partition.
    Committed,
    /// A stored message.
    Row,
    /// A stored client id.
    Key,
    /// A stored counter.
    Head,
    /// All of the store was read.
    Scanned,
    /// What a process uses.
    Resource,
}

/// What is promised of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What was done to the system.
    pub row: String,
    /// Where its randomness began.
    pub seed: u64,
    /// Whether every message reaches every open connection of its members by push or by its own ack.
    pub pushed: bool,
    /// Milliseconds after ack and heal within which every member's client has a message.
    pub seen_within_ms: u64,
    /// Milliseconds after an ack within which the next one comes, whatever is broken, as long as people write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acks_within_ms: Option<u64>,
    /// Milliseconds after a removal within which a push may still come.
    pub removal_grace_ms: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            row: String::new(),
            seed: 0,
            pushed: false,
            seen_within_ms: 20_000,
            acks_within_ms: None,
            removal_grace_ms: 5_000,
        }
    }
}

/// A digest of a text, short and the same everywhere: FNV-1a over its bytes.
pub fn digest(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_only_what_it_knows_and_is_read_again() {
        let line = Line {
            at: 7,
            session: "ana".to_owned(),
            kind: Kind::Ok,
            what: What::Send,
            client_id: Some("c".to_owned()),
            sequence: Some(3),
            ..Line::default()
        };
        let text = serde_json::to_string(&line).expect("JSON");
        assert_eq!(text, r#"{"t":7,"session":"ana","type":"ok","f":"send","ckey":"c","seq":3}"#);
        assert_eq!(serde_json::from_str::<Line>(&text).expect("a line"), line);
        assert_ne!(digest("a"), digest("b"));
    }
}
