//! Topics and tables of clusters: when the engines look and act, and what they said last.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use adapters::{
    dynamodb::admin as dynamodb,
    kafka::admin::{self as kafka, Authentication, Identity, Security},
};
use kube::Client;
use tokio::time::Instant;

use crate::{
    cluster::validate::{Billing, Cluster, KafkaLogin},
    config::Settings,
    engine::{self, Act, Convergence, Gone, Owner, Report},
    lease::Fence,
    ledger::{ConfigMapLedger, Part},
    metrics::Metrics,
    tables, topics,
};

/// How long a pass of an engine may begin new work; what is left waits for the next.
const BUDGET: Duration = Duration::from_secs(5);
/// How long one call may take.
const WITHIN: Duration = Duration::from_secs(4);

/// What the engines said of one cluster; `None` where nobody has looked yet.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// Of its topics.
    pub topics: Option<Report>,
    /// Of its tables.
    pub tables: Option<Report>,
}

impl Reports {
    /// When to look again.
    pub fn next(&self) -> Option<Duration> {
        [&self.topics, &self.tables].into_iter().flatten().map(|report| report.next).min()
    }
}

/// Topics and tables of all clusters.
pub struct Backends {
    client: Client,
    metrics: Arc<Metrics>,
    fence: Fence,
    topics_resync: Duration,
    tables_resync: Duration,
    /// By the cluster's uid.
    clusters: Mutex<HashMap<String, Arc<tokio::sync::Mutex<State>>>>,
}

/// What is kept of one cluster from pass to pass.
#[derive(Default)]
struct State {
    topics: Kept<kafka::Admin>,
    tables: Kept<dynamodb::Admin>,
}

/// What is kept of one engine.
struct Kept<A> {
    /// One who may change things, and what it was made for.
    admin: Option<(u64, Arc<A>)>,
    convergence: Convergence,
    /// What was said last, when, and of what was wanted.
    last: Option<(Report, Instant, u64)>,
}

impl<A> Default for Kept<A> {
    fn default() -> Self {
        Self { admin: None, convergence: Convergence::default(), last: None }
    }
}

impl<A> Kept<A> {
    /// What was said last, if that is still good: of the same wishes, and not too long ago.
    fn fresh(&self, wanted: u64, resync: Duration) -> Option<Report> {
        let (report, at, of) = self.last.as_ref()?;
        let holds = if report.class() == engine::Class::InSync { resync } else { report.next };
        let left = holds.checked_sub(at.elapsed())?;
        (*of == wanted && !left.is_zero()).then(|| Report { next: left, notices: Vec::new(), ..report.clone() })
    }

    fn keep(&mut self, report: &Report, wanted: u64) {
        self.last = Some((report.clone(), Instant::now(), wanted));
    }

    fn last(&self) -> Option<Report> {
        self.last.as_ref().map(|(report, ..)| Report { notices: Vec::new(), ..report.clone() })
    }
}

impl Backends {
    /// Nobody has looked yet.
    pub fn new(client: Client, metrics: Arc<Metrics>, fence: Fence, settings: &Settings) -> Self {
        let (topics_resync, tables_resync) = (settings.topics_resync, settings.tables_resync);
        Self { client, metrics, fence, topics_resync, tables_resync, clusters: Mutex::default() }
    }

    /// Brings topics and tables of a cluster in sync, or plans it, as far as it is time to.
    pub async fn sync(&self, cluster: &Cluster, act: Act) -> Reports {
        let state = self.state(&cluster.uid);
        let mut state = state.lock().await;
        let State { topics, tables } = &mut *state;
        let (topics, tables) = tokio::join!(self.topics(cluster, act, topics), self.tables(cluster, act, tables));
        Reports { topics, tables }
    }

    async fn topics(&self, cluster: &Cluster, act: Act, kept: &mut Kept<kafka::Admin>) -> Option<Report> {
        let wanted = wanted_topics(cluster);
        let connection = brokers(cluster);
        let made_for = hash(&(format!("{wanted:?}{act:?}"), secrets(&connection)));
        if let Some(report) = kept.fresh(made_for, self.topics_resync) {
            return Some(report);
        }
        let report = match Self::topics_admin(&connection, kept) {
            Ok(admin) => {
                let ledger = self.ledger(cluster, Part::Topics);
                let pass = topics::Pass {
                    brokers: &*admin,
                    ledger: &ledger,
                    fence: &self.fence,
                    convergence: &mut kept.convergence,
                };
                pass.run(&wanted, act).await.map_err(|failure| failure.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        self.count("kafka", report, made_for, kept)
    }

    async fn tables(&self, cluster: &Cluster, act: Act, kept: &mut Kept<dynamodb::Admin>) -> Option<Report> {
        let wanted = wanted_tables(cluster);
        let connection = store(cluster);
        let key = connection.credentials.as_ref().map(|(id, key)| (id.clone(), key.expose().to_owned()));
        let made_for = hash(&(format!("{wanted:?}{act:?}{connection:?}"), key));
        if let Some(report) = kept.fresh(made_for, self.tables_resync) {
            return Some(report);
        }
        let admin = tables_admin(&connection, kept).await;
        let ledger = self.ledger(cluster, Part::Tables);
        let pass =
            tables::Pass { tables: &*admin, ledger: &ledger, fence: &self.fence, convergence: &mut kept.convergence };
        let report = pass.run(&wanted, act).await.map_err(|failure| failure.to_string());
        self.count("dynamodb", report, made_for, kept)
    }

    /// Counts what an engine did, keeps what it said, and falls back on what it said before.
    fn count<A>(
        &self,
        backend: &'static str,
        report: Result<Report, String>,
        made_for: u64,
        kept: &mut Kept<A>,
    ) -> Option<Report> {
        match report {
            Ok(report) => {
                self.metrics.backend(backend, "read", report.reason.as_str(), report.reads);
                self.metrics.backend(backend, "write", report.reason.as_str(), report.writes);
                kept.keep(&report, made_for);
                Some(report)
            }
            Err(message) => {
                tracing::warn!(backend, "a pass over {backend} came to nothing: {message}");
                kept.last()
            }
        }
    }

    /// Deletes those of a cluster that are to be deleted with it.
    pub async fn delete(&self, cluster: &Cluster) -> (Gone, Gone) {
        let state = self.state(&cluster.uid);
        let mut state = state.lock().await;
        let State { topics: of_topics, tables: of_tables } = &mut *state;
        let wanted = wanted_topics(cluster);
        let topics = match Self::topics_admin(&brokers(cluster), of_topics) {
            Ok(admin) => {
                let ledger = self.ledger(cluster, Part::Topics);
                let (brokers, fence, convergence) = (&*admin, &self.fence, &mut of_topics.convergence);
                let pass = topics::Pass { brokers, ledger: &ledger, fence, convergence };
                pass.delete(&wanted).await.unwrap_or_else(|failure| Gone::Working(failure.to_string()))
            }
            Err(error) => Gone::Blocked(engine::Reason::KafkaUnreachable, error.to_string()),
        };
        let admin = tables_admin(&store(cluster), of_tables).await;
        let ledger = self.ledger(cluster, Part::Tables);
        let (store, fence, convergence) = (&*admin, &self.fence, &mut of_tables.convergence);
        let pass = tables::Pass { tables: store, ledger: &ledger, fence, convergence };
        let wanted = wanted_tables(cluster);
        let tables = pass.delete(&wanted).await.unwrap_or_else(|failure| Gone::Working(failure.to_string()));
        (topics, tables)
    }

    /// What was said last.
    pub async fn last(&self, uid: &str) -> Reports {
        let state = self.state(uid);
        let state = state.lock().await;
        Reports { topics: state.topics.last(), tables: state.tables.last() }
    }

    /// Forgets a cluster.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn topics_admin(
        connection: &kafka::Connection,
        kept: &mut Kept<kafka::Admin>,
    ) -> Result<Arc<kafka::Admin>, kafka::Error> {
        let made_for = secrets(connection);
        if let Some((of, admin)) = &kept.admin
            && *of == made_for
        {
            return Ok(admin.clone());
        }
        let admin = Arc::new(kafka::Admin::new(connection)?);
        kept.admin = Some((made_for, admin.clone()));
        Ok(admin)
    }

    fn ledger(&self, cluster: &Cluster, part: Part) -> ConfigMapLedger {
        ConfigMapLedger::new(self.client.clone(), &cluster.namespace, &cluster.name, part)
    }

    fn state(&self, uid: &str) -> Arc<tokio::sync::Mutex<State>> {
        self.lock().entry(uid.to_owned()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<State>>>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tables_admin(connection: &dynamodb::Connection, kept: &mut Kept<dynamodb::Admin>) -> Arc<dynamodb::Admin> {
    let key = connection.credentials.as_ref().map(|(id, key)| (id.clone(), key.expose().to_owned()));
    let made_for = hash(&(format!("{connection:?}"), key));
    if let Some((of, admin)) = &kept.admin
        && *of == made_for
    {
        return admin.clone();
    }
    let admin = Arc::new(dynamodb::Admin::new(connection).await);
    kept.admin = Some((made_for, admin.clone()));
    admin
}

fn owner(cluster: &Cluster) -> Owner {
    Owner { namespace: cluster.namespace.clone(), name: cluster.name.clone(), uid: cluster.uid.clone() }
}

fn wanted_topics(cluster: &Cluster) -> topics::Wanted {
    let asked = &cluster.kafka().topics;
    topics::Wanted {
        owner: owner(cluster),
        provider: cluster.kafka().provider,
        management: asked.management,
        deletion: asked.deletion_policy,
        adoption: asked.adoption_policy,
        replication_factor: asked.replication_factor.and_then(|factor| u16::try_from(factor).ok()),
        topics: asked
            .wanted
            .iter()
            .map(|topic| topics::WantedTopic {
                topic: topic.role,
                name: topic.name.clone(),
                partitions: topic.partitions,
                retention: topic.retention.unwrap_or_else(|| topic.role.default_retention()),
            })
            .collect(),
        budget: BUDGET,
    }
}

fn brokers(cluster: &Cluster) -> kafka::Connection {
    let asked = cluster.kafka();
    let authorities = asked.tls.as_ref().map(|tls| tls.authorities.as_ref().map(|authorities| authorities.pem.clone()));
    let mut tls = authorities.map(|authorities| kafka::Tls { authorities, identity: None });
    let authentication = match &asked.login {
        KafkaLogin::None => Authentication::None,
        KafkaLogin::AwsIam => Authentication::AwsIam,
        KafkaLogin::Scram { user, password, .. } => {
            Authentication::Scram { user: user.expose().to_owned(), password: password.clone() }
        }
        KafkaLogin::Mtls { certificate, key, .. } => {
            let identity = Identity { certificate: certificate.clone(), key: key.clone() };
            tls.get_or_insert_default().identity = Some(identity);
            Authentication::None
        }
    };
    kafka::Connection { brokers: asked.brokers.join(","), security: Security { authentication, tls }, within: WITHIN }
}

/// A hash of a connection and of the secrets in it, which its `Debug` does not show.
fn secrets(connection: &kafka::Connection) -> u64 {
    let password = match &connection.security.authentication {
        Authentication::Scram { password, .. } => password.expose(),
        Authentication::None | Authentication::AwsIam => "",
    };
    let identity = connection.security.tls.as_ref().and_then(|tls| tls.identity.as_ref());
    let key = identity.map_or("", |identity| identity.key.expose());
    hash(&(format!("{connection:?}"), password, key))
}

fn wanted_tables(cluster: &Cluster) -> tables::Wanted {
    let asked = &cluster.dynamodb().tables;
    let switch = |on: bool| if on { dynamodb::Switch::On } else { dynamodb::Switch::Off };
    tables::Wanted {
        owner: owner(cluster),
        management: asked.management,
        deletion: asked.deletion_policy,
        adoption: asked.adoption_policy,
        billing: match asked.billing {
            Billing::OnDemand => dynamodb::Billing::OnDemand,
            Billing::Provisioned { read, write } => dynamodb::Billing::Provisioned { read, write },
        },
        point_in_time_recovery: asked.point_in_time_recovery.map(switch),
        deletion_protection: asked.deletion_protection.map(switch),
        tables: tables::Wanted::all_tables(&asked.prefix),
        budget: BUDGET,
    }
}

fn store(cluster: &Cluster) -> dynamodb::Connection {
    let asked = cluster.dynamodb();
    dynamodb::Connection {
        region: asked.region.clone(),
        endpoint: asked.endpoint.clone(),
        credentials: asked.credentials.as_ref().map(|key| (key.access_key_id.clone(), key.secret_access_key.clone())),
        within: WITHIN,
    }
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
