//! The record of what the engines made, as a ConfigMap beside the cluster. It outlives the cluster, so that one of the same
//! name finds its topics and tables again.

use anyhow::Context as _;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::{apply::MANAGER, build::CLUSTER_LABEL},
    engine::{Ledger, Record},
};

/// Whose part of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The topic engine's.
    Topics,
    /// The table engine's.
    Tables,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Topics => "topics",
            Self::Tables => "tables",
        }
    }
}

/// One engine's part of the record of one cluster: the ConfigMap `<cluster>-ledger`, key `topics` or `tables`.
pub struct ConfigMapLedger {
    config_maps: Api<ConfigMap>,
    cluster: String,
    name: String,
    part: Part,
}

impl ConfigMapLedger {
    /// The record of a cluster.
    pub fn new(client: Client, namespace: &str, cluster: &str, part: Part) -> Self {
        let config_maps = Api::namespaced(client, namespace);
        Self { config_maps, cluster: cluster.to_owned(), name: format!("{cluster}-ledger"), part }
    }
}

#[async_trait]
impl Ledger for ConfigMapLedger {
    async fn load(&self) -> anyhow::Result<Record> {
        let found = self.config_maps.get_opt(&self.name).await.with_context(|| format!("ConfigMap {}", self.name))?;
        let text = found.and_then(|found| found.data?.remove(self.part.name()));
        let Some(text) = text else { return Ok(Record::default()) };
        serde_json::from_str(&text)
            .with_context(|| format!("ConfigMap {}, key {}, is no record of ours", self.name, self.part.name()))
    }

    async fn store(&self, record: &Record) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "labels": { CLUSTER_LABEL: self.cluster, "app.kubernetes.io/part-of": "messaging" },
            },
            "data": { self.part.name(): serde_json::to_string(record)? },
        });
        // Each part has a manager of its own, or the one would take the other's key away.
        let how = PatchParams::apply(&format!("{MANAGER}-{}", self.part.name())).force();
        self.config_maps
            .patch(&self.name, &how, &Patch::Apply(object))
            .await
            .with_context(|| format!("ConfigMap {}", self.name))?;
        Ok(())
    }
}
