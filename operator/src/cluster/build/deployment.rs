//! The Deployment of a service: how many pods, and how they are replaced.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde_json::json;

use super::{
    TEMPLATE_HASH, hash,
    object::{self, Kind, Of},
    pod,
};

/// Old templates that stay for a look back.
const HISTORY: i32 = 3;

pub(super) fn make(of: Of<'_>) -> DynamicObject {
    let template = object::without_nulls(pod::template(of));
    let hash = hash::template(&template);
    let upgrade = of.cluster.upgrade;
    let body = json!({
        "spec": {
            "replicas": of.component.replicas,
            "selector": { "matchLabels": of.selector() },
            "strategy": {
                "type": "RollingUpdate",
                // Rounded up, so that there is always one more and a rollout goes on.
                "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": upgrade.max_unavailable },
            },
            "progressDeadlineSeconds": upgrade.timeout.as_secs(),
            "revisionHistoryLimit": HISTORY,
            "template": template,
        },
    });
    let mut deployment = of.object(Kind("apps/v1", "Deployment"), of.name(), body);
    deployment.metadata.annotations = Some(BTreeMap::from([(TEMPLATE_HASH.to_owned(), hash)]));
    deployment
}
