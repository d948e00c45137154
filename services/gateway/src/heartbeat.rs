//! Answers to heartbeats: they renew the registration, and tell what a client may have missed (D5.5).

use std::{sync::atomic::Ordering, time::Duration};

use proto::messaging::v1::{HeartbeatAck, server_frame::Payload};
use tokio::time::Instant;

use crate::{
    Gateway,
    connections::{Link, register_again},
    receive::Cursor,
    sync::ask_heads,
};

/// How long registry and ingest may hold up the answer to a heartbeat.
const WITHIN: Duration = Duration::from_secs(1);

/// Whether a heartbeat renews the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It does.
    Due,
    /// One has just done so.
    JustDone,
}

/// Answers a heartbeat: with what of the open chats is behind, and whether to sync all.
pub async fn beat(gateway: &Gateway, link: &Link, request_id: &str, open: &[Cursor], renewal: Renewal) {
    let begun = Instant::now();
    let renewed = async {
        if renewal == Renewal::Due {
            renew(gateway, link).await;
        }
    };
    let ((), heads) = tokio::join!(renewed, tokio::time::timeout(WITHIN, ask_heads(gateway, link, open)));
    let heads = heads.ok().and_then(Result::ok).unwrap_or_default().chats;
    let is_behind = |chat_id: &str, sequence: u64| {
        open.iter().any(|cursor| cursor.chat.to_string() == chat_id && cursor.last.0 < sequence)
    };
    let ack = HeartbeatAck {
        server_time: gateway.clock.now().0,
        resync: link.resync.swap(false, Ordering::AcqRel),
        heads: heads.into_iter().filter(|head| is_behind(&head.chat_id, head.current_sequence)).collect(),
    };
    link.answer(gateway, request_id, Payload::HeartbeatAck(ack));
    gateway.metrics.heartbeat_latency.observe(begun.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a queue is far smaller than 2^52 bytes")]
    gateway.metrics.buffer_bytes.observe(link.line.outbound.waiting_bytes() as f64);
}

/// Renews the registration; when it had lapsed, pushes may have been missed (D5.5).
async fn renew(gateway: &Gateway, link: &Link) {
    let now = gateway.clock.now();
    let renewal = gateway.registry.renew(std::slice::from_ref(&link.record), now, gateway.registry_ttl());
    match tokio::time::timeout(WITHIN, renewal).await {
        Ok(Ok(missing)) if missing.is_empty() => {}
        Ok(Ok(_)) => register_again(gateway, link).await,
        Ok(Err(error)) => tracing::debug!(connection.id = %link.record.id, "a registration was not renewed: {error}"),
        Err(_) => tracing::debug!(connection.id = %link.record.id, "a registration was not renewed in time"),
    }
}
