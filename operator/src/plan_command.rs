//! `operator plan`: what a `MessagingCluster` in a file would change, without changing it.
//!
//! The same pipeline as the operator's own, under the account of whoever asks: the API server admits the object in a dry
//! run, objects are applied in dry runs, and the engines look at Kafka and `DynamoDB` from here.

use std::{
    io::{Read as _, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use crds::{MessagingCluster, status::PlannedChange};
use kube::{Api, ResourceExt as _, api::PostParams};
use prometheus_client::registry::Registry;

use crate::{
    backends::Reports,
    client::Clients,
    cluster::{
        Context, build, fetch,
        plan::{changes, summary},
        validate::{self, Invalid},
    },
    config::Settings,
    engine::{Class, Report},
    lease::Fence,
    metrics::Metrics,
};

/// The word that asks for it.
pub const NAME: &str = "plan";

/// Changes were found, and the caller asked to be told so.
const CHANGED: u8 = 2;

/// The command's arguments.
#[derive(Debug, Parser)]
#[command(
    name = "operator plan",
    bin_name = "operator plan",
    version,
    about = "Shows what a MessagingCluster would change, and changes nothing",
    after_help = "Exits with 0, with 1 when it can't tell or the spec is refused, and with --exit-code with 2 when there \
                  is something to change."
)]
pub struct PlanCommand {
    /// File with the object, as YAML or JSON; `-` reads it from standard input
    #[arg(short, long)]
    pub file: PathBuf,

    /// Namespace of an object that names none; the kubeconfig's when absent
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// Exit with 2 when there is something to change
    #[arg(long)]
    pub exit_code: bool,

    /// Registry of the images when the spec names none, as the operator has it
    #[arg(long, env = "IMAGE_REGISTRY", default_value = "messaging.dev")]
    pub image_registry: String,

    /// Domain of the Kubernetes cluster, as the operator has it
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
}

/// What was found.
pub struct Found {
    /// Namespace and name.
    pub cluster: String,
    /// Every change.
    pub changes: Vec<PlannedChange>,
    /// What the engines saw.
    pub reports: Reports,
}

/// Reads the arguments of the process, and answers on its standard output.
pub async fn main() -> ExitCode {
    platform::process::choose_cryptography();
    let command = PlanCommand::parse_from(std::env::args_os().skip(1));
    match Box::pin(told(&command)).await {
        Ok(is_changed) if is_changed && command.exit_code => ExitCode::from(CHANGED),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("operator plan: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn told(command: &PlanCommand) -> anyhow::Result<bool> {
    let text = match command.file.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("failed to read standard input")?;
            text
        }
        _ => std::fs::read_to_string(&command.file)
            .with_context(|| format!("failed to read {}", command.file.display()))?,
    };
    let metrics = Arc::new(Metrics::new(&mut Registry::default(), Arc::new(platform::clock::SystemClock)));
    let clients = Clients::connect(&metrics).await?;
    let found = Box::pin(plan(command, &text, clients, metrics)).await?;
    write(&mut std::io::stdout().lock(), &found).context("failed to write the plan")?;
    Ok(!found.changes.is_empty())
}

/// Finds out what the `MessagingCluster` of this text would change.
///
/// # Errors
/// When the text is not one, the API server refuses it or does not answer, or the spec refers to what is not there.
pub async fn plan(command: &PlanCommand, text: &str, clients: Clients, metrics: Arc<Metrics>) -> anyhow::Result<Found> {
    let asked: MessagingCluster = serde_saphyr::from_str(text).context("the file is not a MessagingCluster")?;
    let cluster = Box::pin(admitted(command, asked, &clients)).await?;
    // It never leads, so nothing that it calls may write.
    let context = Context::new(command.settings(), clients, metrics, Fence::new());
    let fetched = fetch::fetch(&cluster, &context).await?;
    if !fetched.denied.is_empty() {
        anyhow::bail!("you may not read Secrets that the spec refers to: {}", fetched.denied.join(", "));
    }
    let wanted =
        validate::validate(&cluster, &fetched.references, context.defaults()).map_err(|invalid| refused(&invalid))?;
    let objects = build::build(&wanted);
    let (changes, reports) = changes(&cluster, &wanted, &objects, &fetched, &context).await?;
    Ok(Found { cluster: format!("{}/{}", wanted.namespace, wanted.name), changes, reports })
}

/// The object as the API server would keep it: with its defaults and its uid, judged by its rules.
async fn admitted(
    command: &PlanCommand,
    mut asked: MessagingCluster,
    clients: &Clients,
) -> anyhow::Result<MessagingCluster> {
    let namespace = asked.namespace().or_else(|| command.namespace.clone());
    let namespace = namespace.unwrap_or_else(|| clients.objects.default_namespace().to_owned());
    asked.metadata.namespace = Some(namespace.clone());
    let clusters: Api<MessagingCluster> = Api::namespaced(clients.objects.clone(), &namespace);
    let name = asked.name_any();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let answer = match clusters.get_opt(&name).await.context("failed to ask the API server")? {
        Some(there) => {
            // The whole spec takes the place of the old one, so a field that was taken out is gone in the plan too.
            let changed = MessagingCluster { spec: asked.spec, ..there };
            clusters.replace(&name, &dry, &changed).await
        }
        None => clusters.create(&dry, &asked).await,
    };
    match answer {
        Ok(cluster) => Ok(cluster),
        Err(kube::Error::Api(status)) => Err(anyhow::anyhow!("the API server refuses it: {}", status.message)),
        Err(error) => Err(error).context("failed to ask the API server"),
    }
}

fn refused(invalid: &Invalid) -> anyhow::Error {
    let faults = invalid.faults.iter().map(|fault| format!("\n  {:?} {}: {}", fault.reason, fault.path, fault.message));
    anyhow::anyhow!("the spec can't be used:{}", faults.collect::<String>())
}

/// Writes the plan for people: a line a change, then what could not be looked at.
///
/// # Errors
/// When it can't be written.
pub fn write(out: &mut impl Write, found: &Found) -> std::io::Result<()> {
    writeln!(out, "MessagingCluster {}: {}", found.cluster, summary(&found.changes))?;
    for change in &found.changes {
        let sign = match (&change.field, change.to.as_deref()) {
            (None, Some("deleted")) => '-',
            (None, Some(to)) if !to.starts_with("refused") => '+',
            _ => '~',
        };
        write!(out, "  {sign} {}", change.object)?;
        if let Some(field) = &change.field {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".to_owned());
            write!(out, " {field}: {} -> {}", value(&change.from), value(&change.to))?;
        } else if let Some(to) = &change.to {
            write!(out, " {to}")?;
        }
        if change.disruptive {
            write!(out, " (disruptive)")?;
        }
        match &change.why {
            Some(why) => writeln!(out, ": {why}")?,
            None => writeln!(out)?,
        }
    }
    for (part, report) in [("topics", &found.reports.topics), ("tables", &found.reports.tables)] {
        match report {
            None => writeln!(out, "{part}: not looked at")?,
            Some(Report { reason, message, .. }) if reason.class() != Class::InSync => {
                writeln!(out, "{part}: {}: {message}", reason.as_str())?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

impl PlanCommand {
    fn settings(&self) -> Settings {
        Settings {
            image_registry: self.image_registry.clone(),
            cluster_domain: self.cluster_domain.clone(),
            watch_namespaces: Vec::new(),
            // Nobody is elected and nothing is repeated.
            pod_name: NAME.to_owned(),
            pod_namespace: String::new(),
            lease_name: String::new(),
            concurrency: 1,
            reconcile_timeout: Duration::ZERO,
            resync: Duration::ZERO,
            topics_resync: Duration::ZERO,
            tables_resync: Duration::ZERO,
            deletion_timeout: Duration::ZERO,
        }
    }
}
