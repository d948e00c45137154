//! The definition on the API server: whether it is there, and whether it is this operator's.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt as _};
use platform::Gate;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The name of the definition.
const NAME: &str = "messagingclusters.messaging.dev";
/// Time between looks once it was found.
const SELDOM: Duration = Duration::from_mins(10);
/// Time between looks until then.
const OFTEN: Duration = Duration::from_secs(2);

/// What a look at the definition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It has this operator's schema.
    Same,
    /// It has another schema.
    Other,
    /// Nobody installed it.
    Missing,
    /// This operator may not look, which an install for single namespaces does not allow.
    Hidden,
}

/// Looks at the definition now and then; the gate opens when it is there.
///
/// # Errors
/// None: what fails is looked at again.
pub async fn follow(client: Client, metrics: Arc<Metrics>, gate: Gate, stop: CancellationToken) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let mut before = None;
    loop {
        let found = match look(&definitions).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the API server could not be asked for the definition {NAME}: {error}");
                gate.close();
                if stop.run_until_cancelled(tokio::time::sleep(OFTEN)).await.is_none() {
                    return Ok(());
                }
                continue;
            }
        };
        if before.replace(found) != Some(found) {
            match found {
                Found::Same | Found::Hidden => {}
                Found::Other => tracing::warn!(
                    "the definition {NAME} is of another version than this operator: fields may be missing or unknown; apply the \
                     definition of this version"
                ),
                Found::Missing => tracing::error!(
                    "the definition {NAME} is missing: apply it, or install the chart with crds.enabled"
                ),
            }
        }
        metrics.crd_outdated(found == Found::Other);
        if found == Found::Missing {
            gate.close();
        } else {
            gate.open();
        }
        let wait = if found == Found::Missing { OFTEN } else { SELDOM };
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return Ok(());
        }
    }
}

async fn look(definitions: &Api<CustomResourceDefinition>) -> kube::Result<Found> {
    match definitions.get_metadata(NAME).await {
        Ok(definition) => {
            let wanted = crds::crd()["metadata"]["annotations"][crds::SCHEMA_HASH].as_str().map(str::to_owned);
            let same = definition.annotations().get(crds::SCHEMA_HASH) == wanted.as_ref();
            Ok(if same { Found::Same } else { Found::Other })
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Found::Missing),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Found::Hidden),
        Err(error) => Err(error),
    }
}
