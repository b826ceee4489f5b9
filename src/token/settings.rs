//! Settings of issuers: whose tokens are accepted, and by which rules.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::secret::SecretRef;

/// An `oidc` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct OidcIssuer {
    /// The exact `iss`.
    pub url: String,
    /// Where its keys are.
    pub keys: KeyLocation,
    /// PEM file with the only CAs trusted when they are fetched; the platform's when `None`.
    pub ca: Option<PathBuf>,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Accepted algorithms; never HS*, never none.
    pub algorithms: Vec<Algorithm>,
    /// Which rules apply to `typ` and claims.
    pub profile: Profile,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted `client_id`/`azp`, or any.
    pub clients: Option<Vec<String>>,
    /// Accepted `sub` patterns (`*` matches anything, at any place), or any.
    pub subjects: Option<Vec<String>>,
    /// Longest a verified token is remembered.
    pub verified_max_age: Duration,
}

/// A `shared-secret` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedSecretIssuer {
    /// The exact `iss`.
    pub url: String,
    /// The secret; long enough for each of the algorithms.
    pub secret: SecretRef,
    /// How the secret is written.
    pub encoding: SecretEncoding,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Accepted algorithms, all of [`Algorithm::HMAC`].
    pub algorithms: Vec<Algorithm>,
    /// Which rules apply to `typ` and claims.
    pub profile: Profile,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted `client_id`/`azp`, or any.
    pub clients: Option<Vec<String>>,
    /// Accepted `sub` patterns, or any.
    pub subjects: Option<Vec<String>>,
    /// Longest a verified token is remembered.
    pub verified_max_age: Duration,
}

/// `issuer.secret_encoding`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    /// The text's own bytes.
    Text,
    /// base64 in either alphabet, padded or not.
    Base64,
}

/// An `introspection` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct IntrospectionIssuer {
    /// The exact `iss`, where an answer has one.
    pub url: String,
    /// What its tokens begin with, if they have something of their own.
    pub token_prefix: Option<String>,
    /// Accepted audiences; at least one.
    pub audiences: Vec<String>,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Accepted `client_id`/`azp`, or any.
    pub clients: Option<Vec<String>>,
    /// Accepted `sub` patterns, or any.
    pub subjects: Option<Vec<String>>,
    /// Longest an answer is remembered; at most 60s.
    pub verified_max_age: Duration,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// At the `jwks_uri` of its metadata.
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
    /// With a shared secret; never among [`Algorithm::ALL`].
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

    /// Those that need a secret shared with the issuer: for the kind `shared-secret` alone.
    pub const HMAC: &'static [Self] = &[Self::HS256, Self::HS384, Self::HS512];

    /// The size of an HMAC's hash, which is the least that its secret may have, in bytes
    /// (RFC 7518 §3.2); 0 for the others.
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

/// `issuer.profile`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 9068 access tokens: `typ` is `at+jwt`.
    Rfc9068,
    /// Auth0 access tokens: `typ` is `JWT`; ID tokens refused.
    Auth0,
    /// Machines' identities: any `typ`; `subjects` required.
    Workload,
}
