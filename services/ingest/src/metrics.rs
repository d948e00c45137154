//! What ingest measures; the plane keeps its name `durability` (D9.1).

use domain::ErrorKind;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// How a send ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "these are the label's values")]
pub enum Status {
    /// Stored.
    success,
    /// Stored before.
    duplicate,
    /// Its sender is not in the chat.
    not_a_member,
    /// A queue was full.
    busy,
    /// The outcome is unknown, or the store is away.
    unavailable,
    /// A fault.
    error,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "these are the label's values")]
pub enum StoreError {
    /// It takes no more at the moment.
    throttled,
    /// It is away, or refused for a reason that passes.
    unavailable,
    /// Nobody knows whether it did.
    unknown_outcome,
    /// It finds the request wrong.
    invalid,
}

/// Label of `durability_persist_total`.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Ended {
    /// How.
    pub status: Status,
}

/// The metrics of ingest; cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Sends by how they ended.
    pub persist: Family<Ended, Counter>,
    /// From the arrival of a send to its answer.
    pub persist_seconds: Histogram,
    /// Messages of a stored batch.
    pub batch_messages: Histogram,
    /// Sends that were stored before.
    pub idempotency_hits: Counter,
    /// Batches that met another transaction.
    pub transaction_conflicts: Counter,
    /// Batches that another writer overtook.
    pub lost_races: Counter,
    /// Calls of the store that failed, by why.
    store_errors: Family<[(&'static str, StoreError); 1], Counter>,
    /// Whether the store took the last renewal of the lease: 1 or 0.
    pub store_available: Gauge,
    /// Whether a broker of the log is connected: 1 or 0.
    pub log_available: Gauge,
    /// From a record's handing over to the log's confirmation.
    pub produce_seconds: Histogram,
    /// Store calls whose outcome was unknown.
    pub unknown_outcomes: Counter,
    /// Chats with members and without a counter: must stay 0.
    pub counter_missing: Counter,
    /// Places that were taken although the counter stood below them: must stay 0.
    pub duplicate_sequence: Counter,
    /// Records that the log has confirmed.
    pub published: Counter,
    /// Times a chat's records had to be published again.
    pub publish_restarts: Counter,
    /// Chats whose last messages are not on the log yet.
    pub chats_behind: Gauge,
    /// Chats that a dead incarnation left behind and this one took over.
    pub taken_over: Counter,
    /// Leases lost while the process lived.
    pub leases_lost: Counter,
    /// Delivery acknowledgements above the chat's head.
    pub acks_above_head: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            persist: Family::default(),
            persist_seconds: Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
            batch_messages: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 33.0]),
            idempotency_hits: Counter::default(),
            transaction_conflicts: Counter::default(),
            lost_races: Counter::default(),
            store_errors: Family::default(),
            store_available: Gauge::default(),
            log_available: Gauge::default(),
            produce_seconds: Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5]),
            unknown_outcomes: Counter::default(),
            counter_missing: Counter::default(),
            duplicate_sequence: Counter::default(),
            published: Counter::default(),
            publish_restarts: Counter::default(),
            chats_behind: Gauge::default(),
            taken_over: Counter::default(),
            leases_lost: Counter::default(),
            acks_above_head: Counter::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics and registers them, with the count of holes that readers passed over.
    pub fn register(registry: &mut Registry, holes: Counter) -> Self {
        let made = Self::default();
        // Seen before the first: an alert on an increase needs the zero.
        for error in [StoreError::throttled, StoreError::unavailable, StoreError::unknown_outcome, StoreError::invalid]
        {
            drop(made.store_errors.get_or_create(&[("error_type", error)]));
        }
        let plane = registry.sub_registry_with_prefix("durability");
        plane.register("persist", "Sends by how they ended", made.persist.clone());
        plane.register("persist_duration_seconds", "From arrival to answer", made.persist_seconds.clone());
        plane.register("batch_messages", "Messages of a stored batch", made.batch_messages.clone());
        plane.register("idempotency_hits", "Sends that were stored before", made.idempotency_hits.clone());
        plane.register(
            "transaction_conflicts",
            "Batches that met another transaction",
            made.transaction_conflicts.clone(),
        );
        plane.register("lost_races", "Batches that another writer overtook", made.lost_races.clone());
        plane.register("dynamodb_errors", "Store calls that failed", made.store_errors.clone());
        let help = "Whether the store took the last renewal of the lease";
        plane.register("dynamodb_available", help, made.store_available.clone());
        plane.register("kafka_available", "Whether a broker of the log is connected", made.log_available.clone());
        let help = "From a record to the log's confirmation";
        plane.register("kafka_produce_duration_seconds", help, made.produce_seconds.clone());
        plane.register("unknown_outcomes", "Store calls with an unknown outcome", made.unknown_outcomes.clone());
        plane.register("counter_missing", "Chats with members and no counter", made.counter_missing.clone());
        plane.register("duplicate_sequence", "Places taken above the counter", made.duplicate_sequence.clone());
        plane.register("sequence_holes", "Sequences passed over by readers", holes);
        plane.register("published", "Records confirmed by the log", made.published.clone());
        plane.register("publish_restarts", "Chats published again after a failure", made.publish_restarts.clone());
        plane.register("chats_behind", "Chats not wholly on the log", made.chats_behind.clone());
        plane.register("taken_over", "Chats taken over from dead incarnations", made.taken_over.clone());
        plane.register("leases_lost", "Leases lost while the process lived", made.leases_lost.clone());
        plane.register("acks_above_head", "Delivery acks above the head", made.acks_above_head.clone());
        made
    }

    /// Counts a call of the store that failed.
    pub(crate) fn store_failed(&self, error: StoreError) {
        self.store_errors.get_or_create(&[("error_type", error)]).inc();
    }

    /// Counts a send that failed.
    pub(crate) fn count_failure(&self, kind: ErrorKind) {
        let status = if kind == ErrorKind::NotAMember {
            Status::not_a_member
        } else if kind == ErrorKind::ServerBusy {
            Status::busy
        } else if kind == ErrorKind::Unavailable {
            Status::unavailable
        } else {
            Status::error
        };
        self.persist.get_or_create(&Ended { status }).inc();
    }
}
