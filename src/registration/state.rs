//! What the state file remembers: which client we are, the keys to managing it, and what
//! was begun and perhaps never ended. Versioned JSON.

use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::metadata::{AuthMethod, ClientMetadata};
use crate::clock::UnixMillis;
use crate::private_file::{LockedFile, PrivateFile, PrivateFileError, serde_secret};
use crate::secret::SecretString;
use crate::serde_url;

/// The only version there is.
const VERSION: u32 = 1;

/// The content of a state file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationState {
    version: u32,
    /// The issuer's exact identifier.
    pub issuer: String,
    /// Begun, and not known to have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// Who we are at the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
}

/// Written before the issuer is asked to change anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// What was begun.
    pub action: Action,
    /// At which issuer.
    pub issuer: String,
    /// When, RFC 3339.
    pub begun_at: String,
    /// What was asked for; of a deletion, what is deleted.
    pub metadata: ClientMetadata,
}

/// What can be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// RFC 7591 §3.1.
    Register,
    /// RFC 7592 §2.2.
    Update,
    /// RFC 7592 §2.3.
    Delete,
}

/// A client that the issuer has made (RFC 7591 §3.2.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Its identifier.
    pub client_id: String,
    /// Its secret, if it has one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serde_secret::option"
    )]
    pub client_secret: Option<SecretString>,
    /// When the secret ends, seconds since the epoch; 0: never.
    #[serde(default)]
    pub client_secret_expires_at: u64,
    /// Opens the way to manage it, if the issuer offers one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serde_secret::option"
    )]
    pub registration_access_token: Option<SecretString>,
    /// Where it is managed.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serde_url::option"
    )]
    pub registration_client_uri: Option<Url>,
    /// How it proves itself at the token endpoint.
    pub auth_method: AuthMethod,
    /// What was asked for when it was made or last changed.
    pub metadata: ClientMetadata,
    /// When that was, RFC 3339.
    pub changed_at: String,
    /// The issuer's token endpoint, if its metadata names one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serde_url::option"
    )]
    pub token_endpoint: Option<Url>,
    /// The file that the secret was also written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<std::path::PathBuf>,
}

/// Why the state cannot be used. Never holds any of its content.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// Not JSON, or not ours.
    #[error(
        "{path}: not a state file of `hawkgate register` ({place}). Nothing was changed and nothing \
         was sent; put back a copy, or name another --state if this client may be forgotten"
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
    #[error("the state cannot be written as JSON")]
    Unwritable,
}

impl RegistrationState {
    /// Of `issuer`, with nothing done yet.
    pub fn new(issuer: &str) -> Self {
        Self {
            version: VERSION,
            issuer: issuer.to_owned(),
            intent: None,
            registration: None,
        }
    }

    /// Reads `file`; `None` when there is none.
    ///
    /// # Errors
    /// When the file cannot be read safely or is not one of ours; it stays as it is.
    pub fn read(file: &PrivateFile) -> Result<Option<Self>, StateError> {
        let Some(content) = file.read()? else {
            return Ok(None);
        };
        let path = file.path().display().to_string();
        Self::parse(&content, path).map(Some)
    }

    fn parse(content: &[u8], path: String) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        if let Ok(Versioned { version }) = serde_json::from_slice(content)
            && version != u64::from(VERSION)
        {
            return Err(StateError::Version { path, version });
        }
        // serde's own message may repeat what it found.
        serde_json::from_slice(content).map_err(|e| StateError::Broken {
            path,
            place: format!("line {}, column {}", e.line(), e.column()),
        })
    }

    /// Writes it through to the disk.
    ///
    /// # Errors
    /// When the system refuses; what was there before is still there then.
    pub fn save(&self, file: &LockedFile) -> Result<(), StateError> {
        let json = serde_json::to_vec_pretty(self).map_err(|_| StateError::Unwritable)?;
        Ok(file.replace(&Zeroizing::new(json))?)
    }

    /// The same with `action` begun at `issuer`, which need not be that of the client
    /// registered so far.
    #[must_use]
    pub fn with_intent(
        mut self,
        action: Action,
        issuer: &str,
        metadata: &ClientMetadata,
        now: UnixMillis,
    ) -> Self {
        self.intent = Some(Intent {
            action,
            issuer: issuer.to_owned(),
            begun_at: now.to_rfc3339(),
            metadata: metadata.clone(),
        });
        self
    }

    /// With what was begun ended well: we are this client of `issuer`.
    #[must_use]
    pub fn with_registration(mut self, issuer: &str, registration: Registration) -> Self {
        self.intent = None;
        issuer.clone_into(&mut self.issuer);
        self.registration = Some(registration);
        self
    }
}

impl Registration {
    /// Whether its secret is past its time.
    pub fn secret_expired(&self, now: UnixMillis) -> bool {
        let end = i64::try_from(self.client_secret_expires_at).unwrap_or(i64::MAX);
        end != 0 && now.as_secs() >= end
    }

    /// The way to manage it (RFC 7592), where the issuer gave one.
    pub fn management(&self) -> Option<(&Url, &SecretString)> {
        Some((
            self.registration_client_uri.as_ref()?,
            self.registration_access_token.as_ref()?,
        ))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::private_file::DirectoryPolicy;

    pub(crate) fn metadata(name: &str) -> ClientMetadata {
        let members = json!({"client_name": name, "redirect_uris": ["https://a.example/cb"]});
        ClientMetadata::new(members.as_object().unwrap().clone()).unwrap()
    }

    pub(crate) fn registration(name: &str) -> Registration {
        Registration {
            client_id: "c1".into(),
            client_secret: Some("a-client-secret".into()),
            client_secret_expires_at: 0,
            registration_access_token: Some("a-registration-token".into()),
            registration_client_uri: Some("https://a.example/reg/c1".parse().unwrap()),
            auth_method: AuthMethod::ClientSecretBasic,
            metadata: metadata(name),
            changed_at: "2026-11-20T19:10:09.000Z".into(),
            token_endpoint: None,
            secret_file: None,
        }
    }

    #[test]
    fn a_state_outlives_the_process_and_shows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = PrivateFile::new(dir.path().join("state"), DirectoryPolicy::OthersMayRead);
        assert!(RegistrationState::read(&file).unwrap().is_none());
        let now = UnixMillis::from_secs(0);
        let state = RegistrationState::new("https://a.example/")
            .with_registration("https://a.example/", registration("n"))
            .with_intent(Action::Update, "https://a.example/", &metadata("m"), now);
        state.save(&file.lock(|| ()).unwrap()).unwrap();
        let read = RegistrationState::read(&file).unwrap().unwrap();
        assert_eq!(read, state);
        let shown = format!("{read:?}");
        assert!(!shown.contains("a-client-secret") && !shown.contains("a-registration-token"));
    }

    #[test]
    fn a_broken_state_is_told_by_place_and_stays() {
        let parse = |text: &str| {
            RegistrationState::parse(text.as_bytes(), "f".into())
                .unwrap_err()
                .to_string()
        };
        let whole = serde_json::to_string(
            &RegistrationState::new("i").with_registration("i", registration("n")),
        )
        .unwrap();
        for broken in [
            "",
            "{}",
            "[]",
            &whole[..whole.len() / 2],
            &whole.replace("\"issuer\"", "\"isuer\""),
            &whole.replace("\"c1\"", "[\"a-client-secret\"]"),
        ] {
            let said = parse(broken);
            assert!(
                said.contains("line ") && said.contains("Nothing was changed"),
                "{said}"
            );
            assert!(!said.contains("a-client-secret"), "{said}");
        }
        assert!(parse(&whole.replace("\"version\":1", "\"version\":2")).contains("newer"));
    }

    #[test]
    fn a_secret_ends_when_the_issuer_says() {
        let mut registration = registration("n");
        let now = UnixMillis::from_secs(100);
        assert!(!registration.secret_expired(now));
        registration.client_secret_expires_at = 100;
        assert!(registration.secret_expired(now));
        registration.client_secret_expires_at = 101;
        assert!(!registration.secret_expired(now));
    }
}
