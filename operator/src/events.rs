//! Events: only when something becomes different, and when something fails.

use crds::MessagingCluster;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// Longest note of an event.
const NOTE: usize = 1024;

/// Writes events about clusters.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// Events that this pod reports.
    pub fn new(client: Client, pod: &str) -> Self {
        let reporter = Reporter { controller: "messaging.dev/operator".to_owned(), instance: Some(pod.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Something went as it should.
    pub async fn normal(&self, cluster: &MessagingCluster, action: &str, reason: &str, note: &str) {
        self.publish(cluster, EventType::Normal, action, reason, note).await;
    }

    /// Somebody should look.
    pub async fn warning(&self, cluster: &MessagingCluster, action: &str, reason: &str, note: &str) {
        self.publish(cluster, EventType::Warning, action, reason, note).await;
    }

    async fn publish(&self, cluster: &MessagingCluster, kind: EventType, action: &str, reason: &str, note: &str) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        // An event that can't be written must not stop the work that it tells of.
        if let Err(error) = self.0.publish(&event, &cluster.object_ref(&())).await {
            tracing::warn!(%error, "an event could not be written: {error}");
        }
    }
}
