//! A workload's own token: kept in a file by somebody else (a kubelet, say), who replaces
//! it from time to time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{BearerToken, TokenError};
use crate::secret::{SecretError, SecretRef};

/// The token that stands in when a caller sends none. Read in the background; requests
/// take what was read last.
#[derive(Debug)]
pub struct WorkloadToken {
    file: PathBuf,
    current: ArcSwapOption<BearerToken>,
}

/// Why the file gives no token. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadTokenError {
    /// It cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What it holds is no bearer token.
    #[error("{file} holds no bearer token: {cause}")]
    Token {
        /// The file as configured.
        file: PathBuf,
        /// What is wrong.
        cause: TokenError,
    },
}

impl WorkloadToken {
    /// Kept in `file`; nothing is read yet.
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            current: ArcSwapOption::empty(),
        }
    }

    /// The file, for messages.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What was read last. A token that has expired meanwhile is refused by its issuer's
    /// rules like any other.
    pub fn current(&self) -> Option<BearerToken> {
        self.current.load().as_deref().cloned()
    }

    /// Reads the file; blocks. While it cannot be read, what was read last stays: writers
    /// replace files in more than one way, and an old token fails by itself.
    ///
    /// # Errors
    /// When the file gives no token.
    pub fn refresh(&self) -> Result<(), WorkloadTokenError> {
        let secret = SecretRef::File(self.file.clone()).read()?;
        let token =
            BearerToken::new(secret.expose()).map_err(|cause| WorkloadTokenError::Token {
                file: self.file.clone(),
                cause,
            })?;
        self.current.store(Some(Arc::new(token)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_anew_and_a_gap_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let token = WorkloadToken::new(file.clone());
        assert!(token.refresh().is_err());
        assert!(token.current().is_none());
        std::fs::write(&file, "first.token.here\n").unwrap();
        token.refresh().unwrap();
        assert_eq!(token.current().unwrap().expose(), "first.token.here");
        std::fs::remove_file(&file).unwrap();
        assert!(token.refresh().is_err());
        assert_eq!(token.current().unwrap().expose(), "first.token.here");
        std::fs::write(&file, "second.token.here").unwrap();
        token.refresh().unwrap();
        assert_eq!(token.current().unwrap().expose(), "second.token.here");
    }

    #[test]
    fn what_is_no_token_is_said_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "not a token").unwrap();
        let error = WorkloadToken::new(file).refresh().unwrap_err().to_string();
        assert!(error.contains("holds no bearer token"), "{error}");
        assert!(!error.contains("not a token"), "{error}");
    }
}
