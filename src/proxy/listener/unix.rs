//! Unix sockets whose permissions are never wider than configured, not even for a moment.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// How long to wait for an existing socket to accept a connection. After that, it counts as in
/// use.
const PROBE: Duration = Duration::from_secs(1);
/// The number of names tried for the private directory.
const ATTEMPTS: u32 = 16;

/// The file of a socket. Removed on drop if it is still the one that was bound here.
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| now.dev() == self.device && now.ino() == self.inode);
        if ours {
            // Nothing depends on it: the next start replaces a stale file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`. The file has exactly `mode` from the moment it appears there, because it
/// is created in a directory that only this user can enter, and renamed once its mode is set.
/// (Changing the umask would affect the whole process.)
///
/// # Errors
/// Returns an error if another process is listening at the path, if the path exists and is not a
/// socket, or if a system call fails. A socket file without a listener is replaced.
pub(super) async fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    ensure_free(path).await?;
    let private = PrivateDir::in_dir(parent(path))?;
    let hidden = private.0.join("s");
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(mode & 0o777))?;
    let metadata = fs::symlink_metadata(&hidden)?;
    fs::rename(&hidden, path)?;
    let file = SocketFile {
        path: path.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    Ok((listener, file))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Checks that a socket could be created at `path`: its folder exists, and nothing but a socket is
/// in its place. Changes nothing.
///
/// # Errors
/// If it could not.
pub fn check_socket_path(path: &Path) -> io::Result<()> {
    let folder = parent(path);
    let about_folder =
        |cause: &dyn std::fmt::Display| io::Error::other(format!("{} {cause}", folder.display()));
    let metadata = fs::metadata(folder)
        .map_err(|e| about_folder(&format_args!("cannot be used for a socket: {e}")))?;
    if !metadata.is_dir() {
        return Err(about_folder(&"is not a folder"));
    }
    existing_socket(path).map(|_| ())
}

/// Whether there is a socket at `path`.
fn existing_socket(path: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path exists and is not a socket; remove it or choose another path",
        ));
    }
    Ok(true)
}

/// Checks that `path` does not exist, or is a socket without a listener.
async fn ensure_free(path: &Path) -> io::Result<()> {
    if !existing_socket(path)? {
        return Ok(());
    }
    match tokio::time::timeout(PROBE, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(e)) if e.kind() == io::ErrorKind::PermissionDenied => Err(e),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process is listening there",
        )),
    }
}

/// A directory with mode 0700, removed on drop.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn in_dir(parent: &Path) -> io::Result<Self> {
        let mut last = io::ErrorKind::AlreadyExists.into();
        for attempt in 0..ATTEMPTS {
            let path = parent.join(format!(".hg{}-{attempt}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // The socket file still exists only after a failure.
        let _ = fs::remove_file(self.0.join("s"));
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_gets_the_configured_mode_and_is_removed_on_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.sock");
        let (listener, file) = bind(&path, 0o600).await.unwrap();
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        client.unwrap();
        accepted.unwrap();
        drop((listener, file));
        assert!(!path.exists());
        let (_listener, _file) = bind(&path, 0o660).await.unwrap();
        assert_eq!(mode_of(&path), 0o660);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (_listener, _file) = bind(&path, 0o600).await.unwrap();
        let second = bind(&path, 0o600).await.map(drop).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(mode_of(&path), 0o600);
    }

    #[tokio::test]
    async fn a_regular_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "data").unwrap();
        let refused = bind(&path, 0o600).await.map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[tokio::test]
    async fn dropping_a_listener_does_not_remove_a_newer_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.sock");
        let (listener, file) = bind(&path, 0o600).await.unwrap();
        fs::remove_file(&path).unwrap();
        let (_successor, _its_file) = bind(&path, 0o600).await.unwrap();
        drop((listener, file));
        assert!(path.exists());
    }
}
