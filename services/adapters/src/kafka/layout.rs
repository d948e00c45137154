//! The settings of the topics at brokers: written once, used by whoever makes or checks topics (events-kafka §2).

use std::{collections::BTreeMap, time::Duration};

use proto::topics::Topic;

/// Which records a topic forgets.
pub const CLEANUP_POLICY: &str = "cleanup.policy";
/// How brokers compress.
pub const COMPRESSION_TYPE: &str = "compression.type";
/// Which time a record has.
pub const TIMESTAMP_TYPE: &str = "message.timestamp.type";
/// Copies that must have a record before it counts as written.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Bytes that a partition keeps.
pub const RETENTION_BYTES: &str = "retention.bytes";
/// Milliseconds that a record is kept.
pub const RETENTION_MILLIS: &str = "retention.ms";

/// The settings of a topic.
///
/// `replicas` are the copies of each partition, where we choose them: a record then counts as written on two of three,
/// and on one where there are fewer. Where brokers choose, that is theirs to say as well.
pub fn configs(topic: Topic, retention: Duration, replicas: Option<u16>) -> BTreeMap<String, String> {
    let mut configs = BTreeMap::from([
        (CLEANUP_POLICY, "delete".to_owned()),
        (COMPRESSION_TYPE, "producer".to_owned()),
        (TIMESTAMP_TYPE, "CreateTime".to_owned()),
        (RETENTION_BYTES, topic.retention_bytes().to_string()),
        (RETENTION_MILLIS, retention.as_millis().to_string()),
    ]);
    if let Some(replicas) = replicas {
        configs.insert(MIN_INSYNC_REPLICAS, if replicas >= 3 { "2" } else { "1" }.to_owned());
    }
    configs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_keep_what_is_agreed() {
        let of = |topic: Topic| {
            let configs = configs(topic, topic.default_retention(), Some(3));
            [RETENTION_MILLIS, RETENTION_BYTES, MIN_INSYNC_REPLICAS].map(|key| configs[key].clone())
        };
        assert_eq!(of(Topic::MessagesPersisted), ["604800000", "107374182400", "2"]);
        assert_eq!(of(Topic::MembershipsChanged), ["604800000", "10737418240", "2"]);
        assert_eq!(of(Topic::DeadLetters), ["2592000000", "53687091200", "2"]);
    }

    #[test]
    fn a_topic_with_too_few_copies_can_still_be_written_to() {
        let of =
            |replicas| configs(Topic::ChatsCreated, Duration::from_secs(1), replicas).get(MIN_INSYNC_REPLICAS).cloned();
        assert_eq!(of(Some(1)).as_deref(), Some("1"));
        assert_eq!(of(Some(2)).as_deref(), Some("1"));
        assert_eq!(of(None), None);
    }
}
