//! The topics of a cluster, as they are asked for.

use std::time::Duration;

pub use crds::backends::KafkaProvider as Provider;
use proto::topics::Topic;

use crate::engine::{Adoption, Deletion, Management, Owner};

/// How many partitions a topic should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// So many when it is made; more are well.
    AtLeast(u32),
    /// So many, as somebody asked for.
    Exactly(u32),
}

impl Partitions {
    /// The number.
    pub fn count(self) -> u32 {
        match self {
            Self::AtLeast(count) | Self::Exactly(count) => count,
        }
    }
}

/// A topic that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTopic {
    /// Which one.
    pub topic: Topic,
    /// Its whole name.
    pub name: String,
    /// How many partitions.
    pub partitions: Partitions,
    /// How long it keeps records.
    pub retention: Duration,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// For whom.
    pub owner: Owner,
    /// The kind of Kafka.
    pub provider: Provider,
    /// Who makes the topics.
    pub management: Management,
    /// What becomes of them.
    pub deletion: Deletion,
    /// Which may be taken over.
    pub adoption: Adoption,
    /// Copies of each partition of a new topic, where somebody asked for a number.
    pub replication_factor: Option<u16>,
    /// The topics.
    pub topics: Vec<WantedTopic>,
    /// How long a pass may begin new work.
    pub budget: Duration,
}

impl Wanted {
    /// Every topic of a cluster, as by default.
    pub fn all_topics(prefix: &str) -> Vec<WantedTopic> {
        let wanted = |topic: Topic| WantedTopic {
            topic,
            name: format!("{prefix}{}", topic.name()),
            partitions: Partitions::AtLeast(topic.default_partitions()),
            retention: topic.default_retention(),
        };
        Topic::ALL.map(wanted).into()
    }

    /// Copies of each partition that are ours to choose. MSK Serverless has three, whatever one says.
    pub(super) fn replicas(&self) -> Option<u16> {
        if self.provider == Provider::MskServerless { None } else { self.replication_factor }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.topics.iter().map(|topic| topic.name.clone()).collect()
    }
}
