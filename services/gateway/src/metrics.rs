//! What gateway measures.

use prometheus_client::{
    encoding::{EncodeLabel as _, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use proto::messaging::v1::server_frame::Payload;

use crate::closing::Reason;

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Handshake {
    /// With a connection.
    Accepted,
    /// With 400.
    InvalidRequest,
    /// With 400 for the version.
    UnsupportedVersion,
    /// With 401.
    InvalidToken,
    /// With 401 for a revoked token.
    TokenRevoked,
    /// With 403.
    ForbiddenOrigin,
    /// With 429.
    RateLimited,
    /// With 503.
    ServiceUnavailable,
}

/// What kind of frame came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Received {
    /// `send_message`.
    SendMessage,
    /// `ack`.
    Ack,
    /// `sync_request`.
    SyncRequest,
    /// `sync_heads`.
    SyncHeads,
    /// `heartbeat`.
    Heartbeat,
    /// A type that is not known.
    Unknown,
    /// Nothing that could be read, or with a field that can't be.
    Invalid,
}

impl Received {
    /// Its type, as frames and log lines name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SendMessage => "send_message",
            Self::Ack => "ack",
            Self::SyncRequest => "sync_request",
            Self::SyncHeads => "sync_heads",
            Self::Heartbeat => "heartbeat",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        }
    }
}

/// What kind of frame went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Sent {
    /// `connection_established`.
    ConnectionEstablished,
    /// `connection_closing`.
    ConnectionClosing,
    /// `send_message_ack`.
    SendMessageAck,
    /// `message`.
    Message,
    /// `sync_response`.
    SyncResponse,
    /// `sync_heads_response`.
    SyncHeadsResponse,
    /// `heartbeat_ack`.
    HeartbeatAck,
    /// `chat_created` and its like.
    ChatEvent,
    /// `error`.
    Error,
}

impl Sent {
    /// The kind of a frame.
    pub fn of(payload: &Payload) -> Self {
        match payload {
            Payload::ConnectionEstablished(_) => Self::ConnectionEstablished,
            Payload::ConnectionClosing(_) => Self::ConnectionClosing,
            Payload::SendMessageAck(_) => Self::SendMessageAck,
            Payload::Message(_) => Self::Message,
            Payload::SyncResponse(_) => Self::SyncResponse,
            Payload::SyncHeadsResponse(_) => Self::SyncHeadsResponse,
            Payload::HeartbeatAck(_) => Self::HeartbeatAck,
            Payload::ChatCreated(_) | Payload::ChatUpdated(_) | Payload::MemberAdded(_) | Payload::MemberRemoved(_) => {
                Self::ChatEvent
            }
            Payload::Error(_) => Self::Error,
        }
    }
}

/// How a send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Send {
    /// With an acknowledgement.
    Acknowledged,
    /// Refused before ingest: limits.
    Limited,
    /// Refused by ingest: it is not stored.
    Refused,
    /// Unknown: the same id goes again.
    Unknown,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Push {
    /// It waits for a socket.
    Queued,
    /// It is not above what the connection got already.
    Fenced,
    /// The connection sent it.
    Origin,
    /// There was no room, or the connection is ending.
    Full,
    /// Nobody of that id is here.
    Absent,
}

/// The label of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status<T>(pub T);

impl<T: EncodeLabelValue> EncodeLabelSet for Status<T> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        ("status", Label(&self.0)).encode(encoder.encode_label())
    }
}

/// A label value by reference.
#[derive(Debug)]
struct Label<'a, T>(&'a T);

impl<T: EncodeLabelValue> EncodeLabelValue for Label<'_, T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

type Counts<T> = Family<Status<T>, Counter>;
/// Counters by one label of that name.
type Named<T> = Family<[(&'static str, T); 1], Counter>;

/// What gateway measures.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Open connections.
    pub connections: Gauge,
    /// Connections that this gateway takes.
    pub connections_limit: Gauge,
    /// Attempts, by how they ended.
    handshakes: Counts<Handshake>,
    /// Ended connections, by reason.
    closed: Counts<Reason>,
    /// Frames of clients, by type.
    received: Named<Received>,
    /// Frames for clients, by type.
    sent: Named<Sent>,
    /// The one of them that each delivery counts in: looked up once.
    sent_messages: Counter,
    /// Handshakes refused for what they showed, by why.
    auth_failures: Named<Handshake>,
    /// Connections ended because the client did not read.
    slow_consumers: Counter,
    /// Connections ended because no heartbeat came.
    heartbeat_timeouts: Counter,
    /// From a heartbeat to its answer.
    pub heartbeat_latency: Histogram,
    /// Bytes of pushes that wait for a connection, looked at with each heartbeat.
    pub buffer_bytes: Histogram,
    /// Sends, by how they ended.
    pub sends: Counts<Send>,
    /// From the frame of a send to its acknowledgement.
    pub send_latency: Histogram,
    /// Pushes, by what became of them.
    pub pushes: Counts<Push>,
    /// Handshakes whose token stood in the URL.
    pub query_tokens: Counter,
    /// Acknowledgements of clients that ingest did not take.
    pub lost_acks: Counter,
    /// Breakers to ingest that are open.
    pub breakers_open: Gauge,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let sent = Named::default();
        let metrics = Self {
            connections: Gauge::default(),
            connections_limit: Gauge::default(),
            handshakes: Family::default(),
            closed: Family::default(),
            received: Family::default(),
            sent_messages: sent.get_or_create_owned(&[("type", Sent::Message)]),
            sent,
            auth_failures: Family::default(),
            slow_consumers: Counter::default(),
            heartbeat_timeouts: Counter::default(),
            heartbeat_latency: Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1]),
            buffer_bytes: Histogram::new([1024.0, 10240.0, 102_400.0, 1_048_576.0, 10_485_760.0]),
            sends: Family::default(),
            send_latency: Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
            pushes: Family::default(),
            query_tokens: Counter::default(),
            lost_acks: Counter::default(),
            breakers_open: Gauge::default(),
        };
        let gateway = registry.sub_registry_with_prefix("gateway");
        gateway.register("connections_active", "Open connections", metrics.connections.clone());
        gateway.register("connections_limit", "Connections it takes", metrics.connections_limit.clone());
        gateway.register("connections", "Attempts to connect", metrics.handshakes.clone());
        gateway.register("connections_closed", "Ended connections", metrics.closed.clone());
        gateway.register("messages_received", "Frames of clients", metrics.received.clone());
        gateway.register("messages_sent", "Frames for clients", metrics.sent.clone());
        gateway.register("auth_failures", "Handshakes refused for what they showed", metrics.auth_failures.clone());
        let help = "Connections ended because the client did not read";
        gateway.register("slow_consumer_disconnects", help, metrics.slow_consumers.clone());
        let help = "Connections ended because no heartbeat came";
        gateway.register("heartbeat_timeout", help, metrics.heartbeat_timeouts.clone());
        let help = "From a heartbeat to its answer";
        gateway.register("heartbeat_latency_seconds", help, metrics.heartbeat_latency.clone());
        let help = "Bytes of pushes that wait for a connection, looked at with each heartbeat";
        gateway.register("buffer_size_bytes", help, metrics.buffer_bytes.clone());
        gateway.register("send", "Sends by outcome", metrics.sends.clone());
        gateway.register("send_latency_seconds", "From send to acknowledgement", metrics.send_latency.clone());
        gateway.register("pushes", "Pushes by what became of them", metrics.pushes.clone());
        gateway.register("query_tokens", "Handshakes with the token in the URL", metrics.query_tokens.clone());
        gateway.register("lost_acks", "Acknowledgements that ingest did not take", metrics.lost_acks.clone());
        gateway.register("ingest_breakers_open", "Open breakers to ingest", metrics.breakers_open.clone());
        metrics
    }

    /// A handshake ended.
    pub fn shook(&self, ending: Handshake) {
        count(&self.handshakes, ending);
        if matches!(ending, Handshake::InvalidToken | Handshake::TokenRevoked | Handshake::ForbiddenOrigin) {
            self.auth_failures.get_or_create(&[("reason", ending)]).inc();
        }
    }

    /// A connection ended.
    pub fn ended(&self, reason: Reason) {
        count(&self.closed, reason);
        if reason == Reason::SlowConsumer {
            self.slow_consumers.inc();
        } else if reason == Reason::IdleTimeout {
            self.heartbeat_timeouts.inc();
        }
    }

    /// A frame came.
    pub fn received(&self, kind: Received) {
        self.received.get_or_create(&[("type", kind)]).inc();
    }

    /// A frame goes to a connection.
    pub fn sent(&self, payload: &Payload) {
        let kind = Sent::of(payload);
        if kind == Sent::Message {
            self.sent_messages.inc();
        } else {
            self.sent.get_or_create(&[("type", kind)]).inc();
        }
    }
}

/// Counts one event of a kind.
pub fn count<T>(counts: &Counts<T>, status: T)
where
    T: EncodeLabelValue + Clone + std::fmt::Debug + std::hash::Hash + Eq,
{
    counts.get_or_create(&Status(status)).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_agreed_names() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        count(&metrics.sends, Send::Acknowledged);
        metrics.ended(Reason::SlowConsumer);
        metrics.shook(Handshake::InvalidToken);
        metrics.shook(Handshake::RateLimited);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
        assert!(text.contains("gateway_send_total{status=\"Acknowledged\"} 1"), "{text}");
        assert!(text.contains("gateway_connections_closed_total{status=\"SlowConsumer\"} 1"), "{text}");
        assert!(text.contains("gateway_slow_consumer_disconnects_total 1"), "{text}");
        assert!(text.contains("gateway_heartbeat_timeout_total 0"), "{text}");
        assert!(text.contains("gateway_auth_failures_total{reason=\"InvalidToken\"} 1"), "{text}");
        assert!(!text.contains("reason=\"RateLimited\""), "{text}");
        assert!(text.contains("gateway_connections_active 0"), "{text}");
    }
}
