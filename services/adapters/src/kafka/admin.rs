//! Topics from the outside: what is there, and changes to it. For the operator; services never make topics.

mod native;
mod security;

use std::{
    collections::BTreeMap,
    ffi::CString,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use platform::clock::SystemClock;
use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    types::{RDKafkaConfigSource, RDKafkaErrorCode as Code},
};

pub use security::{Authentication, Identity, Security, Tls, Unsupported};

use super::{
    iam::{Tokens, region_of},
    millis,
};
use native::{Answers, Failure, Native, Setting, TopicShape};

/// What is asked for is not there.
const NO_REGION: &str = "AWS IAM authentication to brokers whose names are not those of AWS";

/// Topics in one request, at most: what answers of all brokers carry without being cut.
const AT_ONCE: usize = 100;

/// How to reach brokers as one who may change topics.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Bootstrap servers, comma-separated.
    pub brokers: String,
    /// What the connection looks like.
    pub security: Security,
    /// How long each call may take.
    pub within: Duration,
}

/// Whether a call changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Do,
    /// Brokers only say whether they would.
    ValidateOnly,
}

/// A topic that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Full name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Copies of each partition; `None` leaves it to the brokers' default.
    pub replication_factor: Option<u16>,
    /// Settings of its own.
    pub configs: BTreeMap<String, String>,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Brokers' id of it, which no later topic of that name has; `None` where brokers have no ids.
    pub id: Option<String>,
    /// How many partitions.
    pub partitions: u32,
    /// Copies of the partition that has the fewest.
    pub replication_factor: u16,
    /// Every setting that is in force, by name.
    pub configs: BTreeMap<String, ConfigValue>,
}

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigValue {
    /// Its value; `None` when brokers keep it secret or it has none.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was set on this topic.
    Topic,
    /// It was set on the brokers.
    Broker,
    /// Nobody set it.
    Default,
}

/// Why brokers did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No broker answers in time.
    #[error("no Kafka broker answered: {why}")]
    Unreachable {
        /// The last the client heard.
        why: String,
    },
    /// The credentials are not taken.
    #[error("Kafka does not take these credentials: {why}")]
    AuthenticationFailed {
        /// The brokers' words.
        why: String,
    },
    /// The credentials are good, but not for this.
    #[error("Kafka does not allow it: {why}")]
    AuthorizationFailed {
        /// The brokers' words.
        why: String,
    },
    /// There is no such topic.
    #[error("there is no such topic")]
    NotFound,
    /// There is such a topic already.
    #[error("there is such a topic already")]
    AlreadyExists,
    /// Brokers are told never to delete topics.
    #[error("these brokers delete no topics (delete.topic.enable is false)")]
    DeletionDisabled,
    /// Partitions are on the move; later.
    #[error("partitions of it are being moved")]
    ReassignmentInProgress,
    /// Too many changes at once; later.
    #[error("Kafka asks to be changed less often: {why}")]
    Throttled {
        /// The brokers' words.
        why: String,
    },
    /// They never will, as it stands.
    #[error("Kafka refused: {why}")]
    Refused {
        /// The brokers' words.
        why: String,
    },
    /// This build, or these brokers, can't do it.
    #[error("{why}")]
    Unsupported {
        /// What is missing.
        why: String,
    },
    /// Anything else; worth another try.
    #[error("Kafka failed: {why}")]
    Failed {
        /// The brokers' words.
        why: String,
    },
}

impl From<Unsupported> for Error {
    fn from(unsupported: Unsupported) -> Self {
        Self::Unsupported { why: unsupported.to_string() }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library has hundreds of codes")]
impl From<Failure> for Error {
    fn from(Failure { code, why }: Failure) -> Self {
        let why = if why.is_empty() { code.to_string() } else { why };
        match code {
            Code::OperationTimedOut
            | Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::BrokerNotAvailable
            | Code::NetworkException
            | Code::RequestTimedOut => Self::Unreachable { why },
            Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL | Code::UnsupportedSASLMechanism => {
                Self::AuthenticationFailed { why }
            }
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Self::AuthorizationFailed { why },
            Code::UnknownTopic | Code::UnknownTopicOrPartition => Self::NotFound,
            Code::TopicAlreadyExists => Self::AlreadyExists,
            Code::TopicDeletionDisabled => Self::DeletionDisabled,
            Code::ReassignmentInProgress => Self::ReassignmentInProgress,
            Code::ThrottlingQuotaExceeded => Self::Throttled { why },
            Code::InvalidArgument
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidReplicaAssignment
            | Code::InvalidReplicationFactor
            | Code::InvalidRequest
            | Code::InvalidTopic
            | Code::PolicyViolation => Self::Refused { why },
            Code::UnsupportedFeature | Code::UnsupportedVersion => Self::Unsupported { why },
            _ => Self::Failed { why },
        }
    }
}

/// What became of each topic of a call.
pub type Outcomes = BTreeMap<String, Result<(), Error>>;

/// One who may change topics. Calls wait for each other; a call that is given up goes on until its own deadline.
pub struct Admin {
    // `None` only while the value is being dropped.
    native: Option<Arc<Mutex<Native>>>,
    within: Duration,
}

impl Admin {
    /// Makes a client; brokers need not be there yet.
    ///
    /// # Errors
    /// When this build has no such connection, or a certificate is none.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &connection.brokers)
            .set("client.id", "messaging-operator")
            .set("allow.auto.create.topics", "false")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.connection.setup.timeout.ms", millis(connection.within.max(Duration::from_secs(1))))
            .set_log_level(RDKafkaLogLevel::Warning);
        connection.security.apply(&mut client)?;
        let tokens = match connection.security.authentication {
            Authentication::AwsIam => {
                let region = region_of(&connection.brokers).ok_or(Unsupported(NO_REGION))?;
                Some(Tokens::new(region, Arc::new(SystemClock)))
            }
            Authentication::None | Authentication::Scram { .. } => None,
        };
        let native = Native::new(&client, tokens).map_err(|why| Error::Refused { why })?;
        Ok(Self { native: Some(Arc::new(Mutex::new(native))), within: connection.within })
    }

    /// What is known about these topics; a topic that is not there is `None`.
    ///
    /// Costs one metadata request and one request for settings for every hundred names, and no second one when none
    /// of them is there. Repeating it is safe.
    ///
    /// # Errors
    /// When brokers can't be asked at all; what is wrong with one topic is beside its name.
    pub async fn describe(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, Result<Option<TopicState>, Error>>, Error> {
        let mut found = BTreeMap::new();
        for names in names.chunks(AT_ONCE) {
            let asked = c_names(names)?;
            let shapes = self.run(move |native, within| native.describe_topics(&asked, within)).await?;
            let mut there: BTreeMap<String, TopicShape> = BTreeMap::new();
            for (name, shape) in shapes {
                match shape.map_err(Error::from) {
                    Ok(shape) => drop(there.insert(name, shape)),
                    Err(Error::NotFound) => drop(found.insert(name, Ok(None))),
                    Err(error) => drop(found.insert(name, Err(error))),
                }
            }
            if there.is_empty() {
                continue;
            }
            let asked = c_names(there.keys())?;
            let settings = self.run(move |native, within| native.describe_configs(&asked, within)).await?;
            for (name, settings) in settings {
                let Some(shape) = there.remove(&name) else { continue };
                let state = match settings.map_err(Error::from) {
                    Ok(settings) => Ok(Some(state(&shape, settings))),
                    // It went between the two requests.
                    Err(Error::NotFound) => Ok(None),
                    Err(error) => Err(error),
                };
                found.insert(name, state);
            }
        }
        Ok(found)
    }

    /// Makes topics. Repeating it answers [`Error::AlreadyExists`].
    ///
    /// # Errors
    /// When brokers can't be asked at all; what is wrong with one topic is beside its name.
    pub async fn create(&self, topics: Vec<TopicSpec>, mode: Mode) -> Result<Outcomes, Error> {
        self.run(move |native, within| native.create_topics(&topics, mode, within)).await.map(outcomes)
    }

    /// Gives topics more partitions: each as many as stated, in all. Repeating it answers [`Error::Refused`].
    ///
    /// # Errors
    /// When brokers can't be asked at all; what is wrong with one topic is beside its name.
    pub async fn grow(&self, topics: Vec<(String, u32)>, mode: Mode) -> Result<Outcomes, Error> {
        self.run(move |native, within| native.create_partitions(&topics, mode, within)).await.map(outcomes)
    }

    /// Sets (`Some`) or takes back (`None`) single settings of a topic; all others stay untouched. Repeating it is safe.
    ///
    /// # Errors
    /// When brokers refuse or can't be asked.
    pub async fn alter(&self, topic: &str, changes: Vec<(String, Option<String>)>, mode: Mode) -> Result<(), Error> {
        let name = topic.to_owned();
        let answers = self.run(move |native, within| native.alter_configs(&name, &changes, mode, within)).await?;
        outcomes(answers).remove(topic).unwrap_or_else(|| Err(no_answer()))
    }

    /// Deletes topics with all that is in them. Repeating it answers [`Error::NotFound`].
    ///
    /// # Errors
    /// When brokers can't be asked at all; what is wrong with one topic is beside its name.
    pub async fn delete(&self, names: &[String]) -> Result<Outcomes, Error> {
        let names = c_names(names)?;
        self.run(move |native, within| native.delete_topics(&names, within)).await.map(outcomes)
    }

    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Native, Duration) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let (native, within) = (self.native.clone().ok_or_else(no_answer)?, self.within);
        let called =
            tokio::task::spawn_blocking(move || call(&native.lock().unwrap_or_else(PoisonError::into_inner), within));
        match called.await {
            Ok(answer) => answer.map_err(Error::from),
            Err(error) => Err(Error::Failed { why: error.to_string() }),
        }
    }
}

impl Drop for Admin {
    /// The library waits for its threads, one of which may be connecting: not on a thread that others wait for.
    fn drop(&mut self) {
        let native = self.native.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(native)));
        }
    }
}

fn no_answer() -> Error {
    Error::Failed { why: "the client has ended".to_owned() }
}

fn c_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<Vec<CString>, Error> {
    let refused = |_| Error::Refused { why: "a zero byte in the name of a topic".to_owned() };
    names.into_iter().map(|name| CString::new(name.as_str()).map_err(refused)).collect()
}

fn outcomes(answers: Answers<()>) -> Outcomes {
    answers.into_iter().map(|(name, answer)| (name, answer.map_err(Error::from))).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whoever else set it, it was not on this topic")]
fn state(shape: &TopicShape, settings: Vec<Setting>) -> TopicState {
    let id = shape.id.map(|(most, least)| {
        let bits = (u128::from(most.cast_unsigned()) << 64) | u128::from(least.cast_unsigned());
        URL_SAFE_NO_PAD.encode(bits.to_be_bytes())
    });
    let value = |setting: Setting| {
        let source = match setting.source {
            RDKafkaConfigSource::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG => Source::Topic,
            RDKafkaConfigSource::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_BROKER_CONFIG
            | RDKafkaConfigSource::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_DEFAULT_BROKER_CONFIG
            | RDKafkaConfigSource::RD_KAFKA_CONFIG_SOURCE_STATIC_BROKER_CONFIG => Source::Broker,
            _ => Source::Default,
        };
        (setting.name, ConfigValue { value: setting.value.filter(|_| !setting.is_sensitive), source })
    };
    TopicState {
        id,
        partitions: u32::try_from(shape.replicas.len()).unwrap_or(u32::MAX),
        replication_factor: shape.replicas.iter().min().and_then(|fewest| u16::try_from(*fewest).ok()).unwrap_or(0),
        configs: settings.into_iter().map(value).collect(),
    }
}
