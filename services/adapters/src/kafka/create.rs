//! Makes the topics of a cluster where nobody else does.

use std::{collections::BTreeMap, time::Duration};

use proto::topics::Topic;

use super::{
    Config,
    admin::{Admin, Connection, Error, Mode, TopicSpec},
};

/// How long the brokers may take.
const WITHIN: Duration = Duration::from_secs(30);

impl Config {
    /// Creates the topics that are not there, with at most that many partitions each, on that many brokers.
    ///
    /// For tests and development; in a cluster the operator makes the topics.
    ///
    /// # Errors
    /// When the brokers refuse or do not answer.
    pub async fn create_topics(&self, partitions: u32, replicas: u16) -> anyhow::Result<()> {
        let security = self.access.security()?;
        let admin = Admin::new(&Connection { brokers: self.log_brokers.clone(), security, within: WITHIN })?;
        let topics = Topic::ALL.map(|topic| TopicSpec {
            name: self.topic(topic),
            partitions: topic.default_partitions().min(partitions),
            replication_factor: Some(replicas),
            configs: BTreeMap::new(),
        });
        for (name, made) in admin.create(topics.to_vec(), Mode::Do).await? {
            match made {
                Ok(()) | Err(Error::AlreadyExists) => {}
                Err(error) => anyhow::bail!("the log did not make the topic {name}: {error}"),
            }
        }
        Ok(())
    }
}
