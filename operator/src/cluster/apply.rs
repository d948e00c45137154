//! Makes the objects of a cluster what they should be: server-side apply in a stated order, then prune. Fourth of five calls;
//! the next is `cluster/status.rs`.
//!
//! Nothing is written that was written before and has not changed since, so a cluster at rest costs no writes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::{DynamicObject, ObjectMeta},
};

use crate::{
    cluster::{
        Context, Error,
        build::{CLUSTER_LABEL, Objects},
        fetch::{Key, Live},
        rollout,
        validate::Service,
    },
    kinds::Kind,
};

/// Who owns the fields that the operator sets.
pub const MANAGER: &str = "messaging-operator";
/// Objects that are written at a time.
const AT_A_TIME: usize = 8;

/// The order of a rollout: who is called is newer than who calls.
pub const ORDER: [Service; 4] = [Service::ChatMgmt, Service::Ingest, Service::Fanout, Service::Gateway];

/// What became of the objects.
#[derive(Debug, Default)]
pub struct Applied {
    /// The Deployments as they are now.
    pub deployments: BTreeMap<Service, DynamicObject>,
    /// Services whose new template waits until the services before them have rolled out.
    pub held: Vec<Service>,
    /// What could not be written.
    pub failures: Vec<Failure>,
    /// Objects written.
    pub written: usize,
}

/// An object that could not be written.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The object, as `Deployment/chat-gateway`.
    pub object: String,
    /// What went wrong.
    pub cause: Cause,
    /// The same for people.
    pub message: String,
}

/// Why an object could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The name is another's.
    Foreign,
    /// It is left from an earlier cluster of the same name and about to be collected, or changed meanwhile: look again soon.
    Leaving,
    /// The API server refuses it: trying again is of no use.
    Refused,
    /// Anything else: it is tried again.
    Failed,
}

/// Remembers what was written, so that it is not written again.
#[derive(Debug, Default)]
pub struct Settled(Mutex<HashMap<(String, Key), (u64, String)>>);

impl Settled {
    fn is(&self, owner: &str, key: &Key, wanted: u64, live: &DynamicObject) -> bool {
        let version = live.metadata.resource_version.as_ref();
        self.lock()
            .get(&(owner.to_owned(), key.clone()))
            .is_some_and(|(hash, seen)| *hash == wanted && Some(seen) == version)
    }

    fn remember(&self, owner: &str, key: Key, wanted: u64, written: &DynamicObject) {
        let version = written.metadata.resource_version.clone().unwrap_or_default();
        self.lock().insert((owner.to_owned(), key), (wanted, version));
    }

    /// Forgets a cluster.
    pub fn forget(&self, owner: &str) {
        self.lock().retain(|(of, _), _| of != owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Key), (u64, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies all objects of a cluster, the Deployments in their order, and deletes what is no longer wanted.
///
/// Failures of single objects are in what it returns, so that the others are applied all the same.
///
/// # Errors
/// When this process no longer leads.
pub async fn apply(owner: &ObjectMeta, objects: &Objects, live: &Live, context: &Context) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    let settings = objects.settings.iter().filter(|(service, _)| !changes(objects, live, **service));
    let writes: Vec<_> = (objects.base.iter().chain(settings.map(|(_, settings)| settings)))
        .map(|object| write(owner, object, live.of(object), Lock::None, context).boxed())
        .collect();
    for written in stream::iter(writes).buffered(AT_A_TIME).collect::<Vec<_>>().await {
        record(written, &mut applied)?;
    }
    deploy(owner, objects, live, context, &mut applied).await?;
    prune(owner, objects, live, context, &mut applied).await?;
    Ok(applied)
}

/// Whether the template of a service's Deployment changes, which waits for its turn.
fn changes(objects: &Objects, live: &Live, service: Service) -> bool {
    objects
        .workloads
        .get(&service)
        .is_some_and(|wanted| live.of(wanted).is_some_and(|now| rollout::template(now) != rollout::template(wanted)))
}

/// Applies the Deployments. A new one at once; a changed template, and the settings that it reads, when the services before
/// it have rolled out.
async fn deploy(
    owner: &ObjectMeta,
    objects: &Objects,
    live: &Live,
    context: &Context,
    applied: &mut Applied,
) -> Result<(), Error> {
    let mut is_open = true;
    for service in ORDER {
        let Some(wanted) = objects.workloads.get(&service) else { continue };
        let now = live.of(wanted);
        let changes = changes(objects, live, service);
        if changes && !is_open {
            applied.held.push(service);
            if let Some(now) = now {
                applied.deployments.insert(service, now.clone());
            }
            continue;
        }
        if changes && let Some(settings) = objects.settings.get(&service) {
            let written = write(owner, settings, live.of(settings), Lock::None, context).await;
            if record(written, applied)?.is_none() {
                is_open = false;
                continue;
            }
        }
        let lock = if hands_over(wanted, objects) { Lock::AsRead } else { Lock::None };
        match record(write(owner, wanted, now, lock, context).await, applied)? {
            Some(written) => {
                is_open &= rollout::is_done(&written, wanted);
                applied.deployments.insert(service, written);
            }
            None => is_open = false,
        }
    }
    Ok(())
}

/// Whether an object may have changed since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// It may.
    None,
    /// It must not: what is written depends on what was read.
    AsRead,
}

/// Whether a Deployment carries the number of pods that an autoscaler is about to own. Its number may change meanwhile, and
/// writing the one that was read would undo that.
fn hands_over(wanted: &DynamicObject, objects: &Objects) -> bool {
    let name = wanted.name_any();
    let is_scaler = |object: &&DynamicObject| {
        object.types.as_ref().is_some_and(|types| types.kind == "HorizontalPodAutoscaler") && object.name_any() == name
    };
    wanted.data.pointer("/spec/replicas").is_some() && objects.base.iter().any(|object| is_scaler(&object))
}

/// What became of one write.
enum Written {
    Unchanged(DynamicObject),
    Changed(DynamicObject),
    Not(Failure),
}

fn record(written: Result<Written, Error>, applied: &mut Applied) -> Result<Option<DynamicObject>, Error> {
    Ok(match written? {
        Written::Unchanged(object) => Some(object),
        Written::Changed(object) => {
            applied.written += 1;
            Some(object)
        }
        Written::Not(failure) => {
            applied.failures.push(failure);
            None
        }
    })
}

async fn write(
    owner: &ObjectMeta,
    wanted: &DynamicObject,
    live: Option<&DynamicObject>,
    lock: Lock,
    context: &Context,
) -> Result<Written, Error> {
    let Some(key) = Key::of(wanted) else {
        let message = "no cluster is made of objects of this kind".to_owned();
        return Ok(Written::Not(Failure { object: wanted.name_any(), cause: Cause::Refused, message }));
    };
    let hash = hash(wanted);
    let uid = owner.uid.as_deref().unwrap_or_default();
    if let Some(live) = live
        && context.settled.is(uid, &key, hash, live)
    {
        return Ok(Written::Unchanged(live.clone()));
    }
    context.fence.check()?;
    let api = api(key.kind, owner, context);
    let fail = |cause, message: String| Ok(Written::Not(Failure { object: key.to_string(), cause, message }));
    let there = match live {
        Some(live) => Some(live.metadata.clone()),
        // Not among the labelled ones, which does not mean that the name is free.
        None => match api.get_metadata_opt(&key.name).await {
            Ok(found) => found.map(|found| found.metadata),
            Err(error) => return fail(cause(&error), error.to_string()),
        },
    };
    if let Some((cause, message)) = there.and_then(|there| stranger(&there, owner, &key)) {
        return fail(cause, message);
    }
    let before = live.and_then(|live| live.metadata.resource_version.clone());
    let mut wanted = wanted.clone();
    if lock == Lock::AsRead {
        wanted.metadata.resource_version.clone_from(&before);
    }
    match api.patch(&key.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(wanted)).await {
        Ok(written) => {
            context.settled.remember(uid, key.clone(), hash, &written);
            if written.metadata.resource_version == before {
                return Ok(Written::Unchanged(written));
            }
            context.metrics.wrote(key.kind.plural);
            tracing::info!(object = %key, cluster = owner.name.as_deref(), "applied {key}");
            Ok(Written::Changed(written))
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            fail(Cause::Leaving, format!("{key} changed while it was being applied; the next pass looks again"))
        }
        Err(error) => fail(cause(&error), error.to_string()),
    }
}

/// Why an object that is there can't be this cluster's, if so.
fn stranger(there: &ObjectMeta, owner: &ObjectMeta, key: &Key) -> Option<(Cause, String)> {
    let controller = there.owner_references.iter().flatten().find(|reference| reference.controller == Some(true));
    match controller {
        Some(reference) if Some(&reference.uid) == owner.uid.as_ref() => None,
        Some(reference) if reference.kind == "MessagingCluster" && Some(&reference.name) == owner.name.as_ref() => {
            Some((
                Cause::Leaving,
                format!("{key} is left from an earlier MessagingCluster of this name and is about to be collected"),
            ))
        }
        Some(reference) => Some((
            Cause::Foreign,
            format!(
                "{key} belongs to {}/{}; rename the MessagingCluster, or delete that object",
                reference.kind, reference.name
            ),
        )),
        None => {
            let ours = there
                .labels
                .iter()
                .flatten()
                .any(|(name, value)| name == CLUSTER_LABEL && Some(value) == owner.name.as_ref());
            (!ours).then(|| {
                (
                    Cause::Foreign,
                    format!("{key} exists already and is nobody's of ours; rename the MessagingCluster, or delete that object"),
                )
            })
        }
    }
}

/// Deletes this cluster's objects that are no longer wanted, each by its uid.
async fn prune(
    owner: &ObjectMeta,
    objects: &Objects,
    live: &Live,
    context: &Context,
    applied: &mut Applied,
) -> Result<(), Error> {
    let wanted = objects.keys();
    for (key, object) in live.iter() {
        let is_ours = object.metadata.owner_references.iter().flatten().any(|one| Some(&one.uid) == owner.uid.as_ref());
        if !is_ours || wanted.contains(key) || object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        context.fence.check()?;
        let only_this = Preconditions { uid: object.uid(), resource_version: None };
        let how = DeleteParams {
            preconditions: Some(only_this),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match api(key.kind, owner, context).delete(&key.name, &how).await {
            Ok(_) => {
                context.metrics.wrote(key.kind.plural);
                applied.written += 1;
                tracing::info!(object = %key, cluster = owner.name.as_deref(), "deleted {key}, which is no longer wanted");
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => {
                applied.failures.push(Failure {
                    object: key.to_string(),
                    cause: cause(&error),
                    message: error.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Looks only: the Deployments of a cluster as they are, and nothing written.
pub fn observe(cluster: &str, live: &Live) -> Applied {
    let found =
        Service::ALL.into_iter().filter_map(|service| Some((service, live.deployment(cluster, service)?.clone())));
    Applied { deployments: found.collect(), ..Applied::default() }
}

/// What an object would become: the answer of a dry run.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn dry_run(
    owner: &ObjectMeta,
    key: &Key,
    wanted: &DynamicObject,
    context: &Context,
) -> kube::Result<DynamicObject> {
    let how = PatchParams::apply(MANAGER).force().dry_run();
    api(key.kind, owner, context).patch(&key.name, &how, &Patch::Apply(wanted)).await
}

fn api(kind: &Kind, owner: &ObjectMeta, context: &Context) -> Api<DynamicObject> {
    let namespace = owner.namespace.as_deref().unwrap_or_default();
    Api::namespaced_with(context.clients.objects.clone(), namespace, &kind.resource)
}

fn cause(error: &kube::Error) -> Cause {
    if let kube::Error::Api(status) = error
        && [400, 422].contains(&status.code)
    {
        return Cause::Refused;
    }
    Cause::Failed
}

fn hash(object: &DynamicObject) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(object).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

impl Objects {
    /// The objects that are wanted.
    pub fn keys(&self) -> BTreeSet<Key> {
        self.iter().filter_map(Key::of).collect()
    }
}
