//! The one folder that holds everything durable, locked while a process uses it.

use std::{
    fs::{self, File, TryLockError},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A data folder that this process alone uses, until it is dropped or the process ends.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    lock: File,
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // Closing would do, were there not a moment in which a child that is being started still has the file.
        drop(self.lock.unlock());
    }
}

impl DataFolder {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// In one line: who uses the folder, or why it can't be used.
    pub fn lock(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("failed to make the data folder {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("failed to find the data folder {}", path.display()))?;
        let file = path.join("lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .with_context(|| format!("failed to open {}", file.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let owner = lock.read_to_string(&mut owner).map(|_| owner.trim().to_owned()).unwrap_or_default();
                anyhow::bail!("the data folder {} is in use by process {owner}", path.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("failed to lock {}", file.display()));
            }
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .with_context(|| format!("failed to write {}", file.display()))?;
        Ok(Self { path, lock })
    }

    /// Where it is, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
