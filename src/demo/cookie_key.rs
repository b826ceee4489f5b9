//! The key that encrypts the cookies of this run, in a file that exists only while hawkgate starts.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::DemoError;
use super::random::{random, random_bytes};

/// The name of the file in the demo's configuration.
const FILE: &str = "cookie.key";

/// A directory of its own that only this user can open, with the key in it. Removed when dropped.
pub(super) struct CookieKey {
    directory: PathBuf,
}

impl CookieKey {
    /// Writes a new key.
    pub(super) fn create() -> Result<Self, DemoError> {
        let parents = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
        Self::create_below(&parents)
    }

    /// Writes a new key below the first of `parents` in which that is possible: a container may have
    /// no temporary directory.
    fn create_below(parents: &[PathBuf]) -> Result<Self, DemoError> {
        let name = format!("hawkgate-demo-{}", random()?);
        let key = BASE64.encode(random_bytes::<32>()?);
        let mut failures = Vec::new();
        for parent in parents {
            let directory = parent.join(&name);
            match write(&directory, &key) {
                Ok(()) => return Ok(Self { directory }),
                Err(error) => failures.push(format!("{}: {error}", parent.display())),
            }
            remove(&directory);
        }
        let failures = failures.join("; ");
        let text = format!("cannot write the key for cookies ({failures}); set TMPDIR");
        Err(DemoError::Start(text))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for CookieKey {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn write(directory: &Path, key: &str) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(directory)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600);
    file.open(directory.join(FILE))?.write_all(key.as_bytes())
}

/// Removes what [`write`] has left. Nothing depends on it, so failures are ignored.
fn remove(directory: &Path) {
    let _ = fs::remove_file(directory.join(FILE));
    let _ = fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_key_is_private_and_removed() {
        let parent = TempDir::new().unwrap();
        let missing = parent.path().join("missing");
        let parents = [missing.clone(), parent.path().to_owned()];
        let key = CookieKey::create_below(&parents).unwrap();
        let (directory, file) = (key.directory().to_owned(), key.directory().join(FILE));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(BASE64.decode(text).unwrap().len(), 32);
        drop(key);
        assert!(!directory.exists());
        let Err(error) = CookieKey::create_below(&[missing]) else {
            panic!("written below a directory that does not exist");
        };
        assert!(error.to_string().contains("TMPDIR"), "{error}");
    }
}
