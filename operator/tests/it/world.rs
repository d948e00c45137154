//! A real API server, one for the whole test process, and for each test a namespace with an operator of its own.
//!
//! No controllers run: a test plays the one of Deployments, so it decides how far a rollout is.

use std::{collections::BTreeMap, path::PathBuf, process::Command, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser as _;
use crds::MessagingCluster;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Namespace, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use operator::{client::Clients, config::Config, metrics::Metrics, run};
use platform::Process;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(40);

/// One test's part of the world.
pub(crate) struct World {
    /// The API server, as its administrator.
    pub(crate) client: Client,
    /// The test's namespace.
    pub(crate) namespace: String,
    config: kube::Config,
}

/// An operator that runs in this process.
pub(crate) struct Operator {
    /// Its tasks.
    pub(crate) process: Process,
}

impl Operator {
    /// Stops it as SIGTERM does, and waits until it has ended.
    pub(crate) async fn stop(self) {
        self.process.shut_down().await;
    }

    /// Writes to the API server so far, but for the Lease.
    pub(crate) fn writes(&self) -> u64 {
        let text = self.process.metrics_text();
        let counts = text.lines().filter(|line| line.starts_with("messaging_operator_writes_total"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// All requests but reads and those for the Lease.
    pub(crate) fn patches(&self) -> u64 {
        let text = self.process.metrics_text();
        let counts = text.lines().filter(|line| {
            line.starts_with("rest_client_requests_total")
                && (line.contains("PATCH") || line.contains("POST") || line.contains("DELETE"))
        });
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Passes that ended well.
    pub(crate) fn passes(&self) -> u64 {
        let text = self.process.metrics_text();
        let counts = text.lines().filter(|line| line.starts_with("controller_runtime_reconcile_total"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

impl World {
    /// A namespace of its own, with the Secret that the smallest cluster needs.
    pub(crate) async fn new(name: &str) -> Self {
        let config = api_server().await;
        let client = Client::try_from(config.clone()).unwrap();
        let namespace = format!("{name}-{}", std::process::id());
        let object = json!({ "metadata": { "name": namespace } });
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        let this = Self { client, namespace, config };
        this.secret("chat-auth", auth()).await;
        this
    }

    /// Starts an operator for this namespace.
    pub(crate) fn operator(&self, pod: &str) -> Operator {
        self.operator_with(pod, &[])
    }

    /// The same with more settings.
    pub(crate) fn operator_with(&self, pod: &str, more: &[&str]) -> Operator {
        let mut words = vec![
            "operator",
            "--watch-namespaces",
            &self.namespace,
            "--pod-name",
            pod,
            "--pod-namespace",
            &self.namespace,
            "--resync",
            "1s",
        ];
        words.extend(more);
        let config = Config::try_parse_from(words).unwrap();
        let process = Process::new();
        let metrics = Arc::new(process.metrics(|registry| Metrics::new(registry, process.clock())));
        let clients = Clients::new(self.config.clone(), &metrics).unwrap();
        run::start_with(&config, &process, &clients, &metrics);
        Operator { process }
    }

    /// Clients such as a person's commands have.
    pub(crate) fn clients(&self) -> (Clients, Arc<Metrics>) {
        let process = Process::new();
        let metrics = Arc::new(process.metrics(|registry| Metrics::new(registry, process.clock())));
        (Clients::new(self.config.clone(), &metrics).unwrap(), metrics)
    }

    pub(crate) fn clusters(&self) -> Api<MessagingCluster> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates or replaces a Secret.
    pub(crate) async fn secret(&self, name: &str, data: BTreeMap<&str, String>) {
        let data: BTreeMap<&str, String> = data.into_iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
        let object = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "data": data });
        let how = PatchParams::apply("test").force();
        self.api::<Secret>().patch(name, &how, &Patch::Apply(object)).await.unwrap();
    }

    /// Creates the smallest cluster, with more fields merged into its spec.
    pub(crate) async fn create(&self, name: &str, more: Value) -> MessagingCluster {
        let mut spec = json!({
            "version": "0.1.0",
            // Nobody listens there: topics and tables have tests of their own.
            "kafka": { "bootstrapServers": ["127.0.0.1:9"] },
            "dynamodb": { "region": "eu-west-1", "endpoint": "http://127.0.0.1:9" },
            "redis": { "endpoint": "127.0.0.1:9" },
            "auth": { "secretRef": { "name": "chat-auth" } },
        });
        merge(&mut spec, more);
        let object = json!({
            "apiVersion": "messaging.dev/v1alpha1", "kind": "MessagingCluster", "metadata": { "name": name }, "spec": spec,
        });
        self.clusters().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    /// Merges a change into a cluster's spec.
    pub(crate) async fn change(&self, name: &str, spec: Value) -> kube::Result<MessagingCluster> {
        self.clusters().patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.clusters().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until a condition of a cluster has a reason, and returns it.
    pub(crate) async fn reason(&self, cluster: &str, kind: &str, reason: &str) -> Condition {
        let mut last = None;
        let found = self
            .until(|| async {
                let cluster = self.clusters().get(cluster).await.unwrap();
                let conditions = cluster.status.unwrap_or_default().conditions;
                let condition = conditions.into_iter().find(|condition| condition.type_ == kind)?;
                let is = condition.reason == reason && condition.observed_generation == cluster.metadata.generation;
                is.then_some(condition)
            })
            .await;
        if found.is_none() {
            last = self.clusters().get(cluster).await.unwrap().status;
        }
        found.unwrap_or_else(|| panic!("{cluster} never had {kind} for {reason}: {last:#?}"))
    }

    /// Waits until something is there, or for too long.
    pub(crate) async fn until<T, F: Future<Output = Option<T>>>(&self, mut look: impl FnMut() -> F) -> Option<T> {
        let waited = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.ok()
    }

    pub(crate) async fn deployment(&self, name: &str) -> Deployment {
        let found = self.until(|| async { self.api::<Deployment>().get_opt(name).await.unwrap() }).await;
        found.unwrap_or_else(|| panic!("{name} never came"))
    }

    /// Plays the controller of Deployments: all pods of the newest template run.
    pub(crate) async fn roll_out(&self, name: &str) {
        let deployment = self.deployment(name).await;
        let replicas = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let status = json!({ "status": {
            "observedGeneration": deployment.metadata.generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas,
        } });
        let how = PatchParams::default();
        self.api::<Deployment>().patch_status(name, &how, &Patch::Merge(status)).await.unwrap();
    }

    /// The same for all four.
    pub(crate) async fn roll_out_all(&self, cluster: &str) {
        for service in ["chatmgmt", "ingest", "fanout", "gateway"] {
            self.roll_out(&format!("{cluster}-{service}")).await;
        }
    }
}

/// The image of a Deployment.
pub(crate) fn image(deployment: &Deployment) -> String {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).unwrap();
    pod.containers[0].image.clone().unwrap()
}

/// The hash of what the pods of a Deployment read when they start.
pub(crate) fn config_hash(deployment: &Deployment) -> String {
    let meta = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref()).unwrap();
    meta.annotations.as_ref().unwrap()["messaging.dev/config-hash"].clone()
}

/// Merges JSON into JSON.
fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// A Secret that the services could use.
pub(crate) fn auth() -> BTreeMap<&'static str, String> {
    let made = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]).output().expect("openssl");
    BTreeMap::from([
        ("jwks.json", json!({ "keys": [{ "kid": "k1", "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }] }).to_string()),
        ("k1.pem", String::from_utf8(made.stdout).unwrap()),
        ("otp-pepper", "p".repeat(32)),
        ("otp-key", STANDARD.encode([7; 32])),
        ("refresh-key", "r".repeat(32)),
        ("internal-token", "i".repeat(32)),
    ])
}

/// The one API server of this test process, with the definition applied.
async fn api_server() -> kube::Config {
    static SERVER: OnceCell<kube::Config> = OnceCell::const_new();
    SERVER
        .get_or_init(|| async {
            let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/ground/control_plane.sh");
            let started = tokio::process::Command::new(&script)
                .arg("up")
                .env("GROUND_OWNER", std::process::id().to_string())
                .env_remove("GROUND_STATE")
                .output()
                .await
                .expect("bash");
            assert!(started.status.success(), "no API server:\n{}", String::from_utf8_lossy(&started.stderr));
            let text = String::from_utf8_lossy(&started.stdout).into_owned();
            let kubeconfig = Kubeconfig::read_from(text.lines().last().expect("the kubeconfig's path")).unwrap();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            define(&Client::try_from(config.clone()).unwrap()).await;
            config
        })
        .await
        .clone()
}

async fn define(client: &Client) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crds::crd();
    let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
    definitions.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&crd)).await.expect("the definition is taken");
    let served = async {
        loop {
            let clusters: Api<MessagingCluster> = Api::namespaced(client.clone(), "default");
            if clusters.list(&kube::api::ListParams::default()).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("the definition is served");
}

/// What a thing's owner is called.
pub(crate) fn owner<K: kube::Resource>(object: &K) -> Option<String> {
    object.owner_references().first().map(|reference| reference.uid.clone())
}
