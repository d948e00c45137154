//! The four services: how many pods, how large, where they run.

use std::collections::BTreeMap;

use crds::{
    MessagingClusterSpec,
    components::{Amounts, Component as Spec, PodTemplate, Resources, TolerationOperator},
    quantity::Quantity,
    routing::RoutingKind,
};
use kube::api::ObjectMeta;

use super::{
    Autoscaler, Component, LiveReplicas, References, Service,
    faults::Faults,
    names,
    settings::{Settings, Variables},
};

const DEFAULT_REPLICAS: i32 = 2;
const DEFAULT_CPU: &str = "25m";
const DEFAULT_MEMORY: &str = "64Mi";
const DEFAULT_CPU_TARGET: i32 = 70;
/// Less memory than this is a forgotten unit.
const LEAST_MEMORY: &str = "1Mi";
/// Annotations of a cluster that ask for a restart: of all services, and of one.
const RESTART: &str = "messaging.dev/restart-at";

/// The services as they are to run.
pub(super) fn components(
    faults: &mut Faults,
    metadata: &ObjectMeta,
    spec: &MessagingClusterSpec,
    references: &References,
) -> BTreeMap<Service, Component> {
    let has_route = spec.routing.as_ref().is_some_and(|routing| routing.kind != RoutingKind::None);
    let persist_deadline = spec.ingest.as_ref().and_then(|ingest| ingest.settings.as_ref()?.persist_deadline.as_ref());
    let named_hops = spec.chatmgmt.as_ref().and_then(|chatmgmt| chatmgmt.settings.as_ref()?.trusted_proxy_hops);
    let proxy_hops = named_hops.unwrap_or(i32::from(has_route));
    let component = |service: Service| {
        let mut one = match service {
            Service::Gateway => {
                let (common, own) = parts(spec.gateway.as_ref());
                let settings = Variables::new(faults, service).gateway(&own, persist_deadline, proxy_hops);
                resolve(faults, service, &common, settings)
            }
            Service::Ingest => {
                let (common, own) = parts(spec.ingest.as_ref());
                let settings = Variables::new(faults, service).ingest(&own);
                resolve(faults, service, &common, settings)
            }
            Service::Fanout => {
                let (common, own) = parts(spec.fanout.as_ref());
                let settings = Variables::new(faults, service).fanout(&own);
                resolve(faults, service, &common, settings)
            }
            Service::ChatMgmt => {
                let (common, own) = parts(spec.chatmgmt.as_ref());
                let settings = Variables::new(faults, service).chatmgmt(&own, proxy_hops);
                resolve(faults, service, &common, settings)
            }
        };
        if spec.suspend.unwrap_or_default() {
            (one.replicas, one.autoscaler) = (Some(0), None);
        } else if let Some(range) = one.autoscaler {
            one.replicas = handed_over(range, references.live_replicas.get(&service));
        }
        one.restarts = restarts(metadata, service);
        (service, one)
    };
    Service::ALL.into_iter().map(component).collect()
}

/// What the operator says about the pods of a service that an autoscaler has.
///
/// Leaving `replicas` out while nobody else owns it would reset it to 1, so the present number is repeated until somebody
/// else does. An autoscaler leaves a Deployment of no pods alone: after a suspension it starts with the fewest.
fn handed_over(range: Autoscaler, live: Option<&LiveReplicas>) -> Option<i32> {
    match live {
        Some(LiveReplicas { owned_by_other: Some(_), .. }) => None,
        Some(LiveReplicas { replicas, owned_by_other: None }) => Some((*replicas).clamp(range.min, range.max)),
        None => Some(range.min),
    }
}

/// A component without its settings, and those.
fn parts<S: Clone + Default>(component: Option<&Spec<S>>) -> (Spec<()>, S) {
    let Some(component) = component.cloned() else { return (Spec::default(), S::default()) };
    let common = Spec {
        replicas: component.replicas,
        autoscaling: component.autoscaling,
        resources: component.resources,
        service_account: component.service_account,
        settings: None,
        pod_template: component.pod_template,
    };
    (common, component.settings.unwrap_or_default())
}

fn resolve(faults: &mut Faults, service: Service, spec: &Spec<()>, settings: Settings) -> Component {
    let path = format!("spec.{service}");
    let autoscaler = spec.autoscaling.as_ref().map(|range| Autoscaler {
        min: range.min,
        max: range.max,
        target_cpu_utilization: range.target_cpu_utilization.unwrap_or(DEFAULT_CPU_TARGET),
    });
    if autoscaler.is_some() && spec.replicas.is_some() {
        faults.spec(format_args!("{path}.autoscaling"), "set replicas or autoscaling, not both");
    }
    if autoscaler.is_some_and(|range| range.min > range.max) {
        faults.spec(format_args!("{path}.autoscaling.min"), "min must not be above max");
    }
    let resources = resources(faults, &format!("{path}.resources"), spec.resources.clone().unwrap_or_default());
    let no_request = resources.requests.as_ref().and_then(|requests| requests.cpu.as_ref()?.thousandths()) == Some(0);
    if autoscaler.is_some() && no_request {
        let message = "an autoscaler needs a request of CPU above 0: it aims at a share of it";
        faults.spec(format_args!("{path}.resources.requests.cpu"), message);
    }
    let service_account = spec.service_account.as_ref().and_then(|account| account.annotations.clone());
    let service_account = service_account.unwrap_or_default();
    keys(faults, &format!("{path}.serviceAccount.annotations"), &service_account);
    let pod = spec.pod_template.clone().unwrap_or_default();
    pod_template(faults, &format!("{path}.podTemplate"), &pod);
    Component {
        replicas: Some(spec.replicas.unwrap_or(DEFAULT_REPLICAS)),
        autoscaler,
        resources,
        service_account,
        settings: settings.variables,
        drain: settings.drain,
        pod,
        restarts: BTreeMap::new(),
    }
}

/// Resources with the default requests, which are never above a limit.
fn resources(faults: &mut Faults, path: &str, spec: Resources) -> Resources {
    let (mut requests, limits) = (spec.requests.unwrap_or_default(), spec.limits);
    let bounds = limits.clone().unwrap_or_default();
    for (kind, amounts) in [("requests", &requests), ("limits", &bounds)] {
        amount(faults, &format!("{path}.{kind}.cpu"), amounts.cpu.as_ref(), None);
        amount(faults, &format!("{path}.{kind}.memory"), amounts.memory.as_ref(), Some(LEAST_MEMORY));
    }
    let Amounts { cpu, memory } = &mut requests;
    within(faults, &format!("{path}.requests.cpu"), cpu, bounds.cpu.as_ref(), DEFAULT_CPU);
    within(faults, &format!("{path}.requests.memory"), memory, bounds.memory.as_ref(), DEFAULT_MEMORY);
    Resources { requests: Some(requests), limits }
}

/// One amount: a quantity that is a whole number of the smallest unit there is, and not below the least.
fn amount(faults: &mut Faults, path: &str, amount: Option<&Quantity>, least: Option<&str>) {
    let Some(amount) = amount else { return };
    let text = amount.to_string();
    let is_finer = text.contains('.') && text.ends_with('m');
    let Some(size) = amount.thousandths().filter(|size| *size >= 0 && !is_finer) else {
        faults.spec(path, format_args!("{text:?} is not an amount such as 250m, 1 or 512Mi"));
        return;
    };
    if let Some(least) = least
        && quantity(least).thousandths().is_some_and(|least| size < least)
    {
        faults.spec(path, format_args!("{text} is less than {least}: is the unit missing, as in 512Mi?"));
    }
}

/// Fills in a request, and compares it with the limit.
fn within(faults: &mut Faults, path: &str, request: &mut Option<Quantity>, limit: Option<&Quantity>, default: &str) {
    let limit_size = limit.and_then(Quantity::thousandths);
    if let Some(request) = request {
        if limit_size.is_some_and(|limit| request.thousandths().is_some_and(|request| request > limit)) {
            faults.spec(path, format_args!("{request} is above the limit: at most what limits say is accepted"));
        }
    } else {
        let default = quantity(default);
        let is_above = limit_size.is_some_and(|limit| default.thousandths().is_some_and(|size| size > limit));
        *request = if is_above { limit.cloned() } else { Some(default) };
    }
}

fn quantity(text: &str) -> Quantity {
    Quantity::Text(text.to_owned())
}

fn pod_template(faults: &mut Faults, path: &str, pod: &PodTemplate) {
    if let Some(labels) = &pod.labels {
        keys(faults, &format!("{path}.labels"), labels);
        label_values(faults, &format!("{path}.labels"), labels);
        if labels.contains_key("pod-template-hash") {
            faults.spec(
                format_args!("{path}.labels"),
                "pod-template-hash is the Deployment controller's own: take another key",
            );
        }
    }
    if let Some(annotations) = &pod.annotations {
        keys(faults, &format!("{path}.annotations"), annotations);
    }
    if let Some(selector) = &pod.node_selector {
        let path = format!("{path}.nodeSelector");
        for key in selector.keys().filter(|key| !names::is_key(key)) {
            faults.spec(&path, not_a_key(key));
        }
        label_values(faults, &path, selector);
    }
    for (place, toleration) in pod.tolerations.iter().flatten().enumerate() {
        let path = format!("{path}.tolerations[{place}]");
        let key = toleration.key.as_deref().filter(|key| !key.is_empty());
        if let Some(key) = key.filter(|key| !names::is_key(key)) {
            faults.spec(format_args!("{path}.key"), not_a_key(key));
        }
        let is_any = toleration.operator == Some(TolerationOperator::Exists);
        if key.is_none() && !is_any {
            faults.spec(format_args!("{path}.operator"), "without a key the operator must be Exists");
        }
        let value = toleration.value.as_deref().unwrap_or_default();
        if is_any && !value.is_empty() {
            faults.spec(format_args!("{path}.value"), "with operator Exists there is no value");
        } else if !names::is_label_value(value) {
            faults.spec(format_args!("{path}.value"), not_a_value(value));
        }
    }
    for (place, spread) in pod.topology_spread_constraints.iter().flatten().enumerate() {
        if !names::is_key(&spread.topology_key) {
            let path = format!("{path}.topologySpreadConstraints[{place}].topologyKey");
            faults.spec(path, not_a_key(&spread.topology_key));
        }
    }
    if let Some(class) = pod.priority_class_name.as_deref().filter(|class| !names::is_dns_subdomain(class)) {
        faults.spec(format_args!("{path}.priorityClassName"), format_args!("{class:?} is no name of Kubernetes"));
    }
}

/// Keys of labels and annotations that a team may set.
pub(super) fn keys(faults: &mut Faults, path: &str, map: &BTreeMap<String, String>) {
    for key in map.keys() {
        if !names::is_key(key) {
            faults.spec(path, not_a_key(key));
        } else if key.starts_with("messaging.dev/") || key.starts_with("app.kubernetes.io/") {
            let message = format_args!(
                "{key} is the operator's own: take a key that is not under messaging.dev/ or app.kubernetes.io/"
            );
            faults.spec(path, message);
        }
    }
}

fn label_values(faults: &mut Faults, path: &str, labels: &BTreeMap<String, String>) {
    for (key, value) in labels.iter().filter(|(_, value)| !names::is_label_value(value)) {
        faults.spec(format_args!("{path}[{key}]"), not_a_value(value));
    }
}

fn not_a_key(key: &str) -> String {
    format!("{key:?} is no key: at most 63 letters, digits, -, _ and . with an optional prefix of a domain and a slash")
}

fn not_a_value(value: &str) -> String {
    format!("{value:?} is no value of a label: at most 63 letters, digits, -, _ and ., a letter or digit at each end")
}

fn restarts(metadata: &ObjectMeta, service: Service) -> BTreeMap<String, String> {
    let annotations = metadata.annotations.as_ref();
    let find = |key: String| Some((key.clone(), annotations?.get(&key)?.clone()));
    [RESTART.to_owned(), format!("messaging.dev/restart-{service}-at")].into_iter().filter_map(find).collect()
}
