//! Makes the topics of a cluster where nobody else does.

use std::time::Duration;

use anyhow::Context as _;
use proto::topics::Topic;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};

use super::Config;

/// How long the brokers may take.
const WITHIN: Duration = Duration::from_secs(30);

impl Config {
    /// Creates the topics that are not there, with at most that many partitions each, on that many brokers.
    ///
    /// For tests and development; in a cluster the operator makes the topics.
    ///
    /// # Errors
    /// When the brokers refuse or do not answer.
    pub async fn create_topics(&self, partitions: u32, replicas: i32) -> anyhow::Result<()> {
        let client: AdminClient<DefaultClientContext> =
            self.client()?.create().context("failed to make an administrator of the log")?;
        let names = Topic::ALL.map(|topic| (self.topic(topic), topic.default_partitions().min(partitions)));
        let mut topics = Vec::new();
        for (name, count) in &names {
            topics.push(NewTopic::new(name, i32::try_from(*count)?, TopicReplication::Fixed(replicas)));
        }
        let options = AdminOptions::new().request_timeout(Some(WITHIN)).operation_timeout(Some(WITHIN));
        let results = client.create_topics(&topics, &options).await.context("the log made no topics")?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => anyhow::bail!("the log did not make the topic {name}: {code}"),
            }
        }
        Ok(())
    }
}
