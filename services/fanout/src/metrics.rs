//! What fanout measures.

use domain::ports::event_source::Partition;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// What became of a record.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Fate {
    /// Passed on to whoever is online.
    PassedOn,
    /// Known already.
    Known,
    /// Nobody can read it.
    DeadLetter,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Delivered {
    /// The gateway took it.
    Taken,
    /// No queue of the gateway took it.
    Full,
    /// The gateway has another epoch.
    Unknown,
    /// The gateway did not answer in time, or could not be reached.
    Skipped,
}

/// What became of a hole.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Hole {
    /// Fetched from the store.
    Filled,
    /// The store has not all of it: passed over.
    PassedOver,
}

/// Why a record became a dead letter.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum DeadFor {
    /// Nobody can read it.
    Unreadable,
    /// It failed by a fault each time.
    Failed,
}

/// A partition, as labels name it.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Place {
    topic: &'static str,
    partition: i32,
}

impl From<Partition> for Place {
    fn from(Partition { topic, number }: Partition) -> Self {
        Self { topic, partition: number }
    }
}

/// Counters by one label, `status`.
pub type Counts<T> = Family<[(&'static str, T); 1], Counter>;

/// Counts one.
pub fn count<T>(counts: &Counts<T>, result: T)
where
    T: EncodeLabelValue + Clone + std::fmt::Debug + std::hash::Hash + Eq,
{
    counts.get_or_create(&[("status", result)]).inc();
}

/// Counters of fanout.
#[derive(Clone)]
pub struct Metrics {
    /// Records as they came, by topic.
    consumed: Family<[(&'static str, &'static str); 1], Counter>,
    /// Records by fate.
    pub records: Counts<Fate>,
    /// Frames by answer.
    pub frames: Counts<Delivered>,
    /// Holes of the log.
    pub holes: Counts<Hole>,
    /// Members that the cache knew.
    pub member_hits: Counter,
    /// Members that the store was asked for.
    pub member_misses: Counter,
    /// Dead letters, by why.
    dead_letters: Family<[(&'static str, DeadFor); 1], Counter>,
    /// From the commit of a message to a gateway's word that it has it.
    pub delivery_seconds: Histogram,
    /// Deliveries that seem to come before their commit.
    pub clock_skew: Counter,
    /// Members of the chat of a message.
    pub batch_size: Histogram,
    /// Partitions that wait for Redis, the store or the log.
    pub paused: Gauge,
    /// Partitions that are ours.
    pub partitions: Gauge,
    /// Their records that are not committed.
    lag: Family<Place, Gauge>,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let skew: Family<[(&'static str, &'static str); 2], Counter> = Family::default();
        let metrics = Self {
            consumed: Family::default(),
            records: Counts::default(),
            frames: Counts::default(),
            holes: Counts::default(),
            member_hits: Counter::default(),
            member_misses: Counter::default(),
            dead_letters: Family::default(),
            delivery_seconds: Histogram::new([0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0]),
            clock_skew: skew.get_or_create_owned(&[("source_plane", "durability"), ("dest_plane", "fanout")]),
            batch_size: Histogram::new([1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0]),
            paused: Gauge::default(),
            partitions: Gauge::default(),
            lag: Family::default(),
        };
        // Seen before the first: an alert on an increase needs the zero.
        for reason in [DeadFor::Unreadable, DeadFor::Failed] {
            drop(metrics.dead_letters.get_or_create(&[("reason", reason)]));
        }
        for hole in [Hole::Filled, Hole::PassedOver] {
            drop(metrics.holes.get_or_create(&[("status", hole)]));
        }
        let fanout = registry.sub_registry_with_prefix("fanout");
        fanout.register("events_consumed", "Records of the log as they came", metrics.consumed.clone());
        fanout.register("events_processed", "Records of the log by what became of them", metrics.records.clone());
        fanout.register("delivery", "Frames to gateways by their answer", metrics.frames.clone());
        fanout.register("holes", "Sequences that the log skipped", metrics.holes.clone());
        fanout.register("membership_cache_hits", "Members that the cache knew", metrics.member_hits.clone());
        let help = "Members that the store was asked for";
        fanout.register("membership_cache_misses", help, metrics.member_misses.clone());
        fanout.register("dlq_events", "Dead letters", metrics.dead_letters.clone());
        let help = "From the commit of a message to a gateway's word that it has it";
        fanout.register("delivery_latency_seconds", help, metrics.delivery_seconds.clone());
        fanout.register("batch_size", "Members of the chat of a message", metrics.batch_size.clone());
        fanout.register("paused_partitions", "Partitions that wait for a dependency", metrics.paused.clone());
        fanout.register("partitions", "Partitions that are ours", metrics.partitions.clone());
        fanout.register("consumer_lag", "Records of a partition that are not committed", metrics.lag.clone());
        let help = "Deliveries that seem to come before their commit";
        registry.sub_registry_with_prefix("messaging").register("clock_skew_samples", help, skew);
        metrics
    }

    /// A record came.
    pub(crate) fn consumed(&self, topic: &'static str) {
        self.consumed.get_or_create(&[("topic", topic)]).inc();
    }

    /// So many records of a partition are not committed.
    pub(crate) fn lags(&self, partition: Partition, records: u64) {
        self.lag.get_or_create(&partition.into()).set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A partition is not ours any more.
    pub(crate) fn gone(&self, partition: Partition) {
        self.lag.remove(&partition.into());
    }

    /// A record became a dead letter.
    pub(crate) fn dead(&self, reason: DeadFor) {
        count(&self.records, Fate::DeadLetter);
        self.dead_letters.get_or_create(&[("reason", reason)]).inc();
    }
}
