//! How clients come in from outside.

use crds::{MessagingClusterSpec, routing::RoutingKind};

use super::{Kinds, Route, components, faults::Faults, names};

/// The route; [`Route::None`] also when there is a fault.
pub(super) fn route(faults: &mut Faults, spec: &MessagingClusterSpec, kinds: Kinds) -> Route {
    if let Some(domain) = &spec.domain
        && !names::is_dns_subdomain(domain)
    {
        faults.spec("spec.domain", format_args!("{domain:?} is no name of a host, such as chat.example.com"));
    }
    let Some(routing) = &spec.routing else { return Route::None };
    if routing.kind != RoutingKind::None && spec.domain.is_none() {
        faults.spec("spec.domain", "a route needs a domain, such as chat.example.com");
    }
    if let Some(annotations) = &routing.annotations {
        components::keys(faults, "spec.routing.annotations", annotations);
    }
    if routing.kind != RoutingKind::Gateway && routing.gateway_ref.is_some() {
        faults.spec("spec.routing.gatewayRef", "is of use only with type: Gateway");
    }
    let of_ingress = [
        ("ingressClassName", routing.ingress_class_name.as_ref()),
        ("tlsSecretRef.name", routing.tls_secret_ref.as_ref().map(|reference| &reference.name)),
    ];
    for (field, name) in of_ingress {
        let Some(name) = name else { continue };
        if routing.kind != RoutingKind::Ingress {
            faults.spec(format_args!("spec.routing.{field}"), "is of use only with type: Ingress");
        } else if !names::is_dns_subdomain(name) {
            faults.spec(format_args!("spec.routing.{field}"), format_args!("{name:?} is no name of Kubernetes"));
        }
    }
    match routing.kind {
        RoutingKind::None => Route::None,
        RoutingKind::Ingress => Route::Ingress {
            class: routing.ingress_class_name.clone(),
            tls_secret: routing.tls_secret_ref.as_ref().map(|reference| reference.name.clone()),
        },
        RoutingKind::Gateway => {
            if !kinds.http_route {
                let message = "the API server knows no HTTPRoute of gateway.networking.k8s.io/v1: install the Gateway API, or set type: Ingress";
                faults.reference("spec.routing.type", message);
            }
            let Some(gateway) = &routing.gateway_ref else {
                faults.spec("spec.routing.gatewayRef", "type: Gateway needs the Gateway that the route attaches to");
                return Route::None;
            };
            if !names::is_dns_subdomain(&gateway.name) {
                faults
                    .spec("spec.routing.gatewayRef.name", format_args!("{:?} is no name of Kubernetes", gateway.name));
            }
            Route::Gateway(gateway.clone())
        }
    }
}
