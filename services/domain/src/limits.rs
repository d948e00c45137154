//! Numbers of the contract. Those an operator may change are settings with these as defaults.

use std::time::Duration;

/// Bytes of a message's text.
pub const CONTENT_BYTES: usize = 4096;
/// Characters of a text that a chat list shows.
pub const PREVIEW_CHARS: usize = 100;
/// Bytes of a WebSocket frame.
pub const FRAME_BYTES: usize = 65_536;
/// Bytes of a REST body.
pub const BODY_BYTES: usize = 65_536;
/// The highest number JSON carries exactly, and so the highest sequence.
pub const MAX_SEQUENCE: u64 = (1 << 53) - 1;
/// Characters of a `request_id`.
pub const REQUEST_ID_CHARS: usize = 36;
/// Messages of one transaction: with distinct senders 1 + 3k items stay within 100 (D3.2).
pub const BATCH_MESSAGES: usize = 33;
/// Messages of one call from gateway to ingest (ADR 0018).
pub const CALL_MESSAGES: usize = 64;
/// How long a client message id is remembered (data-model §3.9).
pub const IDEMPOTENCY_TTL: Duration = Duration::from_hours(7 * 24);
/// Items of a sync page: default and maximum.
pub const SYNC_PAGE: (u32, u32) = (100, 500);
/// Bytes of a sync page (D5.6).
pub const SYNC_PAGE_BYTES: usize = 256 * 1024;
/// Chats of one `sync_heads` (D5.2).
pub const HEADS_CHATS: usize = 50;
/// Chats of one `heartbeat.open_chats` (D5.5).
pub const OPEN_CHATS: usize = 20;
/// Members of a group, the owner included.
pub const GROUP_MEMBERS: u32 = 100;
/// Characters of a chat's name.
pub const CHAT_NAME_CHARS: usize = 128;
/// Characters of a display name.
pub const DISPLAY_NAME_CHARS: usize = 64;
/// Phone numbers of one lookup.
pub const LOOKUP_PHONES: usize = 100;
