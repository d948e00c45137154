//! How clients reach a cluster from outside.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    backends::SecretReference,
    schema::{self, NAME},
};

/// How clients reach the cluster from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(self.type == 'Gateway') == has(self.gatewayRef)",
        "message": "gatewayRef is required with Gateway, and unused otherwise",
        "fieldPath": ".gatewayRef",
    },
    {
        "rule": "self.type == 'Ingress' || (!has(self.ingressClassName) && !has(self.tlsSecretRef))",
        "message": "ingressClassName and tlsSecretRef are of use only with Ingress; a Gateway has its own",
        "fieldPath": ".type",
    },
]))]
pub struct Routing {
    /// Gateway (an HTTPRoute at a Gateway of yours), Ingress, or None.
    #[serde(rename = "type")]
    pub kind: RoutingKind,

    /// The Gateway that the HTTPRoute attaches to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_ref: Option<GatewayReference>,

    /// Class of the Ingress. The cluster's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub ingress_class_name: Option<String>,

    /// Secret of type kubernetes.io/tls that the Ingress serves with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_secret_ref: Option<SecretReference>,

    /// Annotations of the route, for its controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = schema::annotation_value(), "x-kubernetes-validations" = schema::keys()))]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Kinds of route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RoutingKind {
    /// An HTTPRoute of the Gateway API.
    Gateway,
    /// An Ingress.
    Ingress,
    /// None: clients reach the Services by your own means.
    #[default]
    None,
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,

    /// Its namespace. The cluster's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,

    /// Name of its listener. Every listener that allows the route when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub section_name: Option<String>,
}
