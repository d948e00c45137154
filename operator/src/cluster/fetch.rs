//! Reads all that a cluster refers to and all that it has. First of five calls; the next is `cluster/validate.rs`.

use std::{collections::BTreeMap, fmt};

use crds::MessagingCluster;
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    core::{DynamicObject, TypeMeta},
};

use crate::{
    cluster::{
        Context, Error,
        build::CLUSTER_LABEL,
        rollout,
        validate::{self, References, SecretData, Service},
    },
    kinds::{self, Kind},
    watch::MANAGED,
};

/// Pods of one service that are looked at for a reason why they don't start.
const PODS: u32 = 20;

/// Names one object of a cluster.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of an object that carries its type; `None` when no cluster is made of such.
    pub fn of(object: &DynamicObject) -> Option<Self> {
        Some(Self { kind: kinds::of(object.types.as_ref()?)?, name: object.name_any() })
    }

    fn pair(&self) -> (&'static str, &str) {
        (self.kind.plural, &self.name)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.pair() == other.pair()
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.pair().hash(state);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.pair().cmp(&other.pair())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind.name(), self.name)
    }
}

/// The objects that a cluster has.
#[derive(Debug, Default)]
pub struct Live(BTreeMap<Key, DynamicObject>);

impl Live {
    /// What an object is at present, if it is there.
    pub fn of(&self, wanted: &DynamicObject) -> Option<&DynamicObject> {
        self.get(&Key::of(wanted)?)
    }

    /// The Deployment of a service, if it is there.
    pub fn deployment(&self, cluster: &str, service: Service) -> Option<&DynamicObject> {
        let name = format!("{cluster}-{service}");
        self.0.iter().find(|(key, _)| kinds::is_deployment(key.kind) && key.name == name).map(|(_, object)| object)
    }

    /// One object, if it is there.
    pub fn get(&self, key: &Key) -> Option<&DynamicObject> {
        self.0.get(key)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &DynamicObject)> {
        self.0.iter()
    }
}

/// What was read.
#[derive(Debug)]
pub struct Fetched {
    /// What the spec refers to.
    pub references: References,
    /// Secrets that the operator may not read.
    pub denied: Vec<String>,
    /// What the cluster has.
    pub live: Live,
}

/// Reads all that a cluster refers to and all that it has, from the API server itself and no cache.
///
/// # Errors
/// When the API server does not answer.
pub async fn fetch(cluster: &MessagingCluster, context: &Context) -> Result<Fetched, Error> {
    let known = context.known().await?;
    let (secrets, live) = tokio::try_join!(secrets(cluster, context), live(cluster, context, known))?;
    let mut denied = Vec::new();
    let mut found = BTreeMap::new();
    for (name, secret) in secrets {
        found.insert(
            name.clone(),
            match secret {
                Answer::Found(data) => Some(data),
                Answer::Missing => None,
                Answer::Denied => {
                    denied.push(name);
                    None
                }
            },
        );
    }
    let replicas = Service::ALL
        .iter()
        .filter_map(|service| Some((*service, rollout::replicas(live.deployment(&cluster.name_any(), *service)?)?)));
    let references = References { secrets: found, kinds: known, live_replicas: replicas.collect() };
    Ok(Fetched { references, denied, live })
}

enum Answer {
    Found(SecretData),
    Missing,
    Denied,
}

async fn secrets(cluster: &MessagingCluster, context: &Context) -> Result<Vec<(String, Answer)>, Error> {
    let api: Api<Secret> = Api::namespaced(context.clients.objects.clone(), &cluster.namespace().unwrap_or_default());
    let mut names: Vec<String> = validate::secrets_of(&cluster.spec).into_iter().map(|used| used.name).collect();
    names.sort();
    names.dedup();
    let reads = names.into_iter().map(|name| {
        let api = api.clone();
        async move {
            let answer = match api.get_opt(&name).await {
                Ok(Some(secret)) => Answer::Found(SecretData(
                    secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect(),
                )),
                Ok(None) => Answer::Missing,
                Err(kube::Error::Api(status)) if status.code == 403 => Answer::Denied,
                Err(error) => return Err(error.into()),
            };
            Ok((name, answer))
        }
    });
    try_join_all(reads).await
}

async fn live(cluster: &MessagingCluster, context: &Context, known: validate::Kinds) -> Result<Live, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let selector = format!("{MANAGED},{CLUSTER_LABEL}={}", cluster.name_any());
    let lists = kinds::known(known).map(|kind| {
        let api: Api<DynamicObject> = Api::namespaced_with(context.clients.objects.clone(), &namespace, &kind.resource);
        let how = ListParams::default().labels(&selector);
        async move {
            let list = api.list(&how).await?;
            Ok::<_, Error>((kind, list))
        }
    });
    let mut live = BTreeMap::new();
    for (kind, list) in try_join_all(lists).await? {
        for mut object in list {
            // Items of a list do not carry their type.
            object.types =
                Some(TypeMeta { api_version: kind.resource.api_version.clone(), kind: kind.resource.kind.clone() });
            live.insert(Key { kind, name: object.name_any() }, object);
        }
    }
    Ok(Live(live))
}

/// Why a pod of a service can't get its image, if that is so.
///
/// # Errors
/// When the API server does not answer.
pub async fn image_trouble(
    cluster: &MessagingCluster,
    service: Service,
    context: &Context,
) -> Result<Option<String>, Error> {
    let api: Api<Pod> = Api::namespaced(context.clients.objects.clone(), &cluster.namespace().unwrap_or_default());
    let selector =
        format!("{MANAGED},{CLUSTER_LABEL}={},app.kubernetes.io/name={}", cluster.name_any(), service.name());
    let pods = api.list(&ListParams::default().labels(&selector).limit(PODS)).await?;
    let waiting =
        pods.items.into_iter().filter_map(|pod| pod.status).filter_map(|status| status.container_statuses).flatten();
    Ok(waiting.filter_map(|status| status.state?.waiting).find_map(|waiting| {
        let reason = waiting.reason?;
        let image = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"];
        image.contains(&reason.as_str()).then(|| format!("{reason}: {}", waiting.message.unwrap_or_default()))
    }))
}
