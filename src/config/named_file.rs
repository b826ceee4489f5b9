//! Files that a configuration names.

use std::path::PathBuf;

/// A file that a configuration names: a secret, keys, a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The table that names it: `[server]`, `source "login"`.
    pub table: String,
    /// The key's path inside the table: `access_token.file`.
    pub key: String,
    /// As the process can open it.
    pub path: PathBuf,
}
