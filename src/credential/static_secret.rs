//! The source `static`: one configured secret for every caller, such as the key of an API
//! (`docs/guides/any-api.md`).

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::local::{self, UnusableCredentials};
use super::{Credential, CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};
use crate::secret::{SecretRef, SecretString};

/// The longest secret, in bytes. Most servers accept no longer header field.
const MAX_BYTES: usize = 8 * 1024;

/// What the secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretUse {
    /// A token or key, sent as [`super::Inject`] says.
    Token,
    /// The password of this user, sent as Basic credentials (RFC 7617).
    Password {
        /// The user-id; it contains no colon.
        username: String,
    },
    /// The username of Basic credentials whose password is empty.
    Username,
}

/// The settings of a `static` source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticSecretSettings {
    /// The secret, read again for each fetch, so that a rotated file is picked up after a 401.
    pub secret: SecretRef,
    /// What it is.
    pub used_as: SecretUse,
}

impl StaticSecretSettings {
    /// Reads the secret and prepares it for sending, as each fetch does later. Blocks.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn check(&self) -> Result<(), UnusableCredentials> {
        let unusable =
            |problem: &dyn std::fmt::Display| UnusableCredentials::new("secret", problem);
        let secret = self.secret.read().map_err(|error| unusable(&error))?;
        let prepared = self.credential(secret);
        prepared.map(|_| ()).map_err(|problem| unusable(&problem))
    }

    /// The credential that consists of `secret`.
    ///
    /// # Errors
    /// What is wrong with the secret.
    fn credential(&self, secret: SecretString) -> Result<Credential, &'static str> {
        if secret.expose().len() > MAX_BYTES {
            return Err("is longer than 8 KiB, which servers do not accept in a header");
        }
        // RFC 7617 §2 for passwords; in other headers, a line break would begin another header.
        if secret.expose().chars().any(char::is_control) {
            return Err("contains a line break, a tab or another control character");
        }
        match &self.used_as {
            SecretUse::Token => {
                check_token(secret.expose())?;
                Ok(Credential::Bearer(secret))
            }
            SecretUse::Password { username } => Ok(basic(username, secret)),
            SecretUse::Username if secret.expose().contains(':') => {
                Err("contains a colon, which ends the username (RFC 7617)")
            }
            SecretUse::Username => {
                let encoded = encode(secret.expose(), "");
                Ok(Credential::Basic { encoded, secret })
            }
        }
    }
}

/// Requires what recipients do not change: they strip spaces at either end (RFC 9110 §5.5) and
/// disagree about the encoding of anything but ASCII.
fn check_token(token: &str) -> Result<(), &'static str> {
    if !token.is_ascii() {
        Err("contains characters other than ASCII, which no header can carry reliably")
    } else if token.trim() != token {
        Err("begins or ends with a space")
    } else {
        Ok(())
    }
}

fn basic(username: &str, secret: SecretString) -> Credential {
    let encoded = encode(username, secret.expose());
    Credential::Basic { encoded, secret }
}

/// `user-pass` in base64 (RFC 7617 §2), with the charset UTF-8.
fn encode(username: &str, password: &str) -> SecretString {
    let pair = SecretString::new(format!("{username}:{password}"));
    SecretString::new(STANDARD.encode(pair.expose()))
}

/// Issues the configured secret to every caller.
#[derive(Debug)]
pub struct StaticSecretSource(StaticSecretSettings);

impl StaticSecretSource {
    /// A source with these settings.
    pub fn new(settings: StaticSecretSettings) -> Self {
        Self(settings)
    }
}

#[async_trait]
impl CredentialSource for StaticSecretSource {
    fn takes_token(&self) -> bool {
        false
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_fixed(&self) -> bool {
        true
    }

    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        if request.scopes.is_some() {
            let cause = "rules narrow the scopes, but a fixed secret cannot be narrowed";
            return Err(FetchError::NotEntitled(cause.into()));
        }
        let secret = local::read(&self.0.secret).await?;
        let credential = self.0.credential(secret);
        let credential = credential
            .map_err(|problem| FetchError::BadAnswer(format!("the configured secret {problem}")))?;
        Ok(Issued {
            credential,
            expires_at: None,
            original: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Caller;

    fn settings(content: &str, used_as: SecretUse) -> (tempfile::TempDir, StaticSecretSettings) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        let secret = SecretRef::File(path);
        (dir, StaticSecretSettings { secret, used_as })
    }

    fn password(username: &str) -> SecretUse {
        SecretUse::Password {
            username: username.into(),
        }
    }

    fn request(scopes: Option<&[&str]>) -> SwapRequest {
        SwapRequest {
            caller: Caller::Anonymous,
            bearer: None,
            scopes: scopes.map(|scopes| scopes.iter().map(|s| (*s).to_owned()).collect()),
            clock_offset: 0,
        }
    }

    async fn fetched(content: &str, used_as: SecretUse) -> Result<String, FetchError> {
        let (_dir, settings) = settings(content, used_as);
        let issued = StaticSecretSource::new(settings)
            .fetch(&request(None))
            .await?;
        Ok(match issued.credential {
            Credential::Bearer(token) => token.expose().to_owned(),
            Credential::Basic { encoded, .. } => encoded.expose().to_owned(),
            Credential::Taskcluster { .. } => unreachable!(),
        })
    }

    #[tokio::test]
    async fn the_secret_is_sent_as_configured_without_its_final_newline() {
        for (content, used_as, expected) in [
            ("k-1\n", SecretUse::Token, "k-1"),
            ("a b\r\n", SecretUse::Token, "a b"),
            // The example of RFC 7617 §2.
            (
                "open sesame",
                password("Aladdin"),
                "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            // The example of RFC 7617 §2.1.
            ("123\u{a3}", password("test"), "dGVzdDoxMjPCow=="),
            ("a:b", password("u"), "dTphOmI="),
            ("sk_test", SecretUse::Username, "c2tfdGVzdDo="),
        ] {
            assert_eq!(fetched(content, used_as).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_sent_is_refused_without_being_quoted() {
        for (content, used_as, problem) in [
            ("hun\nter2", SecretUse::Token, "line break"),
            ("hun\tter2", password("u"), "line break"),
            ("hun\u{85}ter2", password("u"), "control character"),
            ("h\u{fc}nter2", SecretUse::Token, "other than ASCII"),
            (" hunter2", SecretUse::Token, "a space"),
            ("hunter2 \n", SecretUse::Token, "a space"),
            ("hun:ter2", SecretUse::Username, "a colon"),
            (&"x".repeat(MAX_BYTES + 1), SecretUse::Token, "8 KiB"),
        ] {
            let error = fetched(content, used_as.clone()).await.unwrap_err();
            let (_dir, settings) = settings(content, used_as);
            for text in [
                error.to_string(),
                settings.check().unwrap_err().to_string(),
                format!("{settings:?}"),
            ] {
                assert!(!text.contains("ter2"), "{text}");
            }
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[tokio::test]
    async fn scopes_of_rules_cannot_be_applied() {
        let (_dir, settings) = settings("k", SecretUse::Token);
        let source = StaticSecretSource::new(settings);
        let error = source.fetch(&request(Some(&["read"]))).await.unwrap_err();
        assert!(matches!(error, FetchError::NotEntitled(_)), "{error}");
    }
}
