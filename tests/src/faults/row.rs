//! The rows of the fault matrix: what each does to the system, and what it leaves to be promised.

pub(crate) mod crash;
mod edge;
mod members;
mod people;
mod redis;
mod roll;
mod store;

use super::{
    mutant::Mutant,
    random::Random,
    rig::Extra,
    run::{Evidence, On, Scene},
};
use crate::history::line::Run;

/// A row that is done here; its number is the matrix's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// 0: nothing breaks.
    Calm,
    /// 1: a gateway is killed.
    GatewayKilled,
    /// 2: a gateway dies between a frame and its call to ingest.
    GatewayDiesHoldingSends,
    /// 3: an ingest dies before it writes to the store.
    IngestDiesBeforeCommit,
    /// 4: an ingest dies after the store, before the log.
    IngestDiesBeforePublish,
    /// 4: the same, and nobody says anything more in that chat.
    IngestDiesInSilence,
    /// 5: an ingest dies after the log, before the ack.
    IngestDiesBeforeAck,
    /// 6: a fanout dies between poll and commit of the offset.
    FanoutDies,
    /// 7: chatmgmt dies while it changes who is in a chat.
    ChatmgmtDies,
    /// 8: each kind of process stands still for a while.
    Paused,
    /// 9: Redis is killed and comes back.
    RedisAway,
    /// 10: Redis forgets everything.
    RedisWiped,
    /// 11: Redis is slow.
    RedisSlow,
    /// 12: Redis fails over to a replica.
    RedisFailsOver,
    /// 13 and 14: each of three brokers is killed in turn, and leaders change.
    BrokerKilled,
    /// 15: the log is slow, then silent.
    LogAway,
    /// 18: consumers come, go and stand still.
    Rebalanced,
    /// 18 while fanout is cut off from Redis, so that what changes hands rests.
    RebalancedWithoutRedis,
    /// 19: records that nobody can read.
    Poisoned,
    /// 20: the store throttles.
    Throttled,
    /// 21: the store hangs.
    StoreHangs,
    /// 22: the store executes and does not answer.
    AnswersLost,
    /// 23: transactions meet others.
    Conflicts,
    /// 25: each pair is parted, one way or both, one by one and all at once.
    Parted,
    /// 25, of CHAOS-6.2.5: gateways can't reach any ingest.
    IngestParted,
    /// 27: the log is delivered again from its first record.
    Replayed,
    /// 28: deliveries are late by different times.
    Jittered,
    /// 29: clients vanish without a word.
    HalfOpen,
    /// 30: a client reads nothing while its chat is hot.
    SlowClient,
    /// 38: all clients of a gateway come back at once.
    Herd,
    /// 39: each process is replaced in turn.
    Rolled,
    /// 40: processes are asked to stop while the log is away.
    StoppedWithoutLog,
    /// 50: a gateway has no file descriptor left.
    NoDescriptors,
    /// 51: more is sent than can be stored.
    Overloaded,
    /// What a broken build is put through.
    Broken(Mutant),
}

impl Row {
    /// Every row of the matrix that is done here.
    pub const ALL: [Self; 34] = [
        Self::Calm,
        Self::GatewayKilled,
        Self::GatewayDiesHoldingSends,
        Self::IngestDiesBeforeCommit,
        Self::IngestDiesBeforePublish,
        Self::IngestDiesInSilence,
        Self::IngestDiesBeforeAck,
        Self::FanoutDies,
        Self::ChatmgmtDies,
        Self::Paused,
        Self::RedisAway,
        Self::RedisWiped,
        Self::RedisSlow,
        Self::RedisFailsOver,
        Self::BrokerKilled,
        Self::LogAway,
        Self::Rebalanced,
        Self::RebalancedWithoutRedis,
        Self::Poisoned,
        Self::Throttled,
        Self::StoreHangs,
        Self::AnswersLost,
        Self::Conflicts,
        Self::Parted,
        Self::IngestParted,
        Self::Replayed,
        Self::Jittered,
        Self::HalfOpen,
        Self::SlowClient,
        Self::Herd,
        Self::Rolled,
        Self::StoppedWithoutLog,
        Self::NoDescriptors,
        Self::Overloaded,
    ];

    /// Number and name, as files and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "00-calm",
            Self::GatewayKilled => "01-gateway-killed",
            Self::GatewayDiesHoldingSends => "02-gateway-dies-holding-sends",
            Self::IngestDiesBeforeCommit => "03-ingest-dies-before-commit",
            Self::IngestDiesBeforePublish => "04-ingest-dies-before-publish",
            Self::IngestDiesInSilence => "04-ingest-dies-in-silence",
            Self::IngestDiesBeforeAck => "05-ingest-dies-before-ack",
            Self::FanoutDies => "06-fanout-dies",
            Self::ChatmgmtDies => "07-chatmgmt-dies",
            Self::Paused => "08-paused",
            Self::RedisAway => "09-redis-away",
            Self::RedisWiped => "10-redis-wiped",
            Self::RedisSlow => "11-redis-slow",
            Self::RedisFailsOver => "12-redis-fails-over",
            Self::BrokerKilled => "13-broker-killed",
            Self::LogAway => "15-log-away",
            Self::Rebalanced => "18-rebalanced",
            Self::RebalancedWithoutRedis => "18-rebalanced-without-redis",
            Self::Poisoned => "19-poisoned",
            Self::Throttled => "20-throttled",
            Self::StoreHangs => "21-store-hangs",
            Self::AnswersLost => "22-answers-lost",
            Self::Conflicts => "23-conflicts",
            Self::Parted => "25-parted",
            Self::IngestParted => "25-ingest-parted",
            Self::Replayed => "27-replayed",
            Self::Jittered => "28-jittered",
            Self::HalfOpen => "29-half-open",
            Self::SlowClient => "30-slow-client",
            Self::Herd => "38-herd",
            Self::Rolled => "39-rolled",
            Self::StoppedWithoutLog => "40-stopped-without-log",
            Self::NoDescriptors => "50-no-descriptors",
            Self::Overloaded => "51-overloaded",
            Self::Broken(mutant) => mutant.name(),
        }
    }

    /// Whether it can be done there.
    pub fn runs_on(self, on: On) -> bool {
        // The embedded log has one broker, and when the last member of a group has left it says that nothing was committed.
        on == On::Real || !matches!(self, Self::BrokerKilled | Self::Replayed)
    }

    /// What holds in spite of it.
    pub fn promise(self) -> Run {
        // A gateway that is gone, out of reach or without routes owes its clients something, of which they hear with the
        // next heartbeat, 30 s later at most; then they sync.
        let owes = matches!(
            self,
            Self::GatewayKilled
                | Self::GatewayDiesHoldingSends
                | Self::Paused
                | Self::RedisAway
                | Self::RedisWiped
                | Self::RedisSlow
                | Self::RedisFailsOver
                | Self::Parted
                | Self::HalfOpen
                | Self::SlowClient
                | Self::Herd
                | Self::Rolled
                | Self::NoDescriptors
                | Self::Overloaded
        );
        let seen_within_ms = match (self, owes) {
            // All of a dead ingest is on the log within 10 s (D4.4).
            (Self::IngestDiesInSilence, _) => 11_000,
            // What Redis forgot is known again within 15 s (CHAOS-6.2.3).
            (Self::RedisWiped, _) => 15_000,
            (_, true) => 40_000,
            (_, false) => 20_000,
        };
        let pushed = !owes;
        // An ack waits for the store and for nothing else (D4.1, CHAOS-6.2.2).
        let is_beside_the_ack = matches!(
            self,
            Self::Calm
                | Self::FanoutDies
                | Self::RedisAway
                | Self::RedisWiped
                | Self::RedisSlow
                | Self::RedisFailsOver
                | Self::BrokerKilled
                | Self::LogAway
                | Self::Rebalanced
                | Self::RebalancedWithoutRedis
                | Self::Poisoned
                | Self::Replayed
                | Self::Jittered
        );
        let acks_within_ms = is_beside_the_ack.then_some(5_000);
        Run { pushed, seen_within_ms, acks_within_ms, ..Run::default() }
    }

    /// What its processes get besides what all get.
    pub(super) fn extra(self, random: &mut Random) -> Extra {
        if self == Self::FanoutDies {
            crash::fanout_points(random)
        } else if self == Self::Broken(Mutant::CommitFirst) {
            // Before they deliver what they have in hand.
            crash::fanout_at(&["route.after"], random)
        } else if self == Self::GatewayDiesHoldingSends {
            crash::gateway_points(random)
        } else if self == Self::ChatmgmtDies {
            members::points(random)
        } else if self == Self::HalfOpen {
            vec![("gateway", "HEARTBEAT_INTERVAL", "2s".to_owned())]
        } else if self == Self::SlowClient {
            // The socket's own buffers take megabytes before this queue gets any.
            vec![("gateway", "OUTBOUND_BYTES", "300000".to_owned())]
        } else {
            Vec::new()
        }
    }

    /// Does it, and undoes it.
    pub(super) async fn inject(self, scene: &mut Scene) -> anyhow::Result<Evidence> {
        match self {
            Self::Calm => roll::nothing().await,
            Self::GatewayKilled => crash::gateway_killed(scene).await,
            Self::GatewayDiesHoldingSends => crash::gateway_dies(scene).await,
            Self::IngestDiesBeforeCommit => crash::ingest_dies(scene, &["commit.before"], "abort").await,
            Self::IngestDiesBeforePublish => {
                crash::ingest_dies(scene, &["commit.after", "publish.before"], "abort").await
            }
            Self::IngestDiesInSilence => crash::ingest_dies_in_silence(scene).await,
            Self::IngestDiesBeforeAck => crash::ingest_dies(scene, &["ack.before"], "abort 300").await,
            Self::FanoutDies => crash::fanout_dies(scene).await,
            Self::ChatmgmtDies => members::changes_torn(scene).await,
            Self::Paused => crash::each_stands_still(scene).await,
            Self::RedisAway => redis::away(scene).await,
            Self::RedisWiped => redis::wiped(scene).await,
            Self::RedisSlow => redis::slow(scene).await,
            Self::RedisFailsOver => redis::fails_over(scene).await,
            Self::BrokerKilled => store::brokers_killed(scene).await,
            Self::LogAway => edge::log_away(scene).await,
            Self::Rebalanced => roll::rebalanced(scene).await,
            Self::RebalancedWithoutRedis => redis::rebalanced_without(scene).await,
            Self::Poisoned => store::poisoned(scene).await,
            Self::Throttled => store::throttled(scene).await,
            Self::StoreHangs => store::hangs(scene).await,
            Self::AnswersLost => store::answers_lost(scene).await,
            Self::Conflicts => store::conflicts(scene).await,
            Self::Parted => edge::parted(scene).await,
            Self::IngestParted => edge::ingest_parted(scene).await,
            Self::Replayed => roll::replayed(scene).await,
            Self::Jittered => edge::jittered(scene).await,
            Self::HalfOpen => people::half_open(scene).await,
            Self::SlowClient => people::slow_client(scene).await,
            Self::Herd => people::herd(scene).await,
            Self::Rolled => roll::each_replaced(scene).await,
            Self::StoppedWithoutLog => roll::stopped_without_log(scene).await,
            Self::NoDescriptors => people::no_descriptors(scene).await,
            Self::Overloaded => people::overload(scene).await,
            Self::Broken(mutant) => mutant.inject(scene).await,
        }
    }
}
