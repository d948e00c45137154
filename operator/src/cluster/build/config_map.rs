//! The `ConfigMap` of a service: its settings without secrets, as variables of the process.

use kube::api::DynamicObject;
use serde_json::json;

use super::{
    environment,
    object::{Kind, Of},
};

pub(super) fn make(of: Of<'_>) -> DynamicObject {
    of.object(Kind("v1", "ConfigMap"), of.name(), json!({ "data": environment::of(of).variables }))
}
