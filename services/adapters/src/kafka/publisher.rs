//! `EventPublisher` on Kafka: idempotent, acknowledged by all in-sync replicas, without a time limit (D4.2).

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use domain::{
    Ids,
    ports::event_publisher::{Confirmation, EventPublisher, Publication, PublishFailure},
};
use platform::{Process, retry::Backoff};
use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Partitioner, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::{Notify, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker, task::task_tracker::TaskTrackerToken};

use super::{
    Config, STATISTICS_EVERY,
    iam::{self, Tokens},
    log_error, log_line, millis,
};

/// How long a replacement waits until the callers have seen that their records failed.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// Waits between attempts to make a producer.
const REBUILD: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// Writes records to the log.
///
/// A producer that fails for good is replaced: its unconfirmed records resolve as `Fatal`, and the new
/// one takes records only when the callers have seen that, so that none overtakes those to be repeated.
pub struct Publisher {
    prefix: String,
    settings: ClientConfig,
    flush_timeout: Duration,
    live: RwLock<Arc<Live>>,
    doomed: Arc<Notify>,
    tokens: Option<Arc<Tokens>>,
}

impl Publisher {
    /// Makes a publisher; brokers need not answer yet. It ends last with the process, after writing
    /// what it holds.
    ///
    /// # Errors
    /// When the settings are not ones the library takes.
    pub fn new(config: &Config, process: &Process) -> anyhow::Result<Arc<Self>> {
        let mut settings = config.client()?;
        settings
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("batch.size", "65536")
            .set("linger.ms", config.log_linger.as_millis().to_string())
            .set("message.timeout.ms", "0")
            .set("request.timeout.ms", millis(config.log_request_timeout))
            .set("statistics.interval.ms", millis(STATISTICS_EVERY))
            .set("retry.backoff.ms", "100")
            .set("retry.backoff.max.ms", "1000")
            .set("queue.buffering.max.messages", config.log_queue_records.to_string())
            .set("queue.buffering.max.kbytes", config.log_queue_kilobytes.to_string());
        let tokens = config.access.tokens(&config.log_brokers, process.clock())?;
        let doomed = Arc::new(Notify::new());
        let live = Live::start(&settings, doomed.clone(), tokens.clone())?;
        let publisher = Arc::new(Self {
            prefix: config.log_prefix.clone(),
            settings,
            flush_timeout: config.log_flush_timeout,
            live: RwLock::new(Arc::new(live)),
            doomed,
            tokens,
        });
        let kept = publisher.clone();
        let ids = process.ids();
        process.spawn_last("log producer", |stop| async move {
            tokio::select! {
                () = kept.replace_doomed(ids.as_ref()) => {}
                () = stop.cancelled() => {}
            }
            kept.flush().await
        });
        Ok(publisher)
    }

    fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn replace_doomed(&self, ids: &dyn Ids) {
        loop {
            self.doomed.notified().await;
            let old = self.live();
            if !old.is_doomed() {
                continue;
            }
            tracing::error!(event = "producer.replaced", "the log producer failed for good and is replaced");
            old.end().await;
            let mut attempt = 0;
            let new = loop {
                match Live::start(&self.settings, self.doomed.clone(), self.tokens.clone()) {
                    Ok(new) => break new,
                    Err(error) => {
                        tracing::error!(
                            event = "producer.replace_failed",
                            error.message = %format_args!("{error:#}"),
                            "failed to replace the log producer"
                        );
                        tokio::time::sleep(REBUILD.delay(attempt, ids)).await;
                        attempt += 1;
                    }
                }
            };
            *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            // Its end joins a thread.
            drop(tokio::task::spawn_blocking(move || drop(old)).await);
        }
    }

    async fn flush(&self) -> anyhow::Result<()> {
        let live = self.live();
        let timeout = self.flush_timeout;
        let left = tokio::task::spawn_blocking(move || {
            let flushed = live.producer.flush(timeout);
            let left = live.producer.in_flight_count();
            live.doom();
            flushed.err().map(|_| left)
        });
        if let Some(left) = left.await.context("failed to flush the log producer")? {
            tracing::warn!(
                event = "producer.left_unconfirmed",
                "{left} records were not confirmed within {timeout:?} and will be published again"
            );
        }
        self.live().ended.cancel();
        Ok(())
    }
}

impl EventPublisher for Publisher {
    fn publish(&self, record: Publication) -> Result<Confirmation, PublishFailure> {
        let live = self.live();
        if live.is_doomed() {
            return Err(PublishFailure::Fatal);
        }
        let headers =
            record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |all, header| {
                all.insert(Header { key: header.0, value: Some(header.1.as_bytes()) })
            });
        let topic = format!("{}{}", self.prefix, record.topic);
        let (confirm, confirmed) = oneshot::channel();
        let entry = BaseRecord::with_opaque_to(&topic, Box::new(confirm))
            .key(&record.key)
            .payload(&record.value)
            .headers(headers);
        // Counted before it is taken: a replacement waits for it.
        let pending = live.pending.token();
        match live.producer.send(entry) {
            Ok(()) => Ok(Box::pin(confirmation(confirmed, live.ended.clone(), pending))),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Err(PublishFailure::QueueFull),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::Fatal), _)) => {
                live.doom();
                Err(PublishFailure::Fatal)
            }
            Err((error, _)) => {
                tracing::warn!(event = "record.refused", topic, error.message = %error, "a record for {topic} was refused");
                Err(PublishFailure::Refused)
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.live().producer.context().is_connected.load(Ordering::Relaxed)
    }
}

async fn confirmation(
    confirmed: oneshot::Receiver<Result<(), PublishFailure>>,
    ended: CancellationToken,
    pending: TaskTrackerToken,
) -> Result<(), PublishFailure> {
    let answer = tokio::select! {
        biased;
        answer = confirmed => answer.unwrap_or(Err(PublishFailure::Fatal)),
        () = ended.cancelled() => Err(PublishFailure::Fatal),
    };
    drop(pending);
    answer
}

/// One producer, from its making to its failure or the end of the process.
struct Live {
    producer: ThreadedProducer<Deliveries, ByChat>,
    is_doomed: Arc<AtomicBool>,
    doomed: Arc<Notify>,
    /// Cancelled when what is unconfirmed will never be.
    ended: CancellationToken,
    /// Confirmations that nobody has seen yet.
    pending: TaskTracker,
}

impl Live {
    fn start(settings: &ClientConfig, doomed: Arc<Notify>, tokens: Option<Arc<Tokens>>) -> anyhow::Result<Self> {
        let is_doomed = Arc::new(AtomicBool::new(false));
        let (is_connected, by_chat) = (AtomicBool::new(false), ByChat);
        let context =
            Deliveries { is_doomed: is_doomed.clone(), doomed: doomed.clone(), is_connected, by_chat, tokens };
        let producer = settings.create_with_context(context).context("failed to make a producer for the log")?;
        Ok(Self { producer, is_doomed, doomed, ended: CancellationToken::new(), pending: TaskTracker::new() })
    }

    fn is_doomed(&self) -> bool {
        self.is_doomed.load(Ordering::Acquire)
    }

    fn doom(&self) {
        self.is_doomed.store(true, Ordering::Release);
        self.doomed.notify_one();
    }

    /// Resolves what is unconfirmed as `Fatal`, and waits until the callers have seen it.
    async fn end(&self) {
        self.ended.cancel();
        self.pending.close();
        if tokio::time::timeout(SEEN_WITHIN, self.pending.wait()).await.is_err() {
            tracing::warn!(
                event = "producer.failures_unseen",
                "{} failed records were not looked after within {SEEN_WITHIN:?}",
                self.pending.len()
            );
        }
    }
}

/// Passes on what became of each record.
struct Deliveries {
    is_doomed: Arc<AtomicBool>,
    doomed: Arc<Notify>,
    is_connected: AtomicBool,
    by_chat: ByChat,
    tokens: Option<Arc<Tokens>>,
}

impl Deliveries {
    fn doom(&self) {
        self.is_doomed.store(true, Ordering::Release);
        self.doomed.notify_one();
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        iam::make(self.tokens.as_deref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.doom();
        }
        log_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let is_up = statistics.brokers.values().any(|broker| broker.state == "UP");
        self.is_connected.store(is_up, Ordering::Relaxed);
    }
}

impl ProducerContext<ByChat> for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), PublishFailure>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, confirm: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(self.failure(error)),
        };
        if confirm.send(answer).is_err() {
            tracing::trace!("nobody waits for the confirmation of a record");
        }
    }

    fn get_custom_partitioner(&self) -> Option<&ByChat> {
        Some(&self.by_chat)
    }
}

impl Deliveries {
    /// A failure that is not about the record alone is about the producer: it may not go on.
    fn failure(&self, error: &KafkaError) -> PublishFailure {
        use RDKafkaErrorCode as Code;
        if self.is_doomed.load(Ordering::Acquire) {
            return PublishFailure::Fatal;
        }
        match error.rdkafka_error_code() {
            // The process ends, or the producer was replaced.
            Some(Code::PurgeQueue | Code::PurgeInflight) => PublishFailure::Fatal,
            Some(
                Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::InvalidRecord
                | Code::MessageBatchTooLarge
                | Code::MessageSizeTooLarge
                | Code::PolicyViolation
                | Code::TopicAuthorizationFailed
                | Code::UnknownPartition
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition,
            ) => {
                tracing::warn!(event = "record.refused", error.message = %error, "the log refused a record");
                PublishFailure::Refused
            }
            _ => {
                tracing::error!(event = "producer.failed", error.message = %error, "the log producer failed");
                self.doom();
                PublishFailure::Fatal
            }
        }
    }
}

/// The agreed partition of a chat, on as many partitions as the topic has at this moment; the library
/// knows and refreshes that number, and holds records back until it does.
struct ByChat;

impl Partitioner for ByChat {
    fn partition(&self, _: &str, key: Option<&[u8]>, count: i32, _: impl Fn(i32) -> bool) -> i32 {
        let partition = match (std::str::from_utf8(key.unwrap_or_default()), u32::try_from(count)) {
            (Ok(key), Ok(count @ 1..)) => i32::try_from(proto::topics::partition_for(key, count)).ok(),
            _ => None,
        };
        partition.unwrap_or(rdkafka::producer::PARTITION_UA)
    }
}
