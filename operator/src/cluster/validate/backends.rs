//! Kafka, `DynamoDB` and Redis: addresses, logins, prefixes.

use std::{ops::RangeInclusive, time::Duration};

use adapters::kafka::iam::region_of;
use crds::backends::{
    self as spec, BillingMode, DynamoDb as DynamoDbSpec, Kafka as KafkaSpec, KafkaAuthenticationMethod, KafkaProvider,
    Redis as RedisSpec,
};
use platform::Secret;
use proto::topics;

use super::{
    Authorities, Billing, Credentials, DynamoDb, Kafka, KafkaLogin, Redis, RedisLogin, Tables, Tls, Topic, Topics,
    faults::Faults,
    names,
    secrets::{self, Found},
    times,
};
use crate::topics::Partitions;

const RETENTION: RangeInclusive<Duration> = Duration::from_hours(1)..=Duration::from_hours(365 * 24);

/// The longest name of a topic.
const TOPIC_NAME: usize = 249;
/// The longest name of a table.
const TABLE_NAME: usize = 255;
/// The longest name of a table without its prefix.
const TABLE_ROLE: usize = 17;

/// Who a cluster is, for the names of what is outside of Kubernetes.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// The log. `None` only with a fault.
pub(super) fn kafka(faults: &mut Faults, found: &Found<'_>, who: Identity<'_>, kafka: &KafkaSpec) -> Option<Kafka> {
    for (place, broker) in kafka.bootstrap_servers.iter().enumerate() {
        address(faults, &format!("spec.kafka.bootstrapServers[{place}]"), broker, "kafka.backends:9092");
    }
    let provider = kafka.provider.unwrap_or_default();
    let always = matches!(provider, KafkaProvider::Msk | KafkaProvider::MskServerless);
    if always && kafka.tls.as_ref().is_some_and(|tls| !tls.enabled) {
        faults.spec(
            "spec.kafka.tls.enabled",
            format_args!("{provider:?} is always encrypted: leave tls out, or set true"),
        );
    }
    let tls = match &kafka.tls {
        None if always => Some(Tls::default()),
        tls => tls.as_ref().and_then(|tls| encryption(faults, found, tls, secrets::KAFKA_CA)),
    };
    let login = kafka_login(faults, found, kafka, tls.is_some());
    Some(Kafka {
        provider,
        brokers: kafka.bootstrap_servers.clone(),
        tls,
        login: login?,
        topics: topics(faults, who, &kafka.topics.clone().unwrap_or_default()),
    })
}

fn kafka_login(faults: &mut Faults, found: &Found<'_>, kafka: &KafkaSpec, is_encrypted: bool) -> Option<KafkaLogin> {
    let Some(login) = &kafka.authentication else { return Some(KafkaLogin::None) };
    let by_secret = matches!(login.method, KafkaAuthenticationMethod::Scram | KafkaAuthenticationMethod::Mtls);
    if by_secret && login.secret_ref.is_none() {
        faults.spec(
            "spec.kafka.authentication.secretRef",
            format_args!("{:?} needs a Secret to log in with", login.method),
        );
        return None;
    }
    match login.method {
        KafkaAuthenticationMethod::None => Some(KafkaLogin::None),
        KafkaAuthenticationMethod::AwsIam => {
            if !is_encrypted {
                faults.spec("spec.kafka.tls", "AwsIam needs tls with enabled: true");
            }
            if region_of(&kafka.bootstrap_servers.join(",")).is_none() {
                let message = "AwsIam takes the region from the brokers' names: name them as AWS does, such as \
                               boot-abc.c1.kafka-serverless.eu-west-1.amazonaws.com:9098";
                faults.spec("spec.kafka.bootstrapServers", message);
            }
            Some(KafkaLogin::AwsIam)
        }
        KafkaAuthenticationMethod::Scram => {
            let user = found.text(faults, secrets::KAFKA_LOGIN, "username");
            let password = found.text(faults, secrets::KAFKA_LOGIN, "password");
            let (secret, _) = found.data(secrets::KAFKA_LOGIN)?;
            Some(KafkaLogin::Scram {
                secret: secret.to_owned(),
                user: Secret::new(user?),
                password: Secret::new(password?),
            })
        }
        KafkaAuthenticationMethod::Mtls => {
            if !is_encrypted {
                faults.spec("spec.kafka.tls", "Mtls needs tls with enabled: true");
            }
            let certificate = pem(faults, found, secrets::KAFKA_LOGIN, "tls.crt", "CERTIFICATE");
            let key = pem(faults, found, secrets::KAFKA_LOGIN, "tls.key", "PRIVATE KEY");
            let (secret, _) = found.data(secrets::KAFKA_LOGIN)?;
            Some(KafkaLogin::Mtls { secret: secret.to_owned(), certificate: certificate?, key: Secret::new(key?) })
        }
    }
}

fn topics(faults: &mut Faults, who: Identity<'_>, spec: &spec::Topics) -> Topics {
    let prefix = spec.prefix.clone().unwrap_or_else(|| format!("{}.{}.", who.namespace, who.name));
    let wanted = topics::Topic::ALL.map(|role| {
        let (field, topic) = match role {
            topics::Topic::MessagesPersisted => ("messages", &spec.messages),
            topics::Topic::MembershipsChanged => ("memberships", &spec.memberships),
            topics::Topic::ChatsCreated => ("chats", &spec.chats),
            topics::Topic::DeadLetters => ("deadLetters", &spec.dead_letters),
        };
        let topic = topic.clone().unwrap_or_default();
        let path = format!("spec.kafka.topics.{field}.retention");
        let name = format!("{prefix}{}", role.name());
        if name.len() > TOPIC_NAME {
            faults.spec("spec.kafka.topics.prefix", format_args!("{name} is longer than {TOPIC_NAME} characters"));
        }
        let partitions = topic.partitions.and_then(|partitions| u32::try_from(partitions).ok());
        Topic {
            role,
            name,
            partitions: match partitions {
                Some(asked) => Partitions::Exactly(asked),
                None => Partitions::AtLeast(role.default_partitions()),
            },
            retention: topic.retention.and_then(|text| times::read(faults, &path, &text, &RETENTION)),
        }
    });
    Topics {
        management: spec.management.unwrap_or_default(),
        prefix,
        deletion_policy: spec.deletion_policy.unwrap_or_default(),
        adoption_policy: spec.adoption_policy.unwrap_or_default(),
        replication_factor: spec.replication_factor,
        wanted: wanted.to_vec(),
    }
}

/// The store. `None` only with a fault.
pub(super) fn dynamodb(
    faults: &mut Faults,
    found: &Found<'_>,
    who: Identity<'_>,
    dynamodb: &DynamoDbSpec,
) -> Option<DynamoDb> {
    let endpoint = dynamodb.endpoint.as_ref().map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    if endpoint.as_ref().is_some_and(|endpoint| !names::is_origin(endpoint, &["http", "https"])) {
        let message = "must be http or https, a host, and a port from 1 to 65535, as http://dynamodb.backends:8000";
        faults.spec("spec.dynamodb.endpoint", message);
    }
    let credentials = match &dynamodb.credentials_secret_ref {
        None => None,
        Some(reference) => {
            let id = found.word(faults, secrets::DYNAMODB, "access-key-id");
            let key = found.word(faults, secrets::DYNAMODB, "secret-access-key");
            let (access_key_id, secret_access_key) = (id?, Secret::new(key?));
            Some(Credentials { secret: reference.name.clone(), access_key_id, secret_access_key })
        }
    };
    let tables = dynamodb.tables.clone().unwrap_or_default();
    let prefix = tables.prefix.unwrap_or_else(|| format!("{}-{}-", who.namespace, who.name));
    if prefix.len() + TABLE_ROLE > TABLE_NAME {
        let most = TABLE_NAME - TABLE_ROLE;
        faults.spec("spec.dynamodb.tables.prefix", format_args!("must have at most {most} characters"));
    }
    Some(DynamoDb {
        region: dynamodb.region.clone(),
        endpoint,
        credentials,
        tables: Tables {
            management: tables.management.unwrap_or_default(),
            prefix,
            deletion_policy: tables.deletion_policy.unwrap_or_default(),
            adoption_policy: tables.adoption_policy.unwrap_or_default(),
            billing: billing(faults, tables.billing.as_ref()),
            point_in_time_recovery: tables.point_in_time_recovery,
            deletion_protection: tables.deletion_protection,
        },
    })
}

fn billing(faults: &mut Faults, spec: Option<&spec::Billing>) -> Billing {
    let Some(spec) = spec else { return Billing::OnDemand };
    match (spec.mode, spec.read_capacity, spec.write_capacity) {
        (BillingMode::OnDemand, None, None) => Billing::OnDemand,
        (BillingMode::Provisioned, Some(read), Some(write)) => Billing::Provisioned { read, write },
        (BillingMode::OnDemand | BillingMode::Provisioned, ..) => {
            let message = "readCapacity and writeCapacity are required with Provisioned, and unused with OnDemand";
            faults.spec("spec.dynamodb.tables.billing", message);
            Billing::OnDemand
        }
    }
}

/// The cache. `None` only with a fault.
pub(super) fn redis(faults: &mut Faults, found: &Found<'_>, prefix: &str, redis: &RedisSpec) -> Option<Redis> {
    address(faults, "spec.redis.endpoint", &redis.endpoint, "redis.backends:6379");
    let tls = redis.tls.as_ref().and_then(|tls| encryption(faults, found, tls, secrets::REDIS_CA));
    let login = match &redis.authentication {
        None => None,
        Some(login) => {
            let user = found.text(faults, secrets::REDIS_LOGIN, "username").map(Secret::new);
            let password = Secret::new(found.text(faults, secrets::REDIS_LOGIN, "password")?);
            Some(RedisLogin { secret: login.secret_ref.name.clone(), user, password })
        }
    };
    Some(Redis { endpoint: redis.endpoint.clone(), prefix: prefix.to_owned(), tls, login })
}

fn encryption(faults: &mut Faults, found: &Found<'_>, tls: &spec::Tls, path: &str) -> Option<Tls> {
    if !tls.enabled {
        return None;
    }
    let authorities = tls.ca_secret_ref.as_ref().and_then(|reference| {
        let pem = pem(faults, found, path, "ca.crt", "CERTIFICATE")?;
        Some(Authorities { secret: reference.name.clone(), pem })
    });
    Some(Tls { authorities })
}

/// A PEM text that has at least one block of this kind.
fn pem(faults: &mut Faults, found: &Found<'_>, path: &str, key: &str, kind: &str) -> Option<String> {
    let text = found.text(faults, path, key)?;
    let has_block = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(kind));
    if !has_block {
        faults.reference(path, format_args!("what stands under {key} is no PEM with a {kind}"));
    }
    has_block.then_some(text)
}

fn address(faults: &mut Faults, path: &str, text: &str, example: &str) {
    if !names::is_host_port(text) {
        faults.spec(path, format_args!("{text:?} is not a host and a port from 1 to 65535, such as {example}"));
    }
}

#[cfg(test)]
mod tests {
    use adapters::dynamodb::layout::Table;

    use super::*;

    #[test]
    fn the_longest_name_of_a_table_is_known() {
        assert_eq!(Table::ALL.iter().map(|table| table.name().len()).max(), Some(TABLE_ROLE));
    }
}
