//! One MessagingCluster in a namespace of its own, and the pod whose people talk on it.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    kube::{Kube, until},
    messages::{Figures, Question},
};
use crate::{client::random, world::codes_in};

pub(super) const SERVICES: [&str; 4] = ["chatmgmt", "ingest", "fanout", "gateway"];
const READY_WITHIN: Duration = Duration::from_mins(3);
const TALKS_WITHIN: Duration = Duration::from_mins(2);
const GONE_WITHIN: Duration = Duration::from_mins(2);
/// Of what is shown of a failure: the newest lines, and the start of each.
const LINES: usize = 120;
const WIDTH: usize = 240;
/// Area codes under which 555-0100 to 555-0199 belong to nobody.
const AREAS: [u16; 8] = [202, 212, 305, 312, 415, 512, 617, 702];

/// A MessagingCluster; its namespace has its name.
pub(super) struct Platform {
    pub(super) kube: Kube,
    pub(super) name: String,
    phones: [String; 2],
}

impl Platform {
    pub(super) fn new(kube: Kube, name: &str) -> Self {
        let [area, number] = random::<2>();
        let phone = |number: u8| format!("+1{}55501{number:02}", AREAS[usize::from(area) % AREAS.len()]);
        let phones = [phone(number % 50), phone(50 + number % 50)];
        Self { kube, name: name.to_owned(), phones }
    }

    /// Installs the chart with what a machine of one's own needs, and these more settings.
    pub(super) async fn install(&self, charts: &Path, more: &[String]) -> anyhow::Result<()> {
        self.kube.namespace(&self.name).await?;
        let chart = charts.join("messaging-cluster").display().to_string();
        let values = format!("{chart}/development.yaml");
        let mut line = vec!["upgrade", "--install", &self.name, &chart, "-n", &self.name, "--values", &values];
        for setting in more {
            line.extend(["--set", setting.as_str()]);
        }
        self.kube.helm(&line).await.map(drop)
    }

    pub(super) async fn object(&self) -> anyhow::Result<Value> {
        self.kube.get(&self.name, &["messagingcluster", &self.name]).await
    }

    /// Changes the object by a merge patch.
    pub(super) async fn patch(&self, spec: &Value) -> anyhow::Result<()> {
        let patch = json!({"spec": spec}).to_string();
        let line = ["-n", &self.name, "patch", "messagingcluster", &self.name, "--type=merge", "-p", &patch];
        self.kube.kubectl(&line).await.map(drop)
    }

    /// Waits until the object as it is now is Ready, with every pod of the newest template.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        let look = async || Ok(is_ready(&self.object().await?).then_some(()));
        until(&format!("{} is Ready", self.name), READY_WITHIN, look).await
    }

    pub(super) async fn deployment(&self, service: &str) -> anyhow::Result<Value> {
        self.kube.get(&self.name, &["deployment", &format!("{}-{service}", self.name)]).await
    }

    /// The pods of a service that are not being deleted.
    pub(super) async fn pods(&self, service: &str) -> anyhow::Result<Vec<Value>> {
        let selector = format!("app.kubernetes.io/name={service},messaging.dev/cluster={}", self.name);
        let list = self.kube.get(&self.name, &["pods", "-l", &selector]).await?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        Ok(pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
    }

    /// Kills every pod of a service as a lost machine does, one after the other, each when the one before is replaced:
    /// whichever people's messages go through is among them.
    pub(super) async fn kill_pods(&self, service: &str) -> anyhow::Result<()> {
        let pods = self.pods(service).await?;
        anyhow::ensure!(!pods.is_empty(), "{service} has no pods");
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
            let line = ["-n", &self.name, "delete", "pod", name, "--grace-period=0", "--force", "--wait=false"];
            self.kube.kubectl(&line).await?;
            until(&format!("{service} has its pods again"), READY_WITHIN, async || {
                let now = self.pods(service).await?;
                let is_whole = now.len() == pods.len()
                    && now.iter().all(|pod| condition(pod, "Ready") && pod["metadata"]["name"] != name);
                Ok(is_whole.then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Starts the pod with the two people, gives them their codes, and waits until they talk.
    pub(super) async fn talk(&self, image: &str) -> anyhow::Result<()> {
        let (rest, sockets) = (self.address("chatmgmt").await?, self.address("gateway").await?);
        self.kube.apply(&self.talker(image, &rest, &sockets)).await?;
        let mut given = vec![String::new(); 2];
        let talks = until("two people talk", TALKS_WITHIN, async || {
            let pod = self.kube.get(&self.name, &["pod", "talker"]).await?;
            if pod["status"]["phase"] == "Failed" {
                return Ok(Some(false));
            }
            if self.ask(&Question::Figures).await?.is_talking {
                return Ok(Some(true));
            }
            let selector = format!("app.kubernetes.io/name=chatmgmt,messaging.dev/cluster={}", self.name);
            let log = self.kube.kubectl(&["-n", &self.name, "logs", "-l", &selector, "--tail=-1"]).await?;
            for (phone, given) in self.phones.iter().zip(&mut given) {
                if let Some(code) = codes_in(&log, phone).pop().filter(|code| code != given) {
                    self.ask(&Question::Code { phone: phone.clone(), code: code.clone() }).await?;
                    *given = code;
                }
            }
            Ok(None)
        })
        .await?;
        anyhow::ensure!(talks, "the talker's pod has ended");
        Ok(())
    }

    /// Where clients in the cluster find a service.
    async fn address(&self, service: &str) -> anyhow::Result<String> {
        let name = format!("{}-{service}", self.name);
        let found = self.kube.get(&self.name, &["service", &name]).await?;
        let mut ports = found["spec"]["ports"].as_array().into_iter().flatten();
        let port =
            ports.find(|port| port["name"] == "http").map(|port| &port["port"]).context("no port for clients")?;
        Ok(format!("{name}.{}:{port}", self.name))
    }

    fn talker(&self, image: &str, rest: &str, sockets: &str) -> Value {
        let arguments = ["talk", "--rest", rest, "--sockets", sockets, "--phones", &self.phones.join(",")];
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "talker", "namespace": self.name},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "talker",
                    "image": image,
                    "args": arguments,
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        })
    }

    /// Asks the people in the pod.
    pub(super) async fn ask(&self, question: &Question) -> anyhow::Result<Figures> {
        let question = serde_json::to_string(question)?;
        let answer = self.kube.kubectl(&["-n", &self.name, "exec", "talker", "--", "/e2e", "ask", &question]).await?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        anyhow::ensure!(answer["error"].is_null(), "the talker: {}", answer["error"]);
        Ok(serde_json::from_value(answer)?)
    }

    /// What the talker counts is of no worth when it began anew.
    pub(super) async fn is_talker_whole(&self) -> anyhow::Result<()> {
        let pod = self.kube.get(&self.name, &["pod", "talker"]).await?;
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        anyhow::ensure!(restarts == Some(0) && pod["status"]["phase"] == "Running", "the talker did not run through");
        Ok(())
    }

    /// Deletes the object alone, and waits until nothing of it runs.
    pub(super) async fn delete(&self) -> anyhow::Result<()> {
        let line = ["-n", &self.name, "delete", "messagingcluster", &self.name, "--timeout=120s"];
        self.kube.kubectl(&line).await?;
        let selector = format!("messaging.dev/cluster={}", self.name);
        until("its objects are gone", GONE_WITHIN, async || {
            // What it made stays known in a ConfigMap of its own, as the topics and tables stay.
            let kinds = "deployments,services,pods";
            let left = self.kube.get(&self.name, &[kinds, "-l", &selector]).await?;
            Ok(left["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })
        .await
    }

    /// Deletes the cluster with its topics, its tables and its namespace.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        let found = self.kube.kubectl(&["get", "namespace", &self.name, "--ignore-not-found", "-o", "name"]).await?;
        if found.trim().is_empty() {
            return Ok(());
        }
        if self.object().await.is_ok() {
            let delete = json!({"deletionPolicy": "Delete"});
            self.patch(&json!({"kafka": {"topics": delete}, "dynamodb": {"tables": delete}})).await?;
            self.delete().await?;
        }
        self.kube.kubectl(&["delete", "namespace", &self.name, "--timeout=120s"]).await.map(drop)
    }

    /// What a person would look at first.
    pub(super) async fn evidence(&self, operator: &str) -> String {
        let tail = "app.kubernetes.io/name=messaging-operator";
        let mut parts = Vec::new();
        for line in [
            &["-n", &self.name, "get", "messagingcluster", "-o", "yaml"][..],
            &["-n", &self.name, "get", "pods", "-o", "wide"],
            &["-n", &self.name, "get", "events", "--sort-by=.lastTimestamp"],
            &["-n", &self.name, "logs", "talker", "--tail=5"],
            &["-n", operator, "logs", "-l", tail, "--tail=30"],
        ] {
            let found = self.kube.kubectl(line).await.unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<String> = found.lines().map(|line| line.chars().take(WIDTH).collect()).collect();
            let newest = &lines[lines.len().saturating_sub(LINES)..];
            parts.push(format!("--- kubectl {}\n{}", line.join(" "), newest.join("\n")));
        }
        parts.join("\n")
    }
}

/// Whether an object has a condition of that type that is true.
pub(super) fn condition(object: &Value, kind: &str) -> bool {
    status_of(object, kind).is_some_and(|condition| condition["status"] == "True")
}

fn status_of<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// As `kubectl wait --for=condition=Ready`, of the newest generation, with nothing under way.
fn is_ready(object: &Value) -> bool {
    let generation = &object["metadata"]["generation"];
    let is_newest =
        |kind| status_of(object, kind).is_some_and(|condition| condition["observedGeneration"] == *generation);
    let components = object["status"]["components"].as_array();
    let is_whole =
        |component: &Value| component["ready"] == component["desired"] && component["updated"] == component["desired"];
    object["status"]["observedGeneration"] == *generation
        && is_newest("Ready")
        && condition(object, "Ready")
        && !condition(object, "Reconciling")
        && components.is_some_and(|components| components.len() == SERVICES.len() && components.iter().all(is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(change: fn(&mut Value)) -> Value {
        let component = json!({"desired": 2, "updated": 2, "ready": 2});
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "observedGeneration": 3});
        let mut object = json!({
            "metadata": {"generation": 3},
            "status": {
                "observedGeneration": 3,
                "conditions": [condition("Ready", "True"), condition("Reconciling", "False")],
                "components": [component, component, component, component],
            },
        });
        change(&mut object);
        object
    }

    #[test]
    fn only_what_is_whole_and_newest_is_ready() {
        assert!(is_ready(&object(|_| ())));
        let changes: [fn(&mut Value); 6] = [
            |object| object["metadata"]["generation"] = 4.into(),
            |object| object["status"]["conditions"][0]["observedGeneration"] = 2.into(),
            |object| object["status"]["conditions"][0]["status"] = "False".into(),
            |object| object["status"]["conditions"][1]["status"] = "True".into(),
            |object| object["status"]["components"][2]["updated"] = 1.into(),
            |object| object["status"]["components"] = json!([]),
        ];
        for change in changes {
            assert!(!is_ready(&object(change)), "{}", object(change));
        }
    }
}
