//! The keys shared by tables in which hawkgate acts as an OAuth2 client.

use url::Url;

use super::diagnostic::Location;
use super::reader::{Reader, section};
use super::value::Choice;
use crate::remote::settings::{AssertionKey, ClientProof, OauthClient};
use crate::secret::SecretRef;
use crate::token::SigningKey;
use crate::token::settings::Algorithm;

section! {
    /// hawkgate's own client at an OAuth2 endpoint.
    pub(super) struct ClientKeys {
        /// The client's identifier at this server.
        client_id: String = [required],
        /// The client's secret.
        client_secret: SecretRef = [optional],
        /// The client's private key in PEM form, instead of a secret: RSA, P-256, P-384 or Ed25519.
        private_key: SecretRef = [optional],
        /// How the client authenticates: `client_secret_basic` (default with a secret),
        /// `client_secret_post`, `private_key_jwt` (default with a private key).
        auth_method: AuthMethod = [optional],
        /// The `kid` of `private_key_jwt` assertions; none when left out.
        key_id: String = [optional],
        /// The algorithm of `private_key_jwt`; derived from the key when left out (RS256, ES256, ES384,
        /// EdDSA).
        assertion_algorithm: AssertionAlgorithm = [optional],
        /// The `aud` of the assertions, usually the server's issuer; the endpoint's URL when left out.
        assertion_audience: String = [optional],
    }
}

/// `auth_method`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthMethod {
    Basic,
    Post,
    PrivateKeyJwt,
}

impl Choice for AuthMethod {
    const NAMES: &'static [&'static str] = &[
        "client_secret_basic",
        "client_secret_post",
        "private_key_jwt",
    ];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "client_secret_basic" => Some(Self::Basic),
            "client_secret_post" => Some(Self::Post),
            "private_key_jwt" => Some(Self::PrivateKeyJwt),
            _ => None,
        }
    }

    fn explain_refusal(name: &str) -> Option<(String, String)> {
        let unsupported = [
            "client_secret_jwt",
            "tls_client_auth",
            "self_signed_tls_client_auth",
            "none",
        ];
        unsupported.contains(&name).then(|| {
            let problem = format!("{name} is not supported");
            (problem, format!("write one of {}", Self::NAMES.join(", ")))
        })
    }
}

/// `assertion_algorithm`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AssertionAlgorithm(Algorithm);

impl Choice for AssertionAlgorithm {
    const NAMES: &'static [&'static str] = Algorithm::NAMES;

    fn from_name(name: &str) -> Option<Self> {
        Algorithm::from_name(name).map(Self)
    }

    fn explain_refusal(name: &str) -> Option<(String, String)> {
        Algorithm::explain_refusal(name)
    }
}

impl ClientKeys {
    /// The client for `endpoint`. Returns `None` only if `reader` has recorded an error.
    pub(super) fn resolve(
        self,
        reader: &mut Reader<'_>,
        endpoint: Option<&Url>,
    ) -> Option<OauthClient> {
        self.confidential(reader, endpoint.map(ToString::to_string))
    }

    /// The client, which is a public one if it has no credential. `audience` is the `aud` of its
    /// assertions unless the file has another. Returns `None` only if there is no `audience`, or
    /// `reader` has recorded an error.
    pub(super) fn resolve_any(
        self,
        reader: &mut Reader<'_>,
        audience: Option<String>,
    ) -> Option<OauthClient> {
        let keys = [
            self.client_secret.given,
            self.private_key.given,
            self.auth_method.given,
            self.key_id.given,
            self.assertion_algorithm.given,
            self.assertion_audience.given,
        ];
        if keys.contains(&true) {
            return self.confidential(reader, audience);
        }
        Some(OauthClient {
            id: self.client_id.value?,
            proof: ClientProof::Public,
        })
    }

    fn confidential(
        self,
        reader: &mut Reader<'_>,
        default_audience: Option<String>,
    ) -> Option<OauthClient> {
        let method = self.method(reader)?;
        self.refuse_unused_keys(reader, method);
        if method == AuthMethod::PrivateKeyJwt {
            self.check_key(reader);
        }
        let audience = match self.assertion_audience.optional()? {
            Some(audience) => Some(audience),
            None => default_audience,
        };
        let proof = match method {
            AuthMethod::Basic => ClientProof::SecretBasic(self.client_secret.value?),
            AuthMethod::Post => ClientProof::SecretPost(self.client_secret.value?),
            AuthMethod::PrivateKeyJwt => ClientProof::PrivateKeyJwt(AssertionKey {
                key: self.private_key.value?,
                key_id: self.key_id.optional()?,
                algorithm: self.assertion_algorithm.optional()?.map(|a| a.0),
                audience: audience?,
            }),
        };
        Some(OauthClient {
            id: self.client_id.value?,
            proof,
        })
    }

    /// The authentication method, if the credential that it needs is given, and no other.
    fn method(&self, reader: &mut Reader<'_>) -> Option<AuthMethod> {
        let (secret, key) = (self.client_secret.given, self.private_key.given);
        if secret && key {
            let problem = "both client_secret and private_key are given";
            reader.error(&self.private_key.at, problem, "remove one of the two");
            return None;
        }
        let implied = match (secret, key) {
            (true, _) => Some(AuthMethod::Basic),
            (_, true) => Some(AuthMethod::PrivateKeyJwt),
            _ => None,
        };
        if self.auth_method.given && self.auth_method.value.is_none() {
            return None;
        }
        let Some(method) = self.auth_method.value.or(implied) else {
            let problem = "missing, and so is private_key: the client could not authenticate";
            let remedy = "add client_secret = { file = \"…\" } or private_key = { file = \"…\" }";
            reader.error(&self.client_secret.at, problem, remedy);
            return None;
        };
        let (needs, present) = match method {
            AuthMethod::Basic | AuthMethod::Post => ("client_secret", secret),
            AuthMethod::PrivateKeyJwt => ("private_key", key),
        };
        if !present {
            let problem = format!("needs {needs}, which is missing");
            let remedy = format!("add {needs} = {{ file = \"…\" }}, or leave auth_method out");
            reader.error(&self.auth_method.at, problem, remedy);
            return None;
        }
        Some(method)
    }

    fn refuse_unused_keys(&self, reader: &mut Reader<'_>, method: AuthMethod) {
        if method == AuthMethod::PrivateKeyJwt {
            return;
        }
        let keys: [(bool, &Location); 3] = [
            (self.key_id.given, &self.key_id.at),
            (self.assertion_algorithm.given, &self.assertion_algorithm.at),
            (self.assertion_audience.given, &self.assertion_audience.at),
        ];
        for (_, at) in keys.into_iter().filter(|(given, _)| *given) {
            let problem = "has no effect: only auth_method = \"private_key_jwt\" signs assertions";
            reader.error(
                at,
                problem,
                "remove it, or use private_key instead of client_secret",
            );
        }
    }

    fn check_key(&self, reader: &mut Reader<'_>) {
        let Some(secret) = self
            .private_key
            .value
            .as_ref()
            .filter(|_| reader.reads_files())
        else {
            return;
        };
        // An unreadable key has already been reported.
        let Ok(pem) = secret.read() else { return };
        let algorithm = self.assertion_algorithm.value.map(|a| a.0);
        if let Err(problem) = SigningKey::from_pem(pem.expose(), algorithm) {
            let remedy = "use a PEM private key, for example from `openssl genpkey`";
            reader.error(&self.private_key.at, problem.to_string(), remedy);
        }
    }
}
