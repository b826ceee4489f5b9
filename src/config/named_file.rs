//! Files that a configuration references.

use std::path::PathBuf;

/// A file that a configuration references: a secret, a key set or a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The table that references it: `[server]`, `source "login"`.
    pub table: String,
    /// The key's path inside the table: `access_token.file`.
    pub key: String,
    /// The path that the process opens.
    pub path: PathBuf,
}
