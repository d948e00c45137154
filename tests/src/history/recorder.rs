//! Writes a history while it happens: one line an event, stamped by the monotonic clock of this host.

use std::{
    fmt,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::Context as _;

use super::line::{Kind, Line, Run, What};

/// Where a run's history goes. Clones write to the same file.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    path: PathBuf,
    process: String,
    begun: Instant,
    file: Mutex<Written>,
}

struct Written {
    to: BufWriter<File>,
    /// Why a line could not be written; told at the end.
    failed: Option<std::io::Error>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Recorder").field(&self.0.path).finish()
    }
}

impl Recorder {
    /// A new history that begins with what is promised of its run.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn create(path: &Path, run: Run) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("failed to make {}", path.display()))?;
        let written = Mutex::new(Written { to: BufWriter::new(file), failed: None });
        let process = format!("driver-{}", std::process::id());
        let recorder = Self(Arc::new(Inner { path: path.to_owned(), process, begun: Instant::now(), file: written }));
        recorder.write(Line { what: What::Run, kind: Kind::Info, run: Some(run), ..Line::default() });
        Ok(recorder)
    }

    /// Writes a line; its time is now. Returns that time, in microseconds since the run began.
    pub fn write(&self, line: Line) -> u64 {
        // Stamped under the lock, so that the lines of the file are in the order of their times.
        let mut written = self.lock();
        let at = u64::try_from(self.0.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let line = Line { at, process: self.0.process.clone(), ..line };
        let done = serde_json::to_writer(&mut written.to, &line).map_err(std::io::Error::from);
        let done = done.and_then(|()| written.to.write_all(b"\n"));
        if let Err(error) = done {
            written.failed.get_or_insert(error);
        }
        at
    }

    /// Where it goes.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Brings all lines to the file, and reads them.
    ///
    /// # Errors
    /// When one could not be written or read.
    pub fn lines(&self) -> anyhow::Result<Vec<Line>> {
        let mut written = self.lock();
        if let Some(error) = written.failed.take() {
            return Err(error).context("a line of the history was not written");
        }
        written.to.flush()?;
        drop(written);
        read(&self.0.path)
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a history.
///
/// # Errors
/// With the number of the first line that is none.
pub fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), number + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_the_order_in_which_they_were_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let recorder = Recorder::create(&folder.path().join("h.jsonl"), Run::default()).expect("a file");
        for number in 0..3 {
            recorder.write(Line { sequence: Some(number), what: What::Row, ..Line::default() });
        }
        let lines = recorder.lines().expect("lines");
        assert_eq!(lines.iter().filter_map(|line| line.sequence).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(lines.windows(2).all(|pair| pair[0].at <= pair[1].at), "times ascend");
        assert_eq!(lines[0].run, Some(Run::default()));
    }
}
