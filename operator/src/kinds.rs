//! The kinds of objects that a cluster is made of, and which of the optional ones the API server knows.

use std::sync::LazyLock;

use k8s_openapi::{
    Resource as Named,
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Client, Resource,
    core::{ApiResource, GroupVersionKind, TypeMeta},
};

use crate::cluster::validate::Kinds;

/// One kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its group, version and plural.
    pub resource: ApiResource,
    /// Its plural, as in paths and metrics.
    pub plural: &'static str,
}

impl Kind {
    fn of<K: Resource<DynamicType = ()> + Named>() -> Self {
        Self { resource: ApiResource::erase::<K>(&()), plural: K::URL_PATH_SEGMENT }
    }

    fn custom(group: &str, version: &str, kind: &str, plural: &'static str) -> Self {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Self { resource, plural }
    }

    /// The kind, as `Deployment`.
    pub fn name(&self) -> &str {
        &self.resource.kind
    }
}

/// Every kind that a cluster may be made of; the optional ones last.
static ALL: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    vec![
        Kind::of::<ServiceAccount>(),
        Kind::of::<ConfigMap>(),
        Kind::of::<Service>(),
        Kind::of::<NetworkPolicy>(),
        Kind::of::<PodDisruptionBudget>(),
        Kind::of::<Deployment>(),
        Kind::of::<HorizontalPodAutoscaler>(),
        Kind::of::<Ingress>(),
        Kind::custom("gateway.networking.k8s.io", "v1", "HTTPRoute", HTTP_ROUTES),
        Kind::custom("monitoring.coreos.com", "v1", "ServiceMonitor", SERVICE_MONITORS),
    ]
});

const HTTP_ROUTES: &str = "httproutes";
const SERVICE_MONITORS: &str = "servicemonitors";

/// Every kind that a cluster may be made of.
pub fn all() -> impl Iterator<Item = &'static Kind> {
    ALL.iter()
}

/// The kinds that every API server knows.
pub fn built_in() -> impl Iterator<Item = &'static Kind> {
    all().filter(|kind| ![HTTP_ROUTES, SERVICE_MONITORS].contains(&kind.plural))
}

/// The kinds that not every API server knows.
pub fn optional() -> impl Iterator<Item = &'static Kind> {
    all().filter(|kind| [HTTP_ROUTES, SERVICE_MONITORS].contains(&kind.plural))
}

/// The kind of a type; `None` when no cluster is made of it.
pub fn of(types: &TypeMeta) -> Option<&'static Kind> {
    all().find(|kind| kind.resource.kind == types.kind && kind.resource.api_version == types.api_version)
}

/// Those that an API server knows, of all kinds.
pub fn known(known: Kinds) -> impl Iterator<Item = &'static Kind> {
    all().filter(move |kind| match kind.plural {
        HTTP_ROUTES => known.http_route,
        SERVICE_MONITORS => known.service_monitor,
        _ => true,
    })
}

/// Whether it is Deployments.
pub fn is_deployment(kind: &Kind) -> bool {
    kind.plural == Deployment::URL_PATH_SEGMENT
}

/// Which of the optional kinds an API server knows now.
///
/// # Errors
/// When it does not answer.
pub async fn ask(client: &Client) -> kube::Result<Kinds> {
    let mut kinds = Kinds::default();
    for kind in optional() {
        let known = is_known(client, kind).await?;
        if kind.plural == HTTP_ROUTES { kinds.http_route = known } else { kinds.service_monitor = known }
    }
    Ok(kinds)
}

/// Whether the API server knows a kind now.
///
/// # Errors
/// When it does not answer.
pub async fn is_known(client: &Client, kind: &Kind) -> kube::Result<bool> {
    match client.list_api_group_resources(&kind.resource.api_version).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == kind.resource.plural)),
        // A group that nobody installed is answered without the usual reason, so only the code counts.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}
