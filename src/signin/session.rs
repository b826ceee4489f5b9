//! The token file of `hawkgate login`: the tokens, and everything needed to refresh them.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::UnixMillis;
use crate::private_file::state::{PersistentState, StateError};
use crate::private_file::{PrivateFile, serde_secret};
use crate::registration::AuthMethod;
use crate::secret::SecretString;
use crate::serde_url;

/// A signed-in user's session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    version: u32,
    /// The issuer's exact identifier.
    pub issuer: String,
    /// The OAuth client that the user signed in with.
    pub client: SessionClient,
    /// `sub` of the verified ID token; `None` if the request had no `openid` scope.
    pub subject: Option<String>,
    /// The token endpoint.
    #[serde(with = "serde_url")]
    pub token_endpoint: Url,
    /// The revocation endpoint (RFC 7009), if the issuer has one.
    #[serde(default, with = "serde_url::option")]
    pub revocation_endpoint: Option<Url>,
    /// The `resource` parameters requested (RFC 8707), sent again with every refresh.
    #[serde(default)]
    pub resources: Vec<String>,
    /// A PEM file with the only CAs trusted for the issuer; the system's when `None`.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The tokens.
    pub tokens: Tokens,
}

/// The OAuth client that the user signed in with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClient {
    /// The client identifier.
    pub id: String,
    /// How the client authenticates at the token endpoint.
    pub auth_method: AuthMethod,
    /// The file with its secret or its private key.
    pub secret_file: Option<PathBuf>,
}

/// The tokens of a token response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The access token.
    #[serde(with = "serde_secret")]
    pub access_token: SecretString,
    /// When the access token expires, in milliseconds since the epoch, if the issuer said.
    pub expires_at: Option<i64>,
    /// The refresh token, if the issuer gave one.
    #[serde(default, with = "serde_secret::option")]
    pub refresh_token: Option<SecretString>,
    /// The scopes granted, separated by spaces, if the issuer said.
    pub scope: Option<String>,
}

/// Why the session could not be read. The messages never quote the contents of the token file.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The token file could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no token file.
    #[error("not signed in: {0} does not exist; run `hawkgate login`")]
    NotSignedIn(String),
}

impl PersistentState for Session {
    const VERSION: u32 = 1;
    const DESCRIPTION: &'static str = "token file of `hawkgate login`";
    const REMEDY: &'static str = "sign in again, or choose another --token-file";
}

impl Session {
    /// A session for a user who has just signed in.
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
            version: Self::VERSION,
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

    /// Reads the session in `file`.
    ///
    /// # Errors
    /// When there is no such file, or it cannot be used.
    pub fn read(file: &PrivateFile) -> Result<Self, SessionError> {
        let session = Self::load(file)?;
        session.ok_or_else(|| SessionError::NotSignedIn(file.path().display().to_string()))
    }

    /// The same session with its access token marked as expired, so that it is refreshed
    /// before use.
    #[must_use]
    pub fn requiring_refresh(mut self) -> Self {
        self.tokens.expires_at = Some(0);
        self
    }

    /// The same session with the tokens of a refresh response. After a response without a
    /// refresh token, the old one stays valid (RFC 6749 §6).
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
    /// Whether the access token is valid for at least another `at_least`. A token without a
    /// known expiry counts as valid.
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
    fn a_saved_session_is_read_again_and_its_debug_output_hides_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hawkgate/tokens.json");
        let file = PrivateFile::new(path, DirectoryPolicy::OwnerOnly);
        let error = Session::read(&file).unwrap_err().to_string();
        assert!(error.contains("hawkgate login"), "{error}");
        session().save(&file.lock(|| ()).unwrap()).unwrap();
        let read = Session::read(&file).unwrap();
        assert_eq!(read, session());
        assert!(!format!("{read:?}").contains("token-1"));
    }

    #[test]
    fn a_malformed_token_file_is_reported_without_tokens() {
        let whole = serde_json::to_string(&session()).unwrap();
        let malformed = whole.replace("\"c\"", "[\"refresh-token-1\"]");
        let error = Session::parse(malformed.as_bytes(), "f").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sign in again"), "{text}");
        assert!(!text.contains("refresh-token-1"), "{text}");
    }

    #[test]
    fn a_refresh_token_is_kept_unless_the_response_rotates_it() {
        let unrotated = session().refreshed(tokens("access-token-2", None));
        assert_eq!(
            unrotated.tokens.refresh_token.unwrap().expose(),
            "refresh-token-1"
        );
        let rotated = session().refreshed(tokens("access-token-2", Some("refresh-token-2")));
        assert_eq!(
            rotated.tokens.refresh_token.unwrap().expose(),
            "refresh-token-2"
        );
    }

    #[test]
    fn an_access_token_is_valid_until_it_expires() {
        let minute = Duration::from_mins(1);
        let mut tokens = tokens("a", None);
        assert!(tokens.valid_for(minute, UnixMillis(39_999)));
        assert!(!tokens.valid_for(minute, UnixMillis(40_000)));
        tokens.expires_at = None;
        assert!(tokens.valid_for(minute, UnixMillis(i64::MAX)));
    }
}
