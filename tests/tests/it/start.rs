//! How the process starts, refuses to start, and ends.

use std::{net::TcpListener, path::Path, time::Duration};

use tests::world::{World, binary, family};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

const WITHIN: Duration = Duration::from_secs(20);

/// Runs it with these flags and this search path; it must fail with one clear line, which is returned.
async fn refused(data: &Path, flags: &[&str], path: Option<&str>) -> anyhow::Result<String> {
    let mut command = Command::new(binary("standalone")?);
    command.arg("--data").arg(data).args(flags).kill_on_drop(true);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = tokio::time::timeout(WITHIN, command.output()).await??;
    assert!(!output.status.success(), "it started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    Ok(said)
}

#[tokio::test]
async fn what_is_in_the_way_of_a_start_is_named_in_one_line() -> anyhow::Result<()> {
    let world = World::start().await?;
    let free = ["--listen", "127.0.0.1:0"];
    let said = refused(&world.data(), &free, None).await?;
    assert!(said.contains("in use by process") && said.contains(&world.data().display().to_string()), "{said}");

    let other = tempfile::tempdir()?;
    let data = other.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let said = refused(&data, &["--listen", &address], None).await?;
    assert!(said.contains("--listen") && said.contains(&address), "{said}");

    let said = refused(&data, &free, Some("/nonexistent")).await?;
    assert!(said.contains("redis-server is not installed"), "{said}");

    let file = other.path().join("a file");
    std::fs::write(&file, "not a folder")?;
    let said = refused(&file, &free, None).await?;
    assert!(said.contains("data folder") && said.contains(&file.display().to_string()), "{said}");

    let said = refused(&data, &["--send-rate", "many"], None).await?;
    assert!(said.contains("--send-rate"), "{said}");
    Ok(())
}

#[tokio::test]
async fn everything_it_started_ends_with_it_even_when_it_is_killed() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let pid = world.pid().expect("running");
    let started = family(pid);
    assert!(started.len() > 1, "a cache is its child");
    println!("memory with nobody connected: {} KB", world.memory_kilobytes()?);
    world.kill().await?;
    let deadline = Instant::now() + WITHIN;
    while started.iter().any(|pid| is_alive(*pid)) {
        assert!(Instant::now() < deadline, "still there: {:?}", started.iter().filter(|pid| is_alive(**pid)));
        sleep(Duration::from_millis(10)).await;
    }
    let took = world.restart().await?;
    println!("ready {took:?} after a kill");
    assert!(world.stop().await?, "it did not end well:\n{}", world.log_end());
    Ok(())
}

/// A process that has ended and waits to be collected counts as gone.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}
