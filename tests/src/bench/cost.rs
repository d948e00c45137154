//! What processes have used, as the kernel counts it.

use std::time::Duration;

use anyhow::Context as _;

use crate::world::service::Service;

/// Length of the kernel's tick, the same on every Linux that people run.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process since its start, its own and the kernel's for it, in ticks of 10 ms.
///
/// # Errors
/// When it does not run.
pub fn cpu(service: &Service) -> anyhow::Result<Duration> {
    let pid = service.pid().with_context(|| format!("{} does not run", service.name()))?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name in brackets: state is the first field, user time the 12th, kernel time the 13th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u32 = fields.map(|field| field.parse::<u32>().unwrap_or_default()).sum();
    Ok(TICK * ticks)
}

/// Processor time a piece, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn each(cpu: Duration, pieces: u64) -> f64 {
    let micros = cpu.as_secs_f64() * 1_000_000.0 / pieces.max(1) as f64;
    (micros * 100.0).round() / 100.0
}
