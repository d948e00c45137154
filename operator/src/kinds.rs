//! The kinds of objects that a cluster is made of, and which of the optional ones the API server knows.

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
    core::{ApiResource, GroupVersionKind},
};

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

/// The kinds that every API server knows, in the order in which they are applied.
pub fn built_in() -> Vec<Kind> {
    vec![
        Kind::of::<ServiceAccount>(),
        Kind::of::<ConfigMap>(),
        Kind::of::<Service>(),
        Kind::of::<NetworkPolicy>(),
        Kind::of::<PodDisruptionBudget>(),
        Kind::of::<Deployment>(),
        Kind::of::<HorizontalPodAutoscaler>(),
        Kind::of::<Ingress>(),
    ]
}

/// Deployments.
pub fn deployment() -> Kind {
    Kind::of::<Deployment>()
}

/// Routes of the Gateway API.
pub fn http_route() -> Kind {
    Kind::custom("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
}

/// Monitors of the Prometheus operator.
pub fn service_monitor() -> Kind {
    Kind::custom("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors")
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
