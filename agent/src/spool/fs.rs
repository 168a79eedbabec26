//! The little that the spool asks of a file system, so that a test can give it one that forgets what was not synced.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A flat directory of append-only files.
pub trait Fs: Send + 'static {
    /// A file that is being written.
    type File: Append;

    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A whole file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// A new, empty file. Fails if there is one. Its name survives a crash only after [`Fs::sync_names`].
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Cuts a file to its first `length` bytes, durably.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and removals survive a crash.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file that only grows.
pub trait Append: Send {
    /// Adds all bytes at the end, or fails; then any part of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was added survive a crash.
    fn sync(&mut self) -> io::Result<()>;
}

/// Name of the file that says whose the directory is.
const LOCK: &str = "lock";

/// A directory on disk, held by this process alone: two agents on one spool would give each number out twice.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Disk {
    /// The directory, made if it is not there, readable by its owner only. Fails if another process holds it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)?;
        let mut options = OpenOptions::new();
        let lock = options.create(true).append(true).open(dir.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another agent uses it: give each agent a directory of its own",
            ),
            TryLockError::Error(error) => error,
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }
}

impl Fs for Disk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        // A name that is not text is not ours.
        Ok(names?
            .into_iter()
            .filter_map(|n| n.into_string().ok())
            .collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        options.open(self.dir.join(name))
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.dir.join(name))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl Append for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_belongs_to_one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Disk::open(dir.path()).unwrap();
        let second = Disk::open(dir.path()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        drop(first);
        assert!(Disk::open(dir.path()).is_ok());
    }
}
