//! The log: Kafka's protocol, in memory. The store is the truth; what a restart forgets is published again from it.

use anyhow::Context as _;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, DefaultProducerContext, Producer as _},
};

/// A running log. It ends when it is dropped.
pub struct Log {
    /// What a Kafka client takes as its bootstrap servers.
    pub brokers: String,
    // The mock cluster lives in this client.
    client: BaseProducer,
}

impl Log {
    /// Starts a log with these topics and partition counts.
    ///
    /// # Errors
    /// When there is no loopback.
    pub fn start(topics: &[(String, u32)]) -> anyhow::Result<Self> {
        let client: BaseProducer<DefaultProducerContext> = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create()
            .context("failed to start the embedded log")?;
        let brokers = {
            let cluster = client.client().mock_cluster().context("the embedded log has no brokers")?;
            for (topic, partitions) in topics {
                let partitions = i32::try_from(*partitions).context("too many partitions")?;
                cluster
                    .create_topic(topic, partitions, 1)
                    .with_context(|| format!("failed to make the topic {topic}"))?;
            }
            cluster.bootstrap_servers()
        };
        join_groups_at_once(&client);
        Ok(Self { brokers, client })
    }

    /// Takes the broker away: clients lose their connections and can't make new ones.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn take_down(&self) -> anyhow::Result<()> {
        let cluster = self.client.client().mock_cluster().context("the embedded log has no brokers")?;
        cluster.broker_down(1).context("failed to take the embedded log down")
    }

    /// Brings the broker back.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn bring_up(&self) -> anyhow::Result<()> {
        let cluster = self.client.client().mock_cluster().context("the embedded log has no brokers")?;
        cluster.broker_up(1).context("failed to bring the embedded log up")
    }
}

/// A consumer group's first join waits 3 s for further members by default; here there are none.
#[expect(
    unsafe_code,
    reason = "the setter has no safe wrapper; both pointers belong to `client`, which outlives the calls"
)]
fn join_groups_at_once(client: &BaseProducer) {
    use rdkafka::bindings::{rd_kafka_handle_mock_cluster, rd_kafka_mock_group_initial_rebalance_delay_ms};
    unsafe {
        let cluster = rd_kafka_handle_mock_cluster(client.client().native_ptr());
        if !cluster.is_null() {
            rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        }
    }
}
