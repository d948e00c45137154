//! What is done to the platform, one after the other, while people talk on it.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    drive::{Run, say},
    figures,
    kube::until,
    messages::Question,
    platform::{Platform, SERVICES},
};

/// How long people talk undisturbed, and the operator is watched at rest.
const AT_REST: Duration = Duration::from_mins(1);
/// Secrets are looked at every 30 s; the lease of a dead leader lasts about as long.
const SEEN_WITHIN: Duration = Duration::from_secs(90);
/// How long two clusters stand side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(10);

pub(super) async fn all(run: &mut Run, one: &Platform, two: &Platform) -> anyhow::Result<()> {
    base(run).await?;
    for platform in [one, two] {
        platform.remove().await.context("what an earlier run left")?;
    }
    let image = format!("{}/e2e:{}", run.config.registry, run.config.version);
    let charts = run.config.charts.clone();
    let version = format!("spec.version={}", run.config.version);

    let begun = Instant::now();
    let born = figures::birth(one, one.install(&charts, std::slice::from_ref(&version))).await?;
    one.ready().await?;
    let ready = begun.elapsed().as_secs_f64();
    say(&format!("{:<44} ready {ready:>6.1} s", "a MessagingCluster is applied"));
    run.measured.insert("first_ready_seconds".to_owned(), ready.into());
    run.measured.insert("objects_after_apply_ms".to_owned(), born);
    one.talk(&image).await?;

    let (mut looks, operator) = (Vec::new(), run.config.operator.clone());
    run.step(one, "people talk for a minute", async {
        looks.push(figures::operator(&one.kube, &operator).await?);
        sleep(AT_REST).await;
        looks.push(figures::operator(&one.kube, &operator).await?);
        Ok(())
    })
    .await?;
    if let [before, after] = looks.as_slice() {
        run.measured.insert("operator_at_rest".to_owned(), figures::between(before, after));
    }

    changes(run, one).await?;
    damage(run, one).await?;
    anew(run, one).await?;
    beside(run, one, two, &image).await?;

    let figures = one.ask(&Question::Finish).await?;
    run.measured.insert("acknowledged_in_all".to_owned(), figures.in_all.into());
    run.measured.insert("connections".to_owned(), figures.connections.into());
    run.tell("the last word", 0.0, figures, None);
    Ok(())
}

/// The charts of the operator and, where there are none, of the backends.
async fn base(run: &Run) -> anyhow::Result<()> {
    let (kube, config) = (&run.kube, &run.config);
    let kafka = ["-n", &config.backends, "get", "service", "kafka", "--ignore-not-found", "-o", "name"];
    if kube.kubectl(&kafka).await?.trim().is_empty() {
        say("installing charts/dev-backends");
        kube.script("backends.sh", &["up", &config.backends], None).await?;
    }
    let selector = "app.kubernetes.io/name=messaging-operator";
    let found = kube.kubectl(&["-n", &config.operator, "get", "deployments", "-l", selector, "-o", "name"]).await?;
    if found.trim().is_empty() {
        say("installing charts/operator");
        kube.namespace(&config.operator).await?;
        let chart = config.charts.join("operator").display().to_string();
        let registry = format!("image.registry={}", config.registry);
        let line = ["upgrade", "--install", "messaging-operator", &chart, "-n", &config.operator, "--set", &registry];
        kube.helm(&[&line[..], &["--wait", "--timeout", "2m"]].concat()).await?;
    }
    Ok(())
}

async fn changes(run: &mut Run, one: &Platform) -> anyhow::Result<()> {
    let spec = json!({"gateway": {"replicas": 3}, "fanout": {"replicas": 1}});
    run.step(one, "replicas: gateway 2 to 3, fanout 2 to 1", one.patch(&spec)).await?;

    let version = run.config.other_version.clone();
    run.step(one, &format!("image: {version}"), async {
        one.patch(&json!({"version": version})).await?;
        one.ready().await?;
        for service in SERVICES {
            for pod in one.pods(service).await? {
                let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
                anyhow::ensure!(image.ends_with(&format!(":{version}")), "{service} runs {image}");
            }
        }
        Ok(())
    })
    .await?;
    let started = figures::starts(one).await?;
    run.measured.insert("pod_start_to_ready_seconds".to_owned(), started);

    let spec = json!({"gateway": {"settings": {"drain": "15s"}}, "ingest": {"settings": {"persistDeadline": "4s"}}});
    run.step(one, "settings: of gateway and ingest", one.patch(&spec)).await?;

    run.step(one, "a secret: the pepper of one-time codes", async {
        let before = one.deployment("chatmgmt").await?["metadata"]["generation"].clone();
        let auth = one.object().await?["spec"]["auth"]["secretRef"]["name"].as_str().context("no secret")?.to_owned();
        let patch = json!({"stringData": {"otp-pepper": format!("{:048}", AT_REST.as_nanos())}}).to_string();
        one.kube.kubectl(&["-n", &one.name, "patch", "secret", &auth, "-p", &patch]).await?;
        until("chatmgmt gets it", SEEN_WITHIN, async || {
            Ok((one.deployment("chatmgmt").await?["metadata"]["generation"] != before).then_some(()))
        })
        .await
    })
    .await
}

async fn damage(run: &mut Run, one: &Platform) -> anyhow::Result<()> {
    run.step(one, "the Deployment of ingest is deleted by hand", async {
        let before = one.deployment("ingest").await?["metadata"]["uid"].clone();
        let name = format!("{}-ingest", one.name);
        one.kube.kubectl(&["-n", &one.name, "delete", "deployment", &name, "--wait=false"]).await?;
        until("it is there again", SEEN_WITHIN, async || {
            Ok((one.deployment("ingest").await?["metadata"]["uid"] != before).then_some(()))
        })
        .await
    })
    .await?;
    for service in SERVICES {
        run.step(one, &format!("the pods of {service} are killed in turn"), one.kill_pods(service)).await?;
    }
    let operator = run.config.operator.clone();
    run.step(one, "operator's leader killed; gateway 3 to 2", async {
        let holder = async || -> anyhow::Result<String> {
            let lease = one.kube.get(&operator, &["lease", "messaging-operator"]).await?;
            Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
        };
        let before = holder().await?;
        let pod = before.split('_').next().unwrap_or_default();
        one.kube
            .kubectl(&["-n", &operator, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"])
            .await?;
        one.patch(&json!({"gateway": {"replicas": 2}})).await?;
        let look = async || Ok(Some(holder().await?).filter(|holder| !holder.is_empty() && *holder != before));
        until("another leads", SEEN_WITHIN, look).await.map(drop)
    })
    .await
}

/// Deletes the object, and applies it once more: topics, tables and secrets were kept.
async fn anew(run: &mut Run, one: &Platform) -> anyhow::Result<()> {
    run.step(one, "the object is deleted and made anew", async {
        let mut object = one.object().await?;
        let kept = json!({
            "name": one.name,
            "namespace": one.name,
            "labels": object["metadata"]["labels"],
            "annotations": object["metadata"]["annotations"],
        });
        object["metadata"] = kept;
        object.as_object_mut().context("no object")?.remove("status");
        one.delete().await?;
        one.kube.apply(&object).await
    })
    .await
}

/// A second cluster on the same Kafka and DynamoDB, with its own people; then it goes, data and all.
async fn beside(run: &mut Run, one: &Platform, two: &Platform, image: &str) -> anyhow::Result<()> {
    let mut settings: Vec<String> = SERVICES.iter().map(|service| format!("spec.{service}.replicas=1")).collect();
    settings.push(format!("spec.version={}", run.config.version));
    let charts = run.config.charts.clone();
    run.step(one, "another cluster is made beside it", async {
        two.install(&charts, &settings).await?;
        two.ready().await?;
        two.talk(image).await
    })
    .await?;
    run.step(two, "people talk on the other one", async {
        sleep(SIDE_BY_SIDE).await;
        Ok(())
    })
    .await?;
    let figures = two.ask(&Question::Finish).await?;
    run.tell("the last word on the other one", 0.0, figures, None);
    run.step(one, "the other one is deleted with its data", two.remove()).await
}
