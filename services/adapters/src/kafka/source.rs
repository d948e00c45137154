//! `EventSource` on Kafka: one member of a consumer group, polled on a thread of its own.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use clap::Args;
use domain::{
    Error, Millis,
    ports::event_source::{EventSource, Occurrence, Partition, Record},
};
use platform::Process;
use proto::topics::Topic;
use rdkafka::{
    ClientContext, Message as _, Offset, Statistics, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers as _},
    statistics,
    topic_partition_list::TopicPartitionListElem,
    types::RDKafkaRespErr,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Config, STATISTICS_EVERY,
    iam::{self, Tokens},
    log_error, log_line, millis,
};

/// How often the polling thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// How records are read from the log.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Settings {
    /// How long a broker may hold a fetch that finds nothing
    #[arg(long, env = "LOG_FETCH_WAIT", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub log_fetch_wait: Duration,

    /// Records handed over at once
    #[arg(long, env = "LOG_BATCH_RECORDS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub log_batch_records: u32,

    /// Kilobytes fetched ahead
    #[arg(long, env = "LOG_FETCH_AHEAD_KILOBYTES", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(64..=2_097_151))]
    pub log_fetch_ahead_kilobytes: u32,

    /// How long the group waits for a silent member
    #[arg(long, env = "LOG_SESSION_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub log_session_timeout: Duration,

    /// How long a commit of offsets may take
    #[arg(long, env = "LOG_COMMIT_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub log_commit_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log_fetch_wait: Duration::from_millis(100),
            log_batch_records: 500,
            log_fetch_ahead_kilobytes: 16_384,
            log_session_timeout: Duration::from_secs(10),
            log_commit_timeout: Duration::from_secs(5),
        }
    }
}

/// One member of a consumer group.
pub struct Source {
    consumer: Weak<BaseConsumer<Rebalances>>,
    topics: Arc<Topics>,
    lag: Arc<Mutex<Lag>>,
    occurrences: tokio::sync::Mutex<mpsc::Receiver<Result<Occurrence, Error>>>,
    /// Whether a revocation was handed out that the polling thread waits to carry out.
    revoking: Mutex<bool>,
    go: std::sync::mpsc::SyncSender<()>,
    stop: CancellationToken,
    ended: watch::Receiver<()>,
    commit_timeout: Duration,
}

impl Source {
    /// Joins the group; brokers need not answer yet. It leaves last with the process, if it is not told to before.
    ///
    /// # Errors
    /// When the settings are not ones the library takes.
    pub fn new(
        config: &Config,
        settings: &Settings,
        topics: &[Topic],
        group: &str,
        process: &Process,
    ) -> anyhow::Result<Arc<Self>> {
        let mut client = config.client()?;
        client
            .set("group.id", config.full_name(group))
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", millis(settings.log_session_timeout))
            .set("heartbeat.interval.ms", millis(settings.log_session_timeout / 10))
            .set("max.poll.interval.ms", "300000")
            .set("fetch.wait.max.ms", millis(settings.log_fetch_wait))
            .set("statistics.interval.ms", millis(STATISTICS_EVERY))
            .set("fetch.error.backoff.ms", "100")
            // By default a full fetch queue is looked at again only after a second.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", settings.log_fetch_ahead_kilobytes.to_string());
        let stop = CancellationToken::new();
        let tokens = config.access.tokens(&config.log_brokers, process.clock())?;
        let lag: Arc<Mutex<Lag>> = Arc::default();
        let context = Rebalances { changed: Mutex::new(None), lag: lag.clone(), stop: stop.clone(), tokens };
        let consumer: BaseConsumer<Rebalances> =
            client.create_with_context(context).context("failed to make a consumer for the log")?;
        let names: Vec<String> = topics.iter().map(|topic| config.topic(*topic)).collect();
        consumer
            .subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>())
            .context("failed to subscribe to the log")?;

        let consumer = Arc::new(consumer);
        let topics = Arc::new(Topics { prefix: config.log_prefix.clone(), topics: topics.to_vec() });
        let (hand_over, occurrences) = mpsc::channel(1);
        let (go, told_to_go) = std::sync::mpsc::sync_channel(1);
        let (has_ended, ended) = watch::channel(());
        let source = Arc::new(Self {
            consumer: Arc::downgrade(&consumer),
            topics: topics.clone(),
            lag,
            occurrences: tokio::sync::Mutex::new(occurrences),
            revoking: Mutex::new(false),
            go,
            stop: stop.clone(),
            ended,
            commit_timeout: settings.log_commit_timeout,
        });
        let polling =
            Polling { consumer, topics, hand_over, told_to_go, batch: settings.log_batch_records as usize, stop };
        let kept = source.clone();
        // A thread, not a blocking task: it lives as long as the consumer.
        std::thread::Builder::new()
            .name("log consumer".to_owned())
            .spawn(move || {
                polling.run();
                drop(has_ended);
            })
            .context("failed to start a thread for the log consumer")?;
        process.spawn_last("log consumer", |stop| async move {
            stop.cancelled().await;
            kept.leave().await;
            Ok(())
        });
        Ok(source)
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Rebalances>>, Error> {
        self.consumer.upgrade().ok_or_else(|| Error::unavailable("the log consumer has left", "it was told to"))
    }

    /// Runs a call of the library that may block.
    async fn blocking<F>(&self, what: &'static str, call: F) -> Result<(), Error>
    where
        F: FnOnce(&BaseConsumer<Rebalances>) -> KafkaResult<()> + Send + 'static,
    {
        let consumer = self.consumer()?;
        let called = tokio::task::spawn_blocking(move || call(&consumer));
        match tokio::time::timeout(self.commit_timeout, called).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(Error::unavailable(what, error)),
            Ok(Err(error)) => Err(Error::internal(error)),
            Err(late) => Err(Error::unavailable(what, late)),
        }
    }
}

#[async_trait]
impl EventSource for Source {
    async fn next(&self) -> Result<Occurrence, Error> {
        let mut occurrences = self.occurrences.lock().await;
        if std::mem::take(&mut *lock(&self.revoking)) && self.go.try_send(()).is_err() {
            tracing::debug!("the log consumer ended during a revocation");
        }
        let Some(occurrence) = occurrences.recv().await else {
            return Err(Error::unavailable("the log consumer has left", "it was told to"));
        };
        *lock(&self.revoking) = matches!(occurrence, Ok(Occurrence::Revoked(_)));
        occurrence
    }

    async fn commit(&self, next_offsets: &[(Partition, i64)]) -> Result<(), Error> {
        if next_offsets.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(next_offsets.len());
        for (partition, offset) in next_offsets {
            let topic = self.topics.full_name(partition.topic);
            list.add_partition_offset(&topic, partition.number, Offset::Offset(*offset)).map_err(Error::internal)?;
        }
        self.blocking("the log did not take the offsets", move |consumer| consumer.commit(&list, CommitMode::Sync))
            .await
    }

    async fn pause(&self, partitions: &[Partition]) -> Result<(), Error> {
        let list = self.topics.list(partitions);
        let pause = move |consumer: &BaseConsumer<_>| consumer.pause(&list).and_then(|()| each_done(&list));
        self.blocking("the log consumer did not pause", pause).await
    }

    async fn resume(&self, partitions: &[Partition]) -> Result<(), Error> {
        let list = self.topics.list(partitions);
        let resume = move |consumer: &BaseConsumer<_>| consumer.resume(&list).and_then(|()| each_done(&list));
        self.blocking("the log consumer did not resume", resume).await
    }

    fn lag(&self) -> Vec<(Partition, u64)> {
        let lag = lock(&self.lag);
        let ours = |(topic, number, lag): &(String, i32, u64)| {
            Some((Partition { topic: self.topics.role(topic)?, number: *number }, *lag))
        };
        lag.iter().filter_map(ours).collect()
    }

    async fn leave(&self) {
        self.stop.cancel();
        self.occurrences.lock().await.close();
        // Full or gone: either way the thread does not wait for it.
        if self.go.try_send(()).is_err() {
            tracing::trace!("the log consumer has ended already");
        }
        // An error says that the thread has ended.
        while self.ended.clone().changed().await.is_ok() {}
    }
}

/// The thread's side.
struct Polling {
    consumer: Arc<BaseConsumer<Rebalances>>,
    topics: Arc<Topics>,
    hand_over: mpsc::Sender<Result<Occurrence, Error>>,
    told_to_go: std::sync::mpsc::Receiver<()>,
    batch: usize,
    stop: CancellationToken,
}

impl Polling {
    fn run(self) {
        while !self.stop.is_cancelled() {
            let handed_over = match self.poll() {
                Ok(records) if records.is_empty() => Ok(()),
                Ok(records) => self.hand_over.blocking_send(Ok(Occurrence::Records(records))),
                Err(error) => {
                    let ended = self.hand_over.blocking_send(Err(error));
                    tracing::debug!("the log consumer ends, heard: {}", ended.is_ok());
                    return;
                }
            };
            if handed_over.is_err() || !self.carry_out_change() {
                return;
            }
        }
        // The last reference goes here, and with it the membership of the group.
    }

    /// Records until there are none at hand, the batch is full, or the assignment changes.
    fn poll(&self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        let mut wait = LOOK;
        while records.len() < self.batch && !self.consumer.context().has_changed() {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => records.extend(self.topics.record(&message)),
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(Error::internal(error)),
                Some(Err(error)) => tracing::debug!("the log can't be read now: {error}"),
                None => break,
            }
            wait = Duration::ZERO;
        }
        Ok(records)
    }

    /// Announces a change of the assignment, if there is one, and carries it out. `false`: nobody listens.
    fn carry_out_change(&self) -> bool {
        let Some(change) = self.consumer.context().take() else { return true };
        let partitions = self.topics.partitions(change.list());
        match &change {
            // Ours before it is announced, for a pause of what is not ours yet would not last.
            Change::Assign(_) => {
                self.carry_out(&change);
                self.hand_over.blocking_send(Ok(Occurrence::Assigned(partitions))).is_ok()
            }
            Change::Revoke(list) => {
                let announced = self.hand_over.blocking_send(Ok(Occurrence::Revoked(partitions))).is_ok()
                    && self.told_to_go.recv().is_ok();
                // The library keeps a pause over the assignment, also for who has the partition again later.
                if let Err(error) = self.consumer.resume(list) {
                    tracing::warn!(
                        event = "partitions.pause_failed",
                        error.message = %error,
                        "partitions that go were not resumed"
                    );
                }
                self.carry_out(&change);
                announced
            }
        }
    }

    fn carry_out(&self, change: &Change) {
        if let Err(error) = change.carry_out(&self.consumer) {
            tracing::warn!(
                event = "partitions.change_failed",
                error.message = %error,
                "a change of the log's assignment failed"
            );
        }
    }
}

/// A change of the assignment, which the group waits for us to carry out.
enum Change {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

impl Change {
    fn list(&self) -> &TopicPartitionList {
        match self {
            Self::Assign(list) | Self::Revoke(list) => list,
        }
    }

    fn carry_out(&self, consumer: &BaseConsumer<Rebalances>) -> KafkaResult<()> {
        match (self, consumer.rebalance_protocol()) {
            (Self::Assign(list), RebalanceProtocol::Cooperative) => consumer.incremental_assign(list),
            (Self::Assign(list), _) => consumer.assign(list),
            (Self::Revoke(list), RebalanceProtocol::Cooperative) => consumer.incremental_unassign(list),
            (Self::Revoke(_), _) => consumer.unassign(),
        }
    }
}

/// Topic, partition, and the records there that are not committed.
type Lag = Vec<(String, i32, u64)>;

/// Notes changes of the assignment, so that they can be announced in order with the records.
struct Rebalances {
    changed: Mutex<Option<Change>>,
    lag: Arc<Mutex<Lag>>,
    stop: CancellationToken,
    tokens: Option<Arc<Tokens>>,
}

impl Rebalances {
    fn has_changed(&self) -> bool {
        lock(&self.changed).is_some()
    }

    fn take(&self) -> Option<Change> {
        lock(&self.changed).take()
    }
}

impl ClientContext for Rebalances {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        iam::make(self.tokens.as_deref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.into_values().flat_map(|topic| {
            let name = topic.topic;
            topic.partitions.into_values().filter_map(move |partition| {
                let lag = not_committed(&partition)?;
                Some((name.clone(), partition.partition, lag))
            })
        });
        *lock(&self.lag) = partitions.collect();
    }
}

/// Where nothing was committed yet, all that is there; `None` as long as the log has not told.
fn not_committed(partition: &statistics::Partition) -> Option<u64> {
    let lag = match (partition.consumer_lag, partition.committed_offset, partition.hi_offset, partition.lo_offset) {
        (known @ 0.., ..) => known,
        (_, ..0, end @ 0.., begin @ 0..) => end - begin,
        _ => return None,
    };
    u64::try_from(lag).ok()
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, cause: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let change = if cause == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Change::Assign(list.clone())
        } else {
            Change::Revoke(list.clone())
        };
        if self.stop.is_cancelled() {
            // Leaving: nobody listens any more, and the library waits for an answer.
            if let Err(error) = change.carry_out(consumer) {
                tracing::debug!("a change of the log's assignment failed while leaving: {error}");
            }
        } else {
            *lock(&self.changed) = Some(change);
        }
    }
}

/// What the library answers for each partition, which its answer for the whole list does not hold.
fn each_done(list: &TopicPartitionList) -> KafkaResult<()> {
    list.elements().iter().try_for_each(TopicPartitionListElem::error)
}

/// Between full names and roles.
struct Topics {
    prefix: String,
    topics: Vec<Topic>,
}

impl Topics {
    fn full_name(&self, role: &str) -> String {
        format!("{}{role}", self.prefix)
    }

    fn role(&self, full_name: &str) -> Option<&'static str> {
        let name = full_name.strip_prefix(&self.prefix)?;
        self.topics.iter().map(|topic| topic.name()).find(|role| *role == name)
    }

    fn list(&self, partitions: &[Partition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.full_name(partition.topic), partition.number);
        }
        list
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let found = list.elements().into_iter();
        found
            .filter_map(|element| Some(Partition { topic: self.role(element.topic())?, number: element.partition() }))
            .collect()
    }

    fn record(&self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
        });
        Some(Record {
            partition: Partition { topic: self.role(message.topic())?, number: message.partition() },
            offset: message.offset(),
            timestamp: Millis(message.timestamp().to_millis().unwrap_or(0)),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: headers.unwrap_or_default(),
        })
    }
}

/// A poisoned lock means that a task panicked while it held plain data: the data are still whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
