//! Settings of issuers: how their tokens are verified.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::secret::SecretRef;

/// An `oidc` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct OidcIssuer {
    /// The exact `iss`.
    pub url: String,
    /// The location of its keys.
    pub keys: KeyLocation,
    /// A PEM file with the only CAs to trust when fetching keys; `None` trusts the platform's.
    pub ca: Option<PathBuf>,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Accepted signature algorithms; asymmetric only, and never `none`.
    pub algorithms: Vec<Algorithm>,
    /// The rules that tell its access tokens from other tokens.
    pub profile: Profile,
    /// How its access tokens are marked, and the names of their claims.
    pub format: TokenFormat,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted clients; `None` for any.
    pub clients: Option<Vec<String>>,
    /// Accepted patterns of `sub`, in which `*` matches any text; `None` for any.
    pub subjects: Option<Vec<String>>,
    /// Maximum time for which a verified token is cached.
    pub verified_max_age: Duration,
}

/// A `shared-secret` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedSecretIssuer {
    /// The exact `iss`.
    pub url: String,
    /// The secret, long enough for each of the algorithms.
    pub secret: SecretRef,
    /// How the secret is encoded.
    pub encoding: SecretEncoding,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Accepted algorithms; each is in [`Algorithm::HMAC`].
    pub algorithms: Vec<Algorithm>,
    /// The rules that tell its access tokens from other tokens.
    pub profile: Profile,
    /// How its access tokens are marked, and the names of their claims.
    pub format: TokenFormat,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted clients; `None` for any.
    pub clients: Option<Vec<String>>,
    /// Accepted patterns of `sub`; `None` for any.
    pub subjects: Option<Vec<String>>,
    /// Maximum time for which a verified token is cached.
    pub verified_max_age: Duration,
}

/// The encoding of a shared secret: `issuer.secret_encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    /// The key is the secret's own bytes.
    Text,
    /// The key is base64-encoded, in either alphabet, padded or not.
    Base64,
}

/// An `introspection` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct IntrospectionIssuer {
    /// The exact `iss`, compared if a response has one.
    pub url: String,
    /// The prefix of the issuer's tokens, if they have one.
    pub token_prefix: Option<String>,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// The names of the claims in its responses; `token_types` does not apply.
    pub format: TokenFormat,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted clients; `None` for any.
    pub clients: Option<Vec<String>>,
    /// Accepted patterns of `sub`; `None` for any.
    pub subjects: Option<Vec<String>>,
    /// Maximum time for which a response is cached; at most 60 s.
    pub verified_max_age: Duration,
}

/// The location of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// At the `jwks_uri` in the issuer's metadata.
    Discovery,
    /// At this URL.
    Url(Url),
    /// In this file.
    File(PathBuf),
}

/// Signature algorithms by their JOSE names (RFC 7518, RFC 8037, RFC 9864).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    Ed25519,
    /// Uses a shared secret; not in [`Algorithm::ALL`].
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    /// Every asymmetric algorithm supported: the default list.
    pub const ALL: &'static [Self] = &[
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
        Self::Ed25519,
    ];

    /// The algorithms that use a shared secret; only for `shared-secret` issuers.
    pub const HMAC: &'static [Self] = &[Self::HS256, Self::HS384, Self::HS512];

    /// The output size of an HMAC's hash in bytes, which is the minimum size of the secret
    /// (RFC 7518 §3.2); 0 for other algorithms.
    pub const fn hmac_bytes(self) -> usize {
        match self {
            Self::HS256 => 32,
            Self::HS384 => 48,
            Self::HS512 => 64,
            _ => 0,
        }
    }

    /// The JOSE name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }
}

/// Which identity provider an issuer's tokens are like: `issuer.profile`. Determines the default
/// [`TokenFormat`], and how access tokens are told from ID tokens (`docs/design/tokens.md`,
/// "Profiles").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 9068 access tokens: `typ` is `at+jwt`.
    Rfc9068,
    /// Auth0 access tokens: `typ` is `JWT`, and ID tokens are refused.
    Auth0,
    /// Workload identities: any `typ`, and `subjects` is required.
    Workload,
    /// Okta, with or without a custom authorization server, and Zitadel.
    Okta,
    /// Microsoft Entra ID, endpoints v1.0 and v2.0, Azure AD B2C, and AD FS.
    Entra,
    /// Amazon Cognito user pools.
    Cognito,
    /// Keycloak.
    Keycloak,
}

impl Profile {
    /// Every profile, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Rfc9068,
        Self::Auth0,
        Self::Workload,
        Self::Okta,
        Self::Entra,
        Self::Cognito,
        Self::Keycloak,
    ];

    /// The profile with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut profiles = Self::ALL.iter().copied();
        profiles.find(|profile| profile.name() == name)
    }

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rfc9068 => "rfc9068",
            Self::Auth0 => "auth0",
            Self::Workload => "workload",
            Self::Okta => "okta",
            Self::Entra => "entra",
            Self::Cognito => "cognito",
            Self::Keycloak => "keycloak",
        }
    }

    /// The accepted values of `typ`, of which `""` stands for none at all; `None` for any.
    pub const fn token_types(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Rfc9068 => Some(&["at+jwt"]),
            Self::Auth0 | Self::Entra => Some(&["JWT"]),
            Self::Workload => None,
            Self::Okta => Some(&["", "JWT", "at+jwt", "okta-internal-at+jwt"]),
            Self::Cognito => Some(&["", "JWT"]),
            Self::Keycloak => Some(&["JWT", "at+jwt"]),
        }
    }

    /// The claims of which the first that a token has contains its scopes.
    pub const fn scope_claims(self) -> &'static [&'static str] {
        &["scope", "scp"]
    }

    /// The claims of which the first that a token has contains its audiences.
    pub const fn audience_claims(self) -> &'static [&'static str] {
        match self {
            Self::Cognito => &["client_id"],
            _ => &["aud"],
        }
    }

    /// The claims that name the client that the token was issued to.
    pub const fn client_claims(self) -> &'static [&'static str] {
        match self {
            Self::Okta => &["cid", "client_id", "azp"],
            Self::Entra => &["azp", "appid"],
            _ => &["client_id", "azp"],
        }
    }

    /// The format of its access tokens.
    pub fn format(self) -> TokenFormat {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        TokenFormat {
            token_types: self.token_types().map(owned),
            scope_claims: owned(self.scope_claims()),
            audience_claims: owned(self.audience_claims()),
            client_claims: owned(self.client_claims()),
        }
    }
}

/// How an issuer's access tokens are marked, and the names of their claims. Names are exact: a dot
/// is never a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFormat {
    /// The accepted values of `typ`, in any case and without the prefix `application/`; `""` accepts
    /// tokens that have none. `None` for any.
    pub token_types: Option<Vec<String>>,
    /// The claims of which the first that a token has contains its scopes; at least one.
    pub scope_claims: Vec<String>,
    /// The claims of which the first that a token has contains its audiences; at least one.
    pub audience_claims: Vec<String>,
    /// The claims that name the client; at least one. Those that a token has must be equal.
    pub client_claims: Vec<String>,
}
