//! A system that a process can't serve without: looked at again and again, readiness follows.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{Process, retry::Backoff};

/// Between two looks at a system that is there.
const EVERY: Duration = Duration::from_secs(2);
/// How long one look may take.
const WITHIN: Duration = Duration::from_secs(2);
/// A watch that looks at nothing for so long is stuck.
const SILENCE: Duration = Duration::from_mins(1);
/// Looks that fail one after the other until the process is not ready any more.
const FAILURES: u32 = 3;
/// Between two looks at a system that is away.
const AWAY: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(1) };

/// Looks at a system until the process stops. The process is ready only while the system answers; what it said
/// last is shown with the gate's name.
pub fn watch<C, Fut>(process: &Process, name: &'static str, look: C)
where
    C: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (gate, stop, ids) = (process.gate(name), process.stop_token(), process.ids());
    let alive = process.liveness(name, SILENCE);
    process.spawn(name, async move {
        let mut failures = FAILURES - 1; // none of them counts before the first success
        let mut was_there = false;
        loop {
            let answer = match stop.run_until_cancelled(timeout(WITHIN, look())).await {
                None => return Ok(()),
                Some(Ok(answer)) => answer,
                Some(Err(_)) => Err(anyhow::anyhow!("no answer within {WITHIN:?}")),
            };
            alive.beat();
            let wait = match answer {
                Ok(()) => {
                    if failures >= FAILURES && was_there {
                        tracing::info!(event = "dependency.back", dependency = name, "the {name} is back");
                    }
                    (failures, was_there) = (0, true);
                    gate.open();
                    EVERY
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == FAILURES {
                        tracing::warn!(
                            event = "dependency.away",
                            dependency = name,
                            error.message = %format_args!("{error:#}"),
                            "the {name} is away, so this process is not ready"
                        );
                    }
                    if failures >= FAILURES {
                        gate.close_for(format!("{error:#}"));
                    }
                    AWAY.delay(failures.saturating_sub(FAILURES), ids.as_ref())
                }
            };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_is_ready_while_what_it_needs_answers_and_says_why_it_is_not() {
        let process = Process::new();
        let is_there = Arc::new(AtomicBool::new(false));
        let seen = is_there.clone();
        watch(&process, "store", move || {
            let is_there = seen.load(Ordering::Relaxed);
            async move { if is_there { Ok(()) } else { Err(anyhow::anyhow!("nobody listens")) } }
        });
        sleep(Duration::from_millis(1)).await;
        assert_eq!(process.why_not_ready(), ["store (nobody listens)"]);
        is_there.store(true, Ordering::Relaxed);
        timeout(Duration::from_secs(2), process.ready()).await.expect("ready within the longest wait");

        is_there.store(false, Ordering::Relaxed);
        sleep(EVERY).await;
        assert!(process.not_ready().is_empty(), "one failure is no outage");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(process.not_ready(), ["store"]);
        is_there.store(true, Ordering::Relaxed);
        timeout(Duration::from_secs(2), process.ready()).await.expect("it is back");
        process.shut_down().await;
    }
}
