//! What fanout measures.

use prometheus_client::{
    encoding::EncodeLabelValue,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
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

/// Where the members of a chat came from.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Found {
    /// From the cache.
    Cache,
    /// From the store.
    Store,
}

/// Counters by one label, `result`.
pub type Counts<T> = Family<[(&'static str, T); 1], Counter>;

/// Counts one.
pub fn count<T>(counts: &Counts<T>, result: T)
where
    T: EncodeLabelValue + Clone + std::fmt::Debug + std::hash::Hash + Eq,
{
    counts.get_or_create(&[("result", result)]).inc();
}

/// Counters of fanout.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Records by fate.
    pub records: Counts<Fate>,
    /// Frames by answer.
    pub frames: Counts<Delivered>,
    /// Holes of the log.
    pub holes: Counts<Hole>,
    /// Look-ups of members.
    pub members: Counts<Found>,
    /// Partitions that wait for Redis, the store or the log.
    pub paused: Gauge,
    /// Partitions that are ours.
    pub partitions: Gauge,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let fanout = registry.sub_registry_with_prefix("fanout");
        fanout.register("records", "Records of the log by what became of them", metrics.records.clone());
        fanout.register("frames", "Frames to gateways by their answer", metrics.frames.clone());
        fanout.register("holes", "Sequences that the log skipped", metrics.holes.clone());
        fanout.register("members", "Look-ups of a chat's members", metrics.members.clone());
        fanout.register("paused_partitions", "Partitions that wait for a dependency", metrics.paused.clone());
        fanout.register("partitions", "Partitions that are ours", metrics.partitions.clone());
        metrics
    }
}
