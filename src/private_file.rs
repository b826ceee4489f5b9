//! Owner-only files for the secrets of `register`, `login` and `token`: mode 0600, replaced
//! atomically, fsynced before success is reported, and locked while one process changes them.
//!
//! [`PrivateFile`] checks permissions and reads; [`PrivateFile::lock`] returns a [`LockedFile`],
//! the only way to write. [`state`] stores versioned JSON in such a file.

pub mod serde_secret;
pub mod state;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The largest file accepted, in bytes.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// Permission bits of group and others.
const GROUP_AND_OTHERS: u32 = 0o077;
/// Write bits of group and others: on a directory, they allow replacing the file.
const GROUP_AND_OTHERS_WRITE: u32 = 0o022;
/// The sticky bit: only an entry's owner may replace it, as in `/tmp`.
const STICKY: u32 = 0o1000;

/// Which permissions the file's directory may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryPolicy {
    /// No access for group and others (mode 0700).
    OwnerOnly,
    /// Group and others may read the directory, but not write to it.
    OthersMayRead,
}

/// Why a file could not be used. The messages name paths, never contents.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// A system call failed.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Its permissions, owner or type make it unsafe to use.
    #[error("{}: {problem}; {remedy}", .path.display())]
    Insecure {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Larger than [`MAX_BYTES`].
    #[error("{}: larger than 1 MiB, so not a file that hawkgate wrote", .0.display())]
    TooLarge(PathBuf),
}

/// The path of a private file, which need not exist yet.
#[derive(Clone, Debug)]
pub struct PrivateFile {
    path: PathBuf,
    directory_policy: DirectoryPolicy,
}

/// A private file under an exclusive lock, held until this is dropped.
#[derive(Debug)]
pub struct LockedFile {
    file: PrivateFile,
    /// Closing it releases the lock. The lock file is never removed: otherwise two processes
    /// could each hold a lock on a different inode of the same name.
    _lock: File,
}

/// A second file protected by another file's lock.
#[derive(Debug)]
pub struct SidecarFile<'a> {
    file: PrivateFile,
    _guard: &'a LockedFile,
}

impl PrivateFile {
    /// The file at `path`, whose directory must satisfy `directory_policy`.
    pub fn new(path: PathBuf, directory_policy: DirectoryPolicy) -> Self {
        Self {
            path,
            directory_policy,
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the contents; `None` if the file does not exist.
    ///
    /// # Errors
    /// When others may read the file, it is not a regular file owned by this user, it is larger
    /// than [`MAX_BYTES`], or a system call fails.
    pub fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateFileError> {
        // Checked before opening, because opening a FIFO would block until a writer appears.
        let metadata = match fs::symlink_metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.map_err(|e| io_error(&self.path, "stat", e))?,
        };
        self.check_directory()?;
        self.check_file(&metadata)?;
        let mut file = File::open(&self.path).map_err(|e| io_error(&self.path, "read", e))?;
        // Checked again, in case the path was replaced in between.
        let opened = file.metadata();
        self.check_file(&opened.map_err(|e| io_error(&self.path, "stat", e))?)?;
        let mut content = Zeroizing::new(Vec::new());
        Read::by_ref(&mut file)
            .take(MAX_BYTES + 1)
            .read_to_end(&mut content)
            .map_err(|e| io_error(&self.path, "read", e))?;
        if content.len() as u64 > MAX_BYTES {
            return Err(PrivateFileError::TooLarge(self.path.clone()));
        }
        Ok(Some(content))
    }

    /// Locks the file for writing, blocking while another process holds the lock; `on_wait` is
    /// called once before blocking. Creates a missing directory with mode 0700 and makes sure
    /// that the file can be written.
    ///
    /// # Errors
    /// When the directory does not satisfy its policy or a system call fails.
    pub fn lock(&self, on_wait: impl FnOnce()) -> Result<LockedFile, PrivateFileError> {
        self.create_directory()?;
        self.check_directory()?;
        let path = with_suffix(&self.path, "lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io_error(&path, "create", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                on_wait();
                lock.lock().map_err(|e| io_error(&path, "lock", e))?;
            }
            Err(TryLockError::Error(e)) => return Err(io_error(&path, "lock", e)),
        }
        let locked = LockedFile {
            file: self.clone(),
            _lock: lock,
        };
        locked.file.check_writable()?;
        Ok(locked)
    }

    fn replace(&self, content: &[u8]) -> Result<(), PrivateFileError> {
        let new = with_suffix(&self.path, "new");
        let written = write_synced(&new, content)
            .and_then(|()| fs::rename(&new, &self.path))
            .and_then(|()| File::open(self.parent())?.sync_all());
        written.map_err(|e| io_error(&self.path, "write", e))
    }

    fn remove(&self) -> Result<(), PrivateFileError> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed
                .and_then(|()| File::open(self.parent())?.sync_all())
                .map_err(|e| io_error(&self.path, "remove", e)),
        }
    }

    /// Makes sure that the file can be replaced, before the caller does anything irreversible
    /// that must be recorded in it.
    fn check_writable(&self) -> Result<(), PrivateFileError> {
        let new = with_suffix(&self.path, "new");
        write_synced(&new, b"")
            .and_then(|()| fs::remove_file(&new))
            .map_err(|e| io_error(&self.path, "write", e))
    }

    fn parent(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn create_directory(&self) -> Result<(), PrivateFileError> {
        let parent = self.parent();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|e| io_error(parent, "create this directory", e))
    }

    fn check_directory(&self) -> Result<(), PrivateFileError> {
        let parent = self.parent();
        let metadata = fs::metadata(parent).map_err(|e| io_error(parent, "stat", e))?;
        let mode = metadata.mode();
        let (problem, remedy) = match self.directory_policy {
            DirectoryPolicy::OwnerOnly if mode & GROUP_AND_OTHERS != 0 => (
                "other users have access to this directory",
                "restrict it (chmod 700) or choose another one",
            ),
            DirectoryPolicy::OthersMayRead
                if mode & GROUP_AND_OTHERS_WRITE != 0 && mode & STICKY == 0 =>
            {
                (
                    "other users can write to this directory, and could replace the file",
                    "restrict it (chmod go-w) or choose another one",
                )
            }
            _ => return Ok(()),
        };
        Err(insecure(parent, problem, remedy))
    }

    fn check_file(&self, metadata: &fs::Metadata) -> Result<(), PrivateFileError> {
        let (problem, remedy) = if !metadata.is_file() {
            ("not a regular file", "choose another path")
        } else if metadata.uid() != rustix::process::geteuid().as_raw() {
            (
                "owned by another user",
                "run as that user, or choose another file",
            )
        } else if metadata.mode() & GROUP_AND_OTHERS != 0 {
            (
                "other users have access to this file",
                "restrict it (chmod 600), and treat the secrets in it as disclosed",
            )
        } else {
            return Ok(());
        };
        Err(insecure(&self.path, problem, remedy))
    }
}

impl LockedFile {
    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Reads the contents; `None` if the file does not exist.
    ///
    /// # Errors
    /// As [`PrivateFile::read`].
    pub fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateFileError> {
        self.file.read()
    }

    /// Replaces the contents atomically: readers, and a restart after a crash, find either the
    /// old contents or the new ones. The new contents are on disk when this returns.
    ///
    /// # Errors
    /// When a system call fails; the old contents are then still in place.
    pub fn replace(&self, content: &[u8]) -> Result<(), PrivateFileError> {
        self.file.replace(content)
    }

    /// Removes the file; succeeds if it does not exist.
    ///
    /// # Errors
    /// When a system call fails.
    pub fn remove(&self) -> Result<(), PrivateFileError> {
        self.file.remove()
    }

    /// A second file to be written under the same lock. Makes sure that it can be written.
    ///
    /// # Errors
    /// As [`PrivateFile::lock`].
    pub fn sidecar(&self, path: PathBuf) -> Result<SidecarFile<'_>, PrivateFileError> {
        let file = PrivateFile::new(path, self.file.directory_policy);
        file.create_directory()?;
        file.check_directory()?;
        file.check_writable()?;
        Ok(SidecarFile { file, _guard: self })
    }
}

impl SidecarFile<'_> {
    /// Replaces the contents, unless they are already `content`.
    ///
    /// # Errors
    /// As [`LockedFile::replace`].
    pub fn replace_if_changed(&self, content: &[u8]) -> Result<(), PrivateFileError> {
        match self.file.read() {
            Ok(Some(old)) if old.as_slice() == content => Ok(()),
            // Also replaces a file that is unreadable or has the wrong permissions.
            _ => self.file.replace(content),
        }
    }

    /// Removes the file; succeeds if it does not exist.
    ///
    /// # Errors
    /// When a system call fails.
    pub fn remove(&self) -> Result<(), PrivateFileError> {
        self.file.remove()
    }
}

/// Writes and fsyncs a new file with mode 0600, replacing one that a crash left behind.
fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// `dir/name` → `dir/name.<suffix>`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> PrivateFileError {
    PrivateFileError::Io {
        path: path.to_owned(),
        action,
        source,
    }
}

fn insecure(path: &Path, problem: &'static str, remedy: &'static str) -> PrivateFileError {
    PrivateFileError::Insecure {
        path: path.to_owned(),
        problem,
        remedy,
    }
}

#[cfg(test)]
mod tests;
