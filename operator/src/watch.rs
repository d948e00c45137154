//! What wakes a cluster: watches, each in a task and with a backoff of its own, so that one that fails stops no other.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use crds::MessagingCluster;
use futures_util::StreamExt as _;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::{DeserializeGuard, DynamicObject, DynamicResourceScope, PartialObjectMeta},
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use tokio::sync::mpsc;

use crate::{cluster::build::CLUSTER_LABEL, kinds::Kind, metrics::Metrics};

/// A cluster as the API server gave it: perhaps one that this version can't read.
pub type Read = DeserializeGuard<MessagingCluster>;

/// Selects all objects that any operator of this kind made.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=messaging-operator";

/// Seconds after which the API server ends a watch, so that each is heard of that often.
const WATCH_SECONDS: u32 = 60;
/// Clusters that may wait to be told.
pub const QUEUE: usize = 1024;

/// Where the watched objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace.
    All,
    /// In one namespace.
    Namespace(String),
}

impl Scope {
    /// The calls for a kind within this scope.
    pub fn api<K>(&self, client: Client, kind: &K::DynamicType) -> Api<K>
    where
        K: Resource<Scope = DynamicResourceScope>,
    {
        match self {
            Self::All => Api::all_with(client, kind),
            Self::Namespace(namespace) => Api::namespaced_with(client, namespace, kind),
        }
    }

    /// The namespace, if it is one.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Namespace(namespace) => Some(namespace),
        }
    }
}

/// Wakes clusters.
#[derive(Clone)]
pub struct Wakes {
    sender: mpsc::Sender<ObjectRef<Read>>,
    metrics: Arc<Metrics>,
}

impl Wakes {
    /// Wakes, and what is woken.
    pub fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<ObjectRef<Read>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender, metrics }, receiver)
    }

    /// Wakes a cluster. An error means that nobody listens any more, so that the watch may end.
    async fn wake(&self, namespace: &str, name: &str) -> Result<(), Ended> {
        self.sender.send(ObjectRef::new(name).within(namespace)).await.map_err(|_| Ended)
    }
}

/// Nobody listens any more.
struct Ended;

/// Follows the clusters of a scope: keeps the store, and wakes what changed. Ends when nobody listens any more.
pub async fn clusters(client: Client, scope: Scope, mut writer: Writer<Read>, store: Store<Read>, wakes: Wakes) {
    let api: Api<Read> = match &scope {
        Scope::All => Api::all(client),
        Scope::Namespace(namespace) => Api::namespaced(client, namespace),
    };
    let mut seen = HashMap::new();
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                broke(&wakes, "messagingclusters", &error);
                continue;
            }
        };
        writer.apply_watcher_event(&event);
        // The store has the objects of a list only when the list is complete.
        let woken = match event {
            watcher::Event::Apply(cluster) => one(&cluster, &mut seen, &wakes).await,
            watcher::Event::Delete(cluster) => {
                seen.remove(&key(cluster.meta()));
                wakes.metrics.forget(&cluster.namespace().unwrap_or_default(), &cluster.name_any());
                Ok(())
            }
            watcher::Event::InitDone => all(&store, &mut seen, &wakes).await,
            watcher::Event::Init | watcher::Event::InitApply(_) => Ok(()),
        };
        if woken.is_err() {
            return;
        }
    }
}

/// Wakes one cluster, if anything but its status changed.
async fn one(cluster: &Read, seen: &mut HashMap<String, u64>, wakes: &Wakes) -> Result<(), Ended> {
    let now = look(cluster);
    if seen.insert(key(cluster.meta()), now) == Some(now) {
        return Ok(());
    }
    wakes.wake(&cluster.namespace().unwrap_or_default(), &cluster.name_any()).await
}

async fn all(store: &Store<Read>, seen: &mut HashMap<String, u64>, wakes: &Wakes) -> Result<(), Ended> {
    seen.clear();
    for cluster in store.state() {
        one(&cluster, seen, wakes).await?;
    }
    Ok(())
}

/// Everything of a cluster that a pass depends on, but not its status, which the passes write; only whether there is one.
fn look(cluster: &Read) -> u64 {
    let meta = cluster.meta();
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation, &meta.labels, &meta.annotations, &meta.finalizers).hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    let has_status = match &cluster.0 {
        Ok(cluster) => cluster.status.as_ref().is_some_and(|status| !status.conditions.is_empty()),
        Err(_) => true,
    };
    has_status.hash(&mut hasher);
    hasher.finish()
}

fn key(meta: &kube::core::ObjectMeta) -> String {
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Follows the objects of one kind that clusters are made of, and wakes their clusters. Ends when nobody listens any more.
pub async fn children(client: Client, scope: Scope, kind: &'static Kind, wakes: Wakes) {
    let api: Api<PartialObjectMeta<DynamicObject>> = scope.api(client, &kind.resource);
    let config = watcher::Config::default().labels(MANAGED).timeout(WATCH_SECONDS);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let object = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object) | watcher::Event::InitApply(object)) => {
                object
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                broke(&wakes, kind.plural, &error);
                continue;
            }
        };
        if let (Some(namespace), Some(cluster)) = (object.namespace(), object.labels().get(CLUSTER_LABEL))
            && wakes.wake(&namespace, cluster).await.is_err()
        {
            return;
        }
    }
}

fn broke(wakes: &Wakes, plural: &str, error: &watcher::Error) {
    wakes.metrics.watch_broke(plural);
    tracing::warn!(kind = plural, %error, "the watch of {plural} broke: {error}");
}
