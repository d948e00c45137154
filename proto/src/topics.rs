//! Kafka: topic names and what a topic keeps, partition of a chat, header names.

use std::time::Duration;

/// Virtual buckets between a chat and its partition; fixed for ever (events-kafka §3).
pub const BUCKETS: u32 = 4096;

/// The topics of a cluster, by role; the name on the broker has the cluster's prefix before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// One record a stored message.
    MessagesPersisted,
    /// One record a membership change.
    MembershipsChanged,
    /// New and renamed chats.
    ChatsCreated,
    /// Records nobody could read.
    DeadLetters,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 4] =
        [Self::MessagesPersisted, Self::MembershipsChanged, Self::ChatsCreated, Self::DeadLetters];

    /// The name without the cluster's prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessagesPersisted => "messages.persisted",
            Self::MembershipsChanged => "memberships.changed",
            Self::ChatsCreated => "chats.created",
            Self::DeadLetters => "dead_letters",
        }
    }

    /// Partitions of a production cluster (events-kafka §2).
    pub fn default_partitions(self) -> u32 {
        match self {
            Self::MessagesPersisted => 64,
            Self::MembershipsChanged | Self::ChatsCreated => 16,
            Self::DeadLetters => 8,
        }
    }

    /// How long records are kept unless somebody says otherwise (events-kafka §2).
    pub fn default_retention(self) -> Duration {
        const DAY: Duration = Duration::from_hours(24);
        match self {
            Self::MessagesPersisted | Self::MembershipsChanged | Self::ChatsCreated => 7 * DAY,
            Self::DeadLetters => 30 * DAY,
        }
    }

    /// Bytes of records that each partition keeps, whatever their age (events-kafka §2).
    pub fn retention_bytes(self) -> u64 {
        const GIBIBYTE: u64 = 1 << 30;
        match self {
            Self::MessagesPersisted => 100 * GIBIBYTE,
            Self::MembershipsChanged | Self::ChatsCreated => 10 * GIBIBYTE,
            Self::DeadLetters => 50 * GIBIBYTE,
        }
    }
}

/// Names of the record headers (D2.5).
pub mod header {
    /// W3C trace context of the request that caused the record.
    pub const TRACEPARENT: &str = "traceparent";
    /// Equals `Envelope.event_type`.
    pub const EVENT_TYPE: &str = "event-type";
    /// Equals `Envelope.event_version`, in decimal.
    pub const EVENT_VERSION: &str = "event-version";
    /// The connection that sent the message.
    pub const ORIGIN_CONNECTION: &str = "origin-connection";
}

/// The partition of a chat on a topic with that many partitions.
///
/// Equals the Java client's murmur2 partitioner wherever `partitions` divides [`BUCKETS`].
/// `partitions` must not be 0.
pub fn partition_for(chat_id: &str, partitions: u32) -> u32 {
    ((murmur2(chat_id.as_bytes()) & 0x7fff_ffff) % BUCKETS) % partitions
}

/// 32-bit murmur2 as Kafka's Java client computes it.
pub fn murmur2(key: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;

    // Kafka keys are far below 4 GiB; the reference implementation wraps the length alike.
    let mut hash = SEED ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_equals_the_java_client() {
        let cases: [(&str, i32); 9] = [
            ("", 275_646_681),
            ("a", -1_563_381_124),
            ("21", -973_932_308),
            ("abc", 479_470_107),
            ("abcd", -1_323_649_548),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (key, signed) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), signed, "{key:?}");
        }
    }

    #[test]
    fn chats_have_their_agreed_partitions() {
        let long = format!("chat_{}", "x".repeat(1000));
        let cases: [(&str, [u32; 5]); 11] = [
            ("chat_abc123", [2134, 22, 86, 6, 6]),
            ("chat_xyz789", [490, 42, 106, 10, 2]),
            ("chat_000001", [2285, 45, 109, 13, 5]),
            ("chat_测试", [1567, 31, 31, 15, 7]),
            ("", [2265, 25, 89, 9, 1]),
            ("a", [636, 60, 124, 12, 4]),
            (&long, [1312, 32, 32, 0, 0]),
            ("chat_🎉🎊", [301, 45, 45, 13, 5]),
            ("chat_01HQX7Z9Y8K4M3N2P1Q0R5S6T7", [2837, 21, 21, 5, 5]),
            ("550e8400-e29b-41d4-a716-446655440000", [2559, 63, 127, 15, 7]),
            ("abcde", [3805, 29, 93, 13, 5]),
        ];
        for (chat, expected) in cases {
            assert_eq!([BUCKETS, 64, 128, 16, 8].map(|count| partition_for(chat, count)), expected, "{chat:?}");
        }
    }
}
