//! Points of the code at which a test may end, stop or delay this process. Without the feature `failpoints` they are
//! nothing; no image has it.
//!
//! `FAILPOINTS="commit.after=20*off->1*return(abort)"` ends the process when it is at `commit.after` for the 21st time.
//! What can be returned: `abort` (as SIGKILL does), `abort 300` (300 ms later, while other tasks go on), `stop`
//! (SIGSTOP: it stands still until somebody continues it). The other actions are those of the crate `fail`.

/// Reads what is to happen at which point. Called once, at the start of a process.
pub fn arm() {
    #[cfg(feature = "failpoints")]
    // What is armed stays so until the process ends.
    std::mem::forget(fail::FailScenario::setup());
}

/// The process is at that point.
#[cfg(feature = "failpoints")]
pub fn reached(point: &'static str) {
    fail::fail_point!(point, |action| act(point, action.as_deref().unwrap_or_default()));
}

/// The process is at that point.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reached(_point: &'static str) {}

#[cfg(feature = "failpoints")]
fn act(point: &'static str, action: &str) {
    tracing::warn!(event = "failpoint.reached", failpoint = point, action, "failpoint {point}: {action}");
    match action.split_once(' ').unwrap_or((action, "0")) {
        ("abort", later) => {
            std::thread::sleep(std::time::Duration::from_millis(later.parse().unwrap_or(0)));
            std::process::abort();
        }
        ("stop", _) => {
            let stopped = std::process::Command::new("sh").args(["-c", "kill -STOP $PPID"]).status();
            tracing::warn!(event = "failpoint.left", failpoint = point, "stood still at {point}: {stopped:?}");
        }
        (other, _) => tracing::error!(event = "failpoint.unknown", failpoint = point, "nothing is known of {other:?}"),
    }
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_nobody_armed_is_nothing() {
        reached("nobody.knows");
    }
}
