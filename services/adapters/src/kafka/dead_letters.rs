//! `DeadLetters` on the topic `dead_letters`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::{
    Error,
    ports::{
        EventPublisher,
        dead_letters::{DeadLetter, DeadLetters},
        event_publisher::Publication,
    },
};
use prost::Message as _;
use proto::{events::v1, topics::Topic};

/// Writes dead letters through a publisher.
pub struct KafkaDeadLetters {
    publisher: Arc<dyn EventPublisher>,
    group: String,
    consumer: String,
    within: Duration,
}

impl KafkaDeadLetters {
    /// For a consumer of that group; a letter that is not confirmed `within` that time counts as not kept.
    pub fn new(
        publisher: Arc<dyn EventPublisher>,
        group: impl Into<String>,
        consumer: impl Into<String>,
        within: Duration,
    ) -> Self {
        Self { publisher, group: group.into(), consumer: consumer.into(), within }
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn keep(&self, letter: DeadLetter) -> Result<(), Error> {
        const AWAY: &str = "the dead letter was not kept";
        let record = letter.record;
        let value = v1::DeadLetter {
            original_topic: record.partition.topic.to_owned(),
            original_partition: record.partition.number,
            original_offset: record.offset,
            original_timestamp: record.timestamp.0,
            consumer_group: self.group.clone(),
            consumer_id: self.consumer.clone(),
            failure_reason: letter.reason,
            failure_timestamp: letter.failed_at.0,
            processing_attempts: letter.attempts,
            key: record.key.clone().into(),
            value: record.value.into(),
            headers: record.headers.into_iter().map(|(name, value)| (name, value.into())).collect(),
        };
        let publication = Publication {
            topic: Topic::DeadLetters.name(),
            // The record keeps the original bytes; this only chooses the partition.
            key: String::from_utf8_lossy(&record.key).into_owned(),
            value: value.encode_to_vec(),
            headers: Vec::new(),
        };
        let confirmation = self.publisher.publish(publication).map_err(|failure| Error::unavailable(AWAY, failure))?;
        match tokio::time::timeout(self.within, confirmation).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(Error::unavailable(AWAY, failure)),
            Err(late) => Err(Error::unavailable(AWAY, late)),
        }
    }
}
