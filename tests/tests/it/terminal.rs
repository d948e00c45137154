//! The terminal client, driven as by two people.

use std::{process::Stdio, time::Duration};

use anyhow::Context as _;
use tests::world::{World, binary};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

const WITHIN: Duration = Duration::from_secs(30);

/// One person at one terminal, and all that it showed.
pub(crate) struct Terminal {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Lines that were typed, after `> `, and lines that it showed.
    pub(crate) shown: Vec<String>,
}

impl Terminal {
    pub(crate) async fn open(world: &World, phone: &str, name: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(binary("chat")?)
            .args(["--server", world.server(), "--phone", phone, "--name", name])
            .arg("--data")
            .arg(world.folder().join("terminals"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut terminal = Self { child, input, output, shown: Vec::new() };
        terminal.see("code:").await?;
        terminal.type_line(&world.code(phone, 0).await?).await?;
        terminal.see("/help shows").await?;
        Ok(terminal)
    }

    pub(crate) async fn type_line(&mut self, line: &str) -> anyhow::Result<()> {
        self.shown.push(format!("> {line}"));
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        self.input.flush().await.context("the terminal is gone")
    }

    /// Waits until a line has that in it.
    pub(crate) async fn see(&mut self, part: &str) -> anyhow::Result<()> {
        let seen = timeout(WITHIN, async {
            while let Some(line) = self.output.next_line().await? {
                self.shown.push(line.clone());
                if line.contains(part) {
                    return anyhow::Ok(());
                }
            }
            anyhow::bail!("it ended")
        });
        seen.await
            .map_err(anyhow::Error::from)
            .and_then(|seen| seen)
            .with_context(|| format!("{part:?} in {:#?}", self.shown))
    }

    pub(crate) async fn quit(mut self) -> anyhow::Result<Vec<String>> {
        self.type_line("/quit").await?;
        let status = timeout(WITHIN, self.child.wait()).await??;
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(self.shown)
    }
}

#[tokio::test]
async fn two_terminals_exchange_messages() -> anyhow::Result<()> {
    let world = World::start().await?;
    let mut ana = Terminal::open(&world, "+12025550100", "Ana").await?;
    let mut ben = Terminal::open(&world, "+12025550101", "Ben").await?;
    ana.type_line("/new +12025550101").await?;
    ana.see("== Ben ==").await?;
    ben.see("== Ana ==").await?;
    ana.type_line("Meet at the north gate?").await?;
    ana.see("you: Meet at the north gate?").await?;
    ben.see("Ana: Meet at the north gate?").await?;
    ben.type_line("On my way").await?;
    ana.see("#2 Ben: On my way").await?;
    ben.see("#2 you: On my way").await?;
    ana.type_line("/new +12025550199").await?;
    ana.see("not here yet: +12025550199").await?;
    ana.quit().await?;
    ben.quit().await?;
    Ok(())
}

#[tokio::test]
async fn a_terminal_stays_of_use_while_the_server_is_away() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let mut ana = Terminal::open(&world, "+12025550100", "Ana").await?;
    let mut ben = Terminal::open(&world, "+12025550101", "Ben").await?;
    ana.type_line("/new +12025550101").await?;
    ben.see("== Ana ==").await?;
    world.kill().await?;
    ana.see("-- reconnecting").await?;
    ana.type_line("Are you there?").await?;
    ana.type_line("/help").await?;
    ana.see("/quit").await?;
    world.restart().await?;
    ana.see("-- connected").await?;
    ana.see("you: Are you there?").await?;
    ben.see("Ana: Are you there?").await?;
    ana.quit().await?;
    ben.quit().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_one_clear_line() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(binary("chat")?)
        .args(["--server", "http://127.0.0.1:9", "--phone", "+12025550100"])
        .arg("--data")
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.starts_with("chat: http://127.0.0.1:9 is not reached"), "{said}");
    Ok(())
}
