//! The state file of `hawkgate register`: the registered client, the credentials to manage
//! it, and the change in progress, if its outcome is unknown.

use serde::{Deserialize, Serialize};
use url::Url;

use super::metadata::{AuthMethod, ClientMetadata};
use crate::clock::UnixMillis;
use crate::private_file::serde_secret;
use crate::private_file::state::PersistentState;
use crate::secret::SecretString;
use crate::serde_url;

/// The contents of a state file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationState {
    version: u32,
    /// The issuer's exact identifier.
    pub issuer: String,
    /// The change in progress: recorded before the request, removed after its response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// The client as registered at `issuer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
}

/// A write-ahead record of a request that changes the client at the issuer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The operation.
    pub action: Action,
    /// The issuer that the request goes to.
    pub issuer: String,
    /// When it was started, RFC 3339.
    pub begun_at: String,
    /// The metadata requested; for a deletion, that of the client to delete.
    pub metadata: ClientMetadata,
}

/// An operation at the issuer's registration endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Register a client (RFC 7591 §3.1).
    Register,
    /// Replace its metadata (RFC 7592 §2.2).
    Update,
    /// Delete it (RFC 7592 §2.3).
    Delete,
}

/// A registered client (RFC 7591 §3.2.1, client information response).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The client identifier.
    pub client_id: String,
    /// The client secret, if the issuer gave one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serde_secret::option"
    )]
    pub client_secret: Option<SecretString>,
    /// When the secret expires, in seconds since the epoch; 0 means never.
    #[serde(default)]
    pub client_secret_expires_at: u64,
    /// The token for the client configuration endpoint, if the issuer supports RFC 7592.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serde_secret::option"
    )]
    pub registration_access_token: Option<SecretString>,
    /// The client configuration endpoint (RFC 7592 §2).
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serde_url::option"
    )]
    pub registration_client_uri: Option<Url>,
    /// How the client authenticates at the token endpoint.
    pub auth_method: AuthMethod,
    /// The metadata requested when the client was registered or last changed.
    pub metadata: ClientMetadata,
    /// When that was, RFC 3339.
    pub changed_at: String,
    /// The token endpoint, if the issuer's metadata has one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "serde_url::option"
    )]
    pub token_endpoint: Option<Url>,
    /// The file that the secret was also written to, for use in a configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<std::path::PathBuf>,
}

impl PersistentState for RegistrationState {
    const VERSION: u32 = 1;
    const DESCRIPTION: &'static str = "state file of `hawkgate register`";
    const REMEDY: &'static str = "nothing was changed and nothing was sent. Restore a backup, or \
        choose another --state if you no longer need this client";
}

impl RegistrationState {
    /// An empty state for `issuer`.
    pub fn new(issuer: &str) -> Self {
        Self {
            version: Self::VERSION,
            issuer: issuer.to_owned(),
            intent: None,
            registration: None,
        }
    }

    /// Records that `action` is about to be requested at `issuer`, which may differ from the
    /// issuer of the client registered so far.
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

    /// Records the outcome: `registration` is now the client at `issuer`.
    #[must_use]
    pub fn with_registration(mut self, issuer: &str, registration: Registration) -> Self {
        self.intent = None;
        issuer.clone_into(&mut self.issuer);
        self.registration = Some(registration);
        self
    }
}

impl Registration {
    /// Whether the client secret has expired.
    pub fn secret_expired(&self, now: UnixMillis) -> bool {
        let expiry = i64::try_from(self.client_secret_expires_at).unwrap_or(i64::MAX);
        expiry != 0 && now.as_secs() >= expiry
    }

    /// The client configuration endpoint and its token (RFC 7592), if the issuer gave both.
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
    use crate::private_file::{DirectoryPolicy, PrivateFile};

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
    fn a_saved_registration_is_loaded_again_and_its_debug_output_hides_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let file = PrivateFile::new(dir.path().join("state"), DirectoryPolicy::OthersMayRead);
        let now = UnixMillis::from_secs(0);
        let state = RegistrationState::new("https://a.example/")
            .with_registration("https://a.example/", registration("n"))
            .with_intent(Action::Update, "https://a.example/", &metadata("m"), now);
        state.save(&file.lock(|| ()).unwrap()).unwrap();
        let loaded = RegistrationState::load(&file).unwrap().unwrap();
        assert_eq!(loaded, state);
        let debug = format!("{loaded:?}");
        assert!(!debug.contains("a-client-secret") && !debug.contains("a-registration-token"));
    }

    #[test]
    fn a_malformed_state_file_is_reported_without_secrets() {
        let whole = serde_json::to_string(
            &RegistrationState::new("i").with_registration("i", registration("n")),
        )
        .unwrap();
        for malformed in [
            whole.replace("\"issuer\"", "\"isuer\""),
            whole.replace("\"c1\"", "[\"a-client-secret\"]"),
        ] {
            let error = RegistrationState::parse(malformed.as_bytes(), "f").unwrap_err();
            let text = error.to_string();
            assert!(text.contains("nothing was changed"), "{text}");
            assert!(!text.contains("a-client-secret"), "{text}");
        }
    }

    #[test]
    fn a_client_secret_expires_when_the_issuer_says() {
        let mut registration = registration("n");
        let now = UnixMillis::from_secs(100);
        assert!(!registration.secret_expired(now));
        registration.client_secret_expires_at = 100;
        assert!(registration.secret_expired(now));
        registration.client_secret_expires_at = 101;
        assert!(!registration.secret_expired(now));
    }
}
