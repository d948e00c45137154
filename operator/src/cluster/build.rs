//! From a valid cluster to the objects that run it. The same cluster always makes the same objects, byte for byte. Pure.

mod autoscaler;
mod config_map;
mod deployment;
mod disruption_budget;
mod environment;
mod hash;
mod http_route;
mod ingress;
mod network_policy;
mod object;
mod pod;
mod service;
mod service_account;
mod service_monitor;

use std::collections::BTreeMap;

use kube::api::DynamicObject;

use super::validate::{Cluster, Route, Service};

/// The label of every object that says which cluster it belongs to.
pub const CLUSTER_LABEL: &str = "messaging.dev/cluster";

/// The label of every object that says which version of the platform it is of.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// The annotation of a pod template: a hash of the settings and secrets that the service reads when it starts.
pub const CONFIG_HASH: &str = "messaging.dev/config-hash";

/// The annotation of a Deployment: a hash of the pod template as the operator made it.
pub const TEMPLATE_HASH: &str = "messaging.dev/template-hash";

/// The objects of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// All but the following, in an order in which they can be applied.
    pub base: Vec<DynamicObject>,
    /// The settings of each service. They change with its Deployment and not before: an old pod that starts again while
    /// its service waits for its turn reads what it always read.
    pub settings: BTreeMap<Service, DynamicObject>,
    /// The Deployments.
    pub workloads: BTreeMap<Service, DynamicObject>,
}

impl Objects {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &DynamicObject> {
        self.base.iter().chain(self.settings.values()).chain(self.workloads.values())
    }
}

/// Makes the objects of a cluster.
pub fn build(cluster: &Cluster) -> Objects {
    let mut objects = Objects::default();
    for (service, component) in &cluster.components {
        let of = object::Of { cluster, service: *service, component };
        objects.base.push(service_account::make(of));
        objects.settings.insert(*service, config_map::make(of));
        objects.base.push(service::make(of));
        objects.base.push(network_policy::make(of));
        objects.base.push(disruption_budget::make(of));
        objects.base.extend(component.autoscaler.map(|range| autoscaler::make(of, range)));
        objects.workloads.insert(*service, deployment::make(of));
    }
    match &cluster.route {
        Route::None => {}
        Route::Gateway(gateway) => objects.base.push(http_route::make(cluster, gateway)),
        Route::Ingress { class, tls_secret } => {
            objects.base.push(ingress::make(cluster, class.as_deref(), tls_secret.as_deref()));
        }
    }
    if cluster.is_monitored {
        objects.base.push(service_monitor::make(cluster));
    }
    objects
}
