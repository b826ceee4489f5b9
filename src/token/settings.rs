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
    /// The bearer token that requests for keys are authenticated with.
    pub keys_token: Option<SecretRef>,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Accepted signature algorithms; asymmetric only, and never `none`.
    pub algorithms: Vec<Algorithm>,
    /// The rules for `typ` and the claims.
    pub profile: Profile,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted values of `client_id` or `azp`; `None` for any.
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
    /// The rules for `typ` and the claims.
    pub profile: Profile,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted values of `client_id` or `azp`; `None` for any.
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
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted values of `client_id` or `azp`; `None` for any.
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

/// The rules that apply to an issuer's tokens: `issuer.profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 9068 access tokens: `typ` is `at+jwt`.
    Rfc9068,
    /// Auth0 access tokens: `typ` is `JWT`, and ID tokens are refused.
    Auth0,
    /// Workload identities: any `typ`, and `subjects` is required.
    Workload,
}
