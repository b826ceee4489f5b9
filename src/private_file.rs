//! Files that hold secrets of the commands `register`, `login` and `token`: readable by
//! their owner only, replaced as a whole and written through to the disk before anybody
//! is told so, and changed by one process at a time.

pub mod serde_secret;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The largest such file, in bytes.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// Permission bits of anybody but the owner.
const OTHERS: u32 = 0o077;
/// Permission bits with which others could put another file in place of ours.
const OTHERS_WRITE: u32 = 0o022;
/// Only an entry's owner may replace it (`/tmp`).
const STICKY: u32 = 0o1000;

/// Who may look into the directory of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryPolicy {
    /// Only the owner.
    OwnerOnly,
    /// Anybody, but nobody else may write there.
    OthersMayRead,
}

/// Why a file could not be used. Names paths, never content.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// The system refused.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It is open to others, or is not a file of our own.
    #[error("{}: {problem}; {remedy}", .path.display())]
    Insecure {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Larger than [`MAX_BYTES`].
    #[error("{}: larger than 1 MiB: this is no file of hawkgate's", .0.display())]
    TooLarge(PathBuf),
}

/// One such file, which need not exist yet.
#[derive(Clone, Debug)]
pub struct PrivateFile {
    path: PathBuf,
    directory: DirectoryPolicy,
}

/// Leave to change the file: nobody else changes it until this is dropped.
#[derive(Debug)]
pub struct LockedFile {
    file: PrivateFile,
    /// Unlocked when closed. Its file stays: were it removed, two processes could hold
    /// locks on two files of the same name.
    _lock: File,
}

/// A file that somebody else's lock guards.
#[derive(Debug)]
pub struct SidecarFile<'a> {
    file: PrivateFile,
    _guard: &'a LockedFile,
}

impl PrivateFile {
    /// The file at `path`, in a directory that is `directory`.
    pub fn new(path: PathBuf, directory: DirectoryPolicy) -> Self {
        Self { path, directory }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its content; `None` when there is no such file.
    ///
    /// # Errors
    /// When others may read it or it is no plain file of this user, and when the system refuses.
    pub fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateFileError> {
        // Before it is opened: opening a FIFO would wait for a writer.
        let found = match fs::symlink_metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|e| failed(&self.path, "look at it", e))?,
        };
        self.check_directory()?;
        self.check_file(&found)?;
        let mut file = File::open(&self.path).map_err(|e| failed(&self.path, "read it", e))?;
        let opened = file.metadata();
        self.check_file(&opened.map_err(|e| failed(&self.path, "look at it", e))?)?;
        let mut content = Zeroizing::new(Vec::new());
        Read::by_ref(&mut file)
            .take(MAX_BYTES + 1)
            .read_to_end(&mut content)
            .map_err(|e| failed(&self.path, "read it", e))?;
        if content.len() as u64 > MAX_BYTES {
            return Err(PrivateFileError::TooLarge(self.path.clone()));
        }
        Ok(Some(content))
    }

    /// Leave to change it, waiting while another process has it; `waiting` is called once
    /// when that is so. A missing directory is made, for the owner only.
    ///
    /// # Errors
    /// When the directory or the file is open to others, or the system refuses.
    pub fn lock(&self, waiting: impl FnOnce()) -> Result<LockedFile, PrivateFileError> {
        self.make_directory()?;
        self.check_directory()?;
        let path = with_suffix(&self.path, "lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| failed(&path, "create it", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                lock.lock().map_err(|e| failed(&path, "lock it", e))?;
            }
            Err(TryLockError::Error(e)) => return Err(failed(&path, "lock it", e)),
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
        written.map_err(|e| failed(&self.path, "write it", e))
    }

    fn remove(&self) -> Result<(), PrivateFileError> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed
                .and_then(|()| File::open(self.parent())?.sync_all())
                .map_err(|e| failed(&self.path, "remove it", e)),
        }
    }

    /// That a replacement could be written is known before anything is done that must be
    /// recorded.
    fn check_writable(&self) -> Result<(), PrivateFileError> {
        let new = with_suffix(&self.path, "new");
        write_synced(&new, b"")
            .and_then(|()| fs::remove_file(&new))
            .map_err(|e| failed(&self.path, "write it", e))
    }

    fn parent(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn make_directory(&self) -> Result<(), PrivateFileError> {
        let parent = self.parent();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|e| failed(parent, "create this directory", e))
    }

    fn check_directory(&self) -> Result<(), PrivateFileError> {
        let parent = self.parent();
        let found = fs::metadata(parent).map_err(|e| failed(parent, "look at it", e))?;
        let mode = found.mode();
        let (problem, remedy) = match self.directory {
            DirectoryPolicy::OwnerOnly if mode & OTHERS != 0 => (
                "the directory is open to other users",
                "close it (chmod 700) or choose another place",
            ),
            DirectoryPolicy::OthersMayRead if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 => (
                "other users may write in this directory, and so replace the file",
                "close it (chmod go-w) or choose another place",
            ),
            _ => return Ok(()),
        };
        Err(insecure(parent, problem, remedy))
    }

    fn check_file(&self, found: &fs::Metadata) -> Result<(), PrivateFileError> {
        let (problem, remedy) = if !found.is_file() {
            ("not a plain file", "name another one")
        } else if found.uid() != rustix::process::geteuid().as_raw() {
            (
                "it belongs to another user",
                "run as that user, or name another file",
            )
        } else if found.mode() & OTHERS != 0 {
            (
                "other users may read it",
                "take it back (chmod 600) and consider what is in it as known to them",
            )
        } else {
            return Ok(());
        };
        Err(insecure(&self.path, problem, remedy))
    }
}

impl LockedFile {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Its content now; `None` when there is no such file.
    ///
    /// # Errors
    /// As [`PrivateFile::read`].
    pub fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateFileError> {
        self.file.read()
    }

    /// Puts `content` in its place: whoever reads sees the old content or the new, and
    /// after a crash one of both is there. When this returns, it is on the disk.
    ///
    /// # Errors
    /// When the system refuses; the old content is still there then.
    pub fn replace(&self, content: &[u8]) -> Result<(), PrivateFileError> {
        self.file.replace(content)
    }

    /// Removes it; no error when it is not there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self) -> Result<(), PrivateFileError> {
        self.file.remove()
    }

    /// A second file that this lock guards too. That it can be written is made sure of.
    ///
    /// # Errors
    /// As [`PrivateFile::lock`].
    pub fn sidecar(&self, path: PathBuf) -> Result<SidecarFile<'_>, PrivateFileError> {
        let file = PrivateFile::new(path, self.file.directory);
        file.make_directory()?;
        file.check_directory()?;
        file.check_writable()?;
        Ok(SidecarFile { file, _guard: self })
    }
}

impl SidecarFile<'_> {
    /// Puts `content` in its place, unless it is there already.
    ///
    /// # Errors
    /// As [`LockedFile::replace`].
    pub fn replace_if_changed(&self, content: &[u8]) -> Result<(), PrivateFileError> {
        match self.file.read() {
            Ok(Some(old)) if old.as_slice() == content => Ok(()),
            // One that others may read, or that cannot be read, is replaced as well.
            _ => self.file.replace(content),
        }
    }

    /// Removes it; no error when it is not there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self) -> Result<(), PrivateFileError> {
        self.file.remove()
    }
}

/// Writes a new file with mode 0600; one left behind by a crash is replaced.
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

fn failed(path: &Path, action: &'static str, source: io::Error) -> PrivateFileError {
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
