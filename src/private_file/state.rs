//! A versioned JSON document in a private file: read strictly, written atomically. Errors
//! point to a line and column and never quote the contents, which may contain secrets.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{LockedFile, PrivateFile, PrivateFileError};

/// A JSON object with a `version` member, stored in a private file. Implementations should
/// deny unknown fields.
pub trait PersistentState: Serialize + DeserializeOwned {
    /// The only version that this build reads and writes.
    const VERSION: u32;
    /// What the file is, for error messages: "state file of `hawkgate register`".
    const DESCRIPTION: &'static str;
    /// What to do about a malformed file, as an imperative clause.
    const REMEDY: &'static str;

    /// Reads and parses `file`; `None` if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be read safely, is malformed, or has another version.
    fn load(file: &PrivateFile) -> Result<Option<Self>, StateError> {
        let Some(content) = file.read()? else {
            return Ok(None);
        };
        Self::parse(&content, &file.path().display().to_string()).map(Some)
    }

    /// Parses the contents of the file at `path`, which is only named in errors.
    ///
    /// # Errors
    /// When the contents are malformed or have another version.
    fn parse(content: &[u8], path: &str) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        // Checked first, because another version may have other members.
        if let Ok(Versioned { version }) = serde_json::from_slice(content)
            && version != u64::from(Self::VERSION)
        {
            return Err(StateError::Version {
                path: path.to_owned(),
                version,
                supported: Self::VERSION,
            });
        }
        // serde's own message may quote the contents.
        serde_json::from_slice(content).map_err(|e| StateError::Malformed {
            path: path.to_owned(),
            description: Self::DESCRIPTION,
            line: e.line(),
            column: e.column(),
            remedy: Self::REMEDY,
        })
    }

    /// Replaces the contents of `file`; they are on disk when this returns.
    ///
    /// # Errors
    /// When a system call fails; the old contents are then still in place.
    fn save(&self, file: &LockedFile) -> Result<(), StateError> {
        let json = serde_json::to_vec_pretty(self).map_err(|_| StateError::Serialize {
            description: Self::DESCRIPTION,
        })?;
        Ok(file.replace(&Zeroizing::new(json))?)
    }
}

/// Why a state file could not be used. The messages never quote its contents.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The contents are not JSON, or not the expected document.
    #[error("{path}: not a {description} (line {line}, column {column}); {remedy}")]
    Malformed {
        /// The file.
        path: String,
        /// [`PersistentState::DESCRIPTION`].
        description: &'static str,
        /// The line where parsing stopped, counted from 1.
        line: usize,
        /// The column where parsing stopped, counted from 1.
        column: usize,
        /// [`PersistentState::REMEDY`].
        remedy: &'static str,
    },
    /// The file has another version, presumably a later one.
    #[error(
        "{path}: written by a newer hawkgate (version {version}; this one supports {supported}); \
         use the newer one"
    )]
    Version {
        /// The file.
        path: String,
        /// The version in the file.
        version: u64,
        /// [`PersistentState::VERSION`].
        supported: u32,
    },
    /// The state has no JSON representation.
    #[error("cannot serialise the {description}")]
    Serialize {
        /// [`PersistentState::DESCRIPTION`].
        description: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file::DirectoryPolicy;
    use crate::private_file::serde_secret;
    use crate::secret::SecretString;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        version: u32,
        name: String,
        #[serde(with = "serde_secret")]
        secret: SecretString,
    }

    impl PersistentState for Example {
        const VERSION: u32 = 1;
        const DESCRIPTION: &'static str = "test file";
        const REMEDY: &'static str = "write it again";
    }

    fn example() -> Example {
        Example {
            version: 1,
            name: "n".into(),
            secret: "hunter2".into(),
        }
    }

    #[test]
    fn a_saved_state_is_loaded_again_and_its_debug_output_hides_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let file = PrivateFile::new(path, DirectoryPolicy::OthersMayRead);
        assert!(Example::load(&file).unwrap().is_none());
        example().save(&file.lock(|| ()).unwrap()).unwrap();
        let loaded = Example::load(&file).unwrap().unwrap();
        assert_eq!(loaded, example());
        assert!(!format!("{loaded:?}").contains("hunter2"));
    }

    #[test]
    fn a_malformed_state_is_reported_by_line_and_column_without_its_contents() {
        let whole = serde_json::to_string(&example()).unwrap();
        for malformed in [
            "",
            "{}",
            "[]",
            &whole[..whole.len() / 2],
            &whole.replace("\"name\"", "\"nmae\""),
            &whole.replace("\"n\"", "[\"hunter2\"]"),
        ] {
            let error = Example::parse(malformed.as_bytes(), "f").unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("f: not a test file (line "), "{text}");
            assert!(text.ends_with("write it again"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn another_version_is_reported_even_if_its_members_differ() {
        let newer = br#"{"version": 7, "unknown": true}"#;
        let error = Example::parse(newer, "f").unwrap_err();
        assert!(matches!(error, StateError::Version { version: 7, .. }));
        assert!(error.to_string().contains("newer"), "{error}");
    }
}
