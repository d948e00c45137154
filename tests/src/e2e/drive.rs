//! The driver: installs what is missing, goes through the steps, tells what became of each, and clears away.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    kube::{Kube, until},
    messages::{Figures, Question},
    platform::Platform,
    steps,
};

/// After a step, messages must flow again within this time.
const FLOWS_WITHIN: Duration = Duration::from_mins(1);
/// Messages flow when nobody waits longer than this for an ack, in milliseconds.
const FLOWING_MS: u64 = 1_500;

/// What to try, and where its parts are.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The scripts that know the cluster
    #[arg(long, default_value = "tests/ground")]
    pub(super) ground: PathBuf,
    /// The charts
    #[arg(long, default_value = "charts")]
    pub(super) charts: PathBuf,
    /// Where the summary goes
    #[arg(long, default_value = "target/e2e.json")]
    report: PathBuf,
    /// Tag of the images
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    pub(super) version: String,
    /// Another tag of the same images
    #[arg(long, default_value = concat!(env!("CARGO_PKG_VERSION"), "-b"))]
    pub(super) other_version: String,
    /// Registry of the images
    #[arg(long, default_value = "messaging.dev")]
    pub(super) registry: String,
    /// Namespace of the operator
    #[arg(long, default_value = "messaging-system")]
    pub(super) operator: String,
    /// Namespace of Kafka, DynamoDB and Redis
    #[arg(long, default_value = "backends")]
    pub(super) backends: String,
    /// Namespaces and names of the clusters begin with this
    #[arg(long, default_value = "e2e")]
    pub(super) prefix: String,
    /// Leaves what was made
    #[arg(long)]
    keep: bool,
}

/// What became of one step.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    step: String,
    seconds_until_ready: f64,
    acknowledged: usize,
    longest_gap_ms: u64,
    violations: Vec<String>,
    error: Option<String>,
}

/// A run and its report.
pub(super) struct Run {
    pub(super) config: Config,
    pub(super) kube: Kube,
    outcomes: Vec<Outcome>,
    /// What was measured, by name.
    pub(super) measured: Map<String, Value>,
}

/// Tries everything.
///
/// # Errors
/// When a step failed: what, is printed.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let begun = Instant::now();
    let kube = Kube::new(&config.ground);
    let mut run = Run { kube, outcomes: Vec::new(), measured: Map::new(), config };
    let one = run.platform("a");
    let two = run.platform("b");
    let done = Box::pin(steps::all(&mut run, &one, &two)).await;
    if let Err(error) = &done {
        say(&format!("failed: {error:#}"));
        for platform in [&one, &two] {
            say(&platform.evidence(&run.config.operator).await);
        }
    }
    if !run.config.keep {
        for platform in [&one, &two] {
            if let Err(error) = platform.remove().await {
                say(&format!("not cleared away: {error:#}"));
            }
        }
    }
    let seconds = begun.elapsed().as_secs();
    run.measured.insert("seconds".to_owned(), seconds.into());
    let failed: Vec<&str> =
        run.outcomes.iter().filter(|outcome| !outcome.is_good()).map(|it| it.step.as_str()).collect();
    let verdict = if done.is_ok() && failed.is_empty() { "passed" } else { "failed" };
    let summary = serde_json::json!({"verdict": verdict, "steps": run.outcomes, "measured": run.measured});
    write(&run.config.report, &summary)?;
    say(&serde_json::to_string_pretty(&run.measured)?);
    say(&format!("{verdict}: {} steps in {seconds} s; {}", run.outcomes.len(), run.config.report.display()));
    done?;
    anyhow::ensure!(failed.is_empty(), "{}", failed.join(", "));
    Ok(())
}

fn write(report: &Path, summary: &Value) -> anyhow::Result<()> {
    if let Some(folder) = report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(summary)?;
    std::fs::write(report, text).with_context(|| format!("failed to write {}", report.display()))
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.violations.is_empty() && self.error.is_none()
    }
}

impl Run {
    fn platform(&self, letter: &str) -> Platform {
        Platform::new(self.kube.clone(), &format!("{}-{letter}", self.config.prefix))
    }

    /// Does something to a platform while people talk on it; waits until it is ready again and messages flow; and judges.
    ///
    /// # Errors
    /// When that takes too long. A broken promise is no error here: the steps after it tell more.
    pub(super) async fn step(
        &mut self,
        platform: &Platform,
        what: &str,
        action: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        platform.ask(&Question::Mark).await?;
        let begun = Instant::now();
        let done = async {
            action.await?;
            platform.ready().await?;
            let seconds = begun.elapsed().as_secs_f64();
            until("messages flow again", FLOWS_WITHIN, async || {
                let figures = platform.ask(&Question::Figures).await?;
                Ok((figures.acknowledged > 0 && figures.waiting_ms < FLOWING_MS).then_some(()))
            })
            .await?;
            platform.is_talker_whole().await?;
            Ok((seconds, platform.ask(&Question::Verify).await?))
        };
        let done: anyhow::Result<(f64, Figures)> = done.await;
        match done {
            Ok((seconds, figures)) => {
                self.tell(what, seconds, figures, None);
                Ok(())
            }
            Err(error) => {
                let figures = platform.ask(&Question::Figures).await.unwrap_or_default();
                self.tell(what, begun.elapsed().as_secs_f64(), figures, Some(format!("{error:#}")));
                Err(error.context(what.to_owned()))
            }
        }
    }

    /// Prints and keeps what became of a step.
    pub(super) fn tell(&mut self, what: &str, seconds: f64, figures: Figures, error: Option<String>) {
        let verdict = match (&error, figures.violations.first()) {
            (Some(error), _) => format!("FAILED: {error}"),
            (None, Some(first)) => format!("BROKEN: {} violations, the first: {first}", figures.violations.len()),
            (None, None) => "all there, once, in order".to_owned(),
        };
        let gap = Duration::from_millis(figures.longest_gap_ms).as_secs_f64();
        let acknowledged = figures.acknowledged;
        say(&format!("{what:<44} ready {seconds:>6.1} s  acks {acknowledged:>5}  longest gap {gap:>5.1} s  {verdict}"));
        self.outcomes.push(Outcome {
            step: what.to_owned(),
            seconds_until_ready: seconds,
            acknowledged,
            longest_gap_ms: figures.longest_gap_ms,
            violations: figures.violations,
            error,
        });
    }
}

/// One line for whoever watches.
pub(super) fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}")); // nobody may read it
}
