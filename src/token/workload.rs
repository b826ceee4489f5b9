//! A workload's own token, in a file that another process, such as a kubelet, replaces from time to
//! time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{BearerToken, TokenError};
use crate::secret::{SecretError, SecretRef};

/// The token used for callers that send none. The file is read in the background; requests use the
/// token that was read last.
#[derive(Debug)]
pub struct WorkloadToken {
    file: PathBuf,
    current: ArcSwapOption<BearerToken>,
}

/// Why no token could be read. Messages name the file but never quote its content.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadTokenError {
    /// The file cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The file does not contain a bearer token.
    #[error("{file} does not contain a bearer token: {cause}")]
    Token {
        /// The file as configured.
        file: PathBuf,
        /// What is wrong with it.
        cause: TokenError,
    },
}

impl WorkloadToken {
    /// A token in `file`, which has not been read yet.
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            current: ArcSwapOption::empty(),
        }
    }

    /// The file that contains the token.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The token that was read last. If it has expired in the meantime, it is refused like any
    /// other expired token.
    pub fn current(&self) -> Option<BearerToken> {
        self.current.load().as_deref().cloned()
    }

    /// Reads the file; blocks. If this fails, the last token stays current: some tools do not
    /// replace files atomically, and an old token expires anyway.
    ///
    /// # Errors
    /// If the file cannot be read or does not contain a token.
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
    fn a_refresh_reads_the_new_token_and_a_missing_file_keeps_the_old_one() {
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
    fn an_invalid_token_is_reported_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "not a token").unwrap();
        let error = WorkloadToken::new(file).refresh().unwrap_err().to_string();
        assert!(error.contains("does not contain a bearer token"), "{error}");
        assert!(!error.contains("not a token"), "{error}");
    }
}
