//! What is kept of a sign-in: the tokens and all that refreshing them takes. Versioned JSON
//! in a file that only its owner may read.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::clock::UnixMillis;
use crate::private_file::{LockedFile, PrivateFile, PrivateFileError, serde_secret};
use crate::registration::AuthMethod;
use crate::secret::SecretString;
use crate::serde_url;

/// The only version there is.
const VERSION: u32 = 1;

/// A sign-in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    version: u32,
    /// The issuer's exact identifier.
    pub issuer: String,
    /// With what client.
    pub client: SessionClient,
    /// Who signed in, by the verified ID token; `None` where none was asked for.
    pub subject: Option<String>,
    /// Where the tokens come from.
    #[serde(with = "serde_url")]
    pub token_endpoint: Url,
    /// Where they are revoked, if anywhere.
    #[serde(default, with = "serde_url::option")]
    pub revocation_endpoint: Option<Url>,
    /// The APIs that were asked for (RFC 8707), asked for again when refreshing.
    #[serde(default)]
    pub resources: Vec<String>,
    /// The only CAs that the issuer is trusted by, if not the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The tokens.
    pub tokens: Tokens,
}

/// The client that signed the person in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClient {
    /// Its identifier.
    pub id: String,
    /// How it proves itself.
    pub auth_method: AuthMethod,
    /// The file with its secret or its private key.
    pub secret_file: Option<PathBuf>,
}

/// What a token endpoint gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The access token.
    #[serde(with = "serde_secret")]
    pub access_token: SecretString,
    /// When it ends, milliseconds since the epoch, if the issuer said.
    pub expires_at: Option<i64>,
    /// For the next one.
    #[serde(default, with = "serde_secret::option")]
    pub refresh_token: Option<SecretString>,
    /// What it was granted for.
    pub scope: Option<String>,
}

/// Why a session cannot be used. Never holds any of its content.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// There is none.
    #[error("nobody is signed in ({0} is not there); run `hawkgate login`")]
    None(String),
    /// Not JSON, or not ours.
    #[error(
        "{path}: not a token file of `hawkgate login` ({place}); sign in again, or name another --token-file"
    )]
    Broken {
        /// The file.
        path: String,
        /// Where in it.
        place: String,
    },
    /// From the future.
    #[error(
        "{path}: written by a newer hawkgate (version {version}, this one reads {VERSION}); use that one"
    )]
    Version {
        /// The file.
        path: String,
        /// What it says.
        version: u64,
    },
    /// Cannot be written as JSON.
    #[error("the session cannot be written as JSON")]
    Unwritable,
}

impl Session {
    /// Of a person who has just signed in.
    pub fn new(
        issuer: &str,
        client: SessionClient,
        subject: Option<String>,
        token_endpoint: Url,
        revocation_endpoint: Option<Url>,
        resources: Vec<String>,
        tokens: Tokens,
    ) -> Self {
        Self {
            version: VERSION,
            issuer: issuer.to_owned(),
            client,
            subject,
            token_endpoint,
            revocation_endpoint,
            resources,
            ca_file: None,
            tokens,
        }
    }

    /// Reads `file`.
    ///
    /// # Errors
    /// When there is none, it cannot be read safely, or is not one of ours.
    pub fn read(file: &PrivateFile) -> Result<Self, SessionError> {
        let path = file.path().display().to_string();
        match file.read()? {
            Some(content) => Self::parse(&content, path),
            None => Err(SessionError::None(path)),
        }
    }

    fn parse(content: &[u8], path: String) -> Result<Self, SessionError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        if let Ok(Versioned { version }) = serde_json::from_slice(content)
            && version != u64::from(VERSION)
        {
            return Err(SessionError::Version { path, version });
        }
        // serde's own message may repeat what it found.
        serde_json::from_slice(content).map_err(|e| SessionError::Broken {
            path,
            place: format!("line {}, column {}", e.line(), e.column()),
        })
    }

    /// Writes it through to the disk.
    ///
    /// # Errors
    /// When the system refuses; what was there before is still there then.
    pub fn save(&self, file: &LockedFile) -> Result<(), SessionError> {
        let json = serde_json::to_vec_pretty(self).map_err(|_| SessionError::Unwritable)?;
        Ok(file.replace(&Zeroizing::new(json))?)
    }

    /// The same, but nobody is to use the access token: it is renewed first.
    #[must_use]
    pub fn requiring_refresh(mut self) -> Self {
        self.tokens.expires_at = Some(0);
        self
    }

    /// The same with the tokens that a refresh gave; where it gave no refresh token, the
    /// old one stays in force (RFC 6749 §6).
    #[must_use]
    pub fn refreshed(mut self, new: Tokens) -> Self {
        let old = std::mem::replace(&mut self.tokens, new);
        let tokens = &mut self.tokens;
        tokens.refresh_token = tokens.refresh_token.take().or(old.refresh_token);
        tokens.scope = tokens.scope.take().or(old.scope);
        self
    }
}

impl Tokens {
    /// Whether the access token is good for `at_least` longer. Where the issuer does not
    /// say how long it lives, it is taken as good.
    pub fn valid_for(&self, at_least: Duration, now: UnixMillis) -> bool {
        self.expires_at
            .is_none_or(|end| now.plus(at_least) < UnixMillis(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file::DirectoryPolicy;

    fn tokens(access: &str, refresh: Option<&str>) -> Tokens {
        Tokens {
            access_token: access.into(),
            expires_at: Some(100_000),
            refresh_token: refresh.map(SecretString::from),
            scope: Some("openid".into()),
        }
    }

    fn session() -> Session {
        let client = SessionClient {
            id: "c".into(),
            auth_method: AuthMethod::None,
            secret_file: None,
        };
        let endpoint = "https://a.example/token".parse().unwrap();
        let tokens = tokens("access-token-1", Some("refresh-token-1"));
        Session::new(
            "https://a.example",
            client,
            None,
            endpoint,
            None,
            vec![],
            tokens,
        )
    }

    #[test]
    fn a_session_outlives_the_process_and_shows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = PrivateFile::new(
            dir.path().join("hawkgate/tokens.json"),
            DirectoryPolicy::OwnerOnly,
        );
        let said = Session::read(&file).unwrap_err().to_string();
        assert!(said.contains("hawkgate login"), "{said}");
        session().save(&file.lock(|| ()).unwrap()).unwrap();
        let read = Session::read(&file).unwrap();
        assert_eq!(read, session());
        assert!(!format!("{read:?}").contains("token-1"));
    }

    #[test]
    fn a_broken_file_is_told_without_what_is_in_it() {
        let whole = serde_json::to_string(&session()).unwrap();
        for broken in [
            "",
            "[]",
            &whole[..100],
            &whole.replace("\"c\"", "[\"refresh-token-1\"]"),
        ] {
            let said = Session::parse(broken.as_bytes(), "f".into())
                .unwrap_err()
                .to_string();
            assert!(said.contains("f: ") && said.contains("line "), "{said}");
            assert!(!said.contains("refresh-token-1"));
        }
        let newer = whole.replace("\"version\":1", "\"version\":7");
        let said = Session::parse(newer.as_bytes(), "f".into())
            .unwrap_err()
            .to_string();
        assert!(said.contains("newer"), "{said}");
    }

    #[test]
    fn a_refresh_token_stays_unless_it_is_rotated() {
        let kept = session().refreshed(tokens("access-token-2", None));
        assert_eq!(
            kept.tokens.refresh_token.unwrap().expose(),
            "refresh-token-1"
        );
        let rotated = session().refreshed(tokens("access-token-2", Some("refresh-token-2")));
        assert_eq!(
            rotated.tokens.refresh_token.unwrap().expose(),
            "refresh-token-2"
        );
    }

    #[test]
    fn a_token_lasts_until_its_end() {
        let minute = Duration::from_mins(1);
        let mut tokens = tokens("a", None);
        assert!(tokens.valid_for(minute, UnixMillis(39_999)));
        assert!(!tokens.valid_for(minute, UnixMillis(40_000)));
        tokens.expires_at = None;
        assert!(tokens.valid_for(minute, UnixMillis(i64::MAX)));
    }
}
