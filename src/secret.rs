//! Secrets: redacted in `Debug`, zeroized on drop, and read from a file or the environment,
//! never from the configuration itself.

mod symmetric_key;

pub use symmetric_key::{KEY_BYTES, decode_key, is_same_key, key_problem};

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::bounded_file::{self, FileError};

/// The largest secret file that is accepted, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A secret string: no `Display`, no `Serialize`, redacted `Debug`, zeroized on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes ownership of the text, so that no copy remains with the caller.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret text. Review every use of this method.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<&str> for SecretString {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned())
    }
}

/// Where a secret is stored. It is read again at each use, off the hot path, so that a rotated
/// file takes effect without a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// A file whose content, without trailing newlines, is the secret.
    File(PathBuf),
    /// An environment variable of this process.
    Env(String),
}

/// Why a secret could not be read. Names its location, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("secret file {path} {source}")]
    File {
        /// The file as configured.
        path: PathBuf,
        /// What is wrong with it.
        source: FileError,
    },
    /// The file's content is not a valid secret.
    #[error("secret file {path} {problem}")]
    Content {
        /// The file as configured.
        path: PathBuf,
        /// "is empty", "is not UTF-8" or "contains a NUL character".
        problem: &'static str,
    },
    /// The environment variable is missing, empty or not UTF-8.
    #[error("environment variable {0} is not set, is empty or is not UTF-8")]
    Env(String),
}

impl SecretRef {
    /// Reads the secret. Trailing `\r` and `\n` are removed.
    ///
    /// # Errors
    /// If it is missing, empty, larger than [`MAX_SECRET_BYTES`], not a regular file, or not UTF-8 text.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::File(path) => secret_in(path, bounded_file::read(path, MAX_SECRET_BYTES)),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) if !text.is_empty() => Ok(SecretString::new(text)),
                _ => Err(SecretError::Env(name.clone())),
            },
        }
    }
}

impl SecretString {
    /// Reads a secret from a file or pipe that is named on the command line and read once. Trailing
    /// `\r` and `\n` are removed.
    ///
    /// # Errors
    /// As for [`SecretRef::read`], except that the file need not be a regular one.
    pub fn read_once(path: &Path) -> Result<Self, SecretError> {
        secret_in(path, bounded_file::read_once(path, MAX_SECRET_BYTES))
    }
}

/// The secret in the content of the file at `path`.
fn secret_in(
    path: &Path,
    content: Result<Zeroizing<Vec<u8>>, FileError>,
) -> Result<SecretString, SecretError> {
    let unusable = |problem| SecretError::Content {
        path: path.to_owned(),
        problem,
    };
    let bytes = content.map_err(|source| SecretError::File {
        path: path.to_owned(),
        source,
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable("is not UTF-8"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(unusable("is empty"));
    }
    if text.contains('\0') {
        return Err(unusable("contains a NUL character"));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_is_redacted() {
        let secret = SecretString::from("hunter2");
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "[redacted] Some([redacted])"
        );
    }

    #[test]
    fn a_file_is_read_without_its_final_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "abc\r\n").unwrap();
        assert_eq!(
            SecretRef::File(path.clone()).read().unwrap().expose(),
            "abc"
        );
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(
            SecretRef::File(path.clone()).read(),
            Err(SecretError::Content {
                problem: "is empty",
                ..
            })
        ));
        std::fs::write(&path, vec![b'x'; 64 * 1024 + 1]).unwrap();
        assert!(
            SecretRef::File(path)
                .read()
                .unwrap_err()
                .to_string()
                .contains("64 KiB")
        );
        assert!(SecretRef::File("/dev/null".into()).read().is_err());
        assert!(matches!(
            SecretString::read_once(Path::new("/dev/null")),
            Err(SecretError::Content {
                problem: "is empty",
                ..
            })
        ));
        assert!(SecretRef::Env("HAWKGATE_NO_SUCH".into()).read().is_err());
    }
}
