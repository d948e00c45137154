//! The `ServiceAccount` of a service's pods. They ask nothing of the API server, so no token of it is mounted.

use kube::api::DynamicObject;
use serde_json::json;

use super::object::{Kind, Of};

pub(super) fn make(of: Of<'_>) -> DynamicObject {
    let body = json!({ "automountServiceAccountToken": false });
    let mut account = of.object(Kind("v1", "ServiceAccount"), of.name(), body);
    if !of.component.service_account.is_empty() {
        account.metadata.annotations = Some(of.component.service_account.clone());
    }
    account
}
