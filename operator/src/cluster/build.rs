//! From a valid cluster to the objects that run it. The same cluster always makes the same objects, byte for byte.

use std::collections::BTreeMap;

use kube::api::DynamicObject;

use super::validate::{Cluster, Service};

/// The label of every object that says which cluster it belongs to.
pub const CLUSTER_LABEL: &str = "messaging.dev/cluster";

/// The annotation of a pod template: a hash of the settings and secrets that the service reads when it starts.
pub const CONFIG_HASH: &str = "messaging.dev/config-hash";

/// The annotation of a Deployment: a hash of the pod template as the operator made it.
pub const TEMPLATE_HASH: &str = "messaging.dev/template-hash";

/// The objects of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// All but the Deployments, in an order in which they can be applied.
    pub base: Vec<DynamicObject>,
    /// The Deployments.
    pub workloads: BTreeMap<Service, DynamicObject>,
}

/// Makes the objects of a cluster.
pub fn build(_cluster: &Cluster) -> Objects {
    Objects::default()
}
