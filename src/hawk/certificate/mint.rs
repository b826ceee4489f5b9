//! Making named temporary credentials (taskcluster.md §3).

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Certificate, CertificateError};
use crate::clock::UnixMillis;
use crate::hawk::Credentials;
use crate::hawk::scope;
use crate::secret::SecretString;

/// The longest that a certificate may be valid.
pub const MAX_LIFETIME: Duration = Duration::from_hours(31 * 24);

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
    ///
    /// # Errors
    /// When the service would refuse the result: names, scopes or validity out of bounds.
    pub fn sign(&self) -> Result<Credentials, CertificateError> {
        self.check()?;
        let seed = Zeroizing::new(format!("{}{}", slugid()?, slugid()?));
        self.sign_as(Some(self.client_id), &seed)
    }

    fn check(&self) -> Result<(), CertificateError> {
        if !is_client_id(self.issuer) {
            return Err(CertificateError::InvalidClientId("issuing client's name"));
        }
        if !is_client_id(self.client_id) {
            return Err(CertificateError::InvalidClientId("new name"));
        }
        if self.client_id == self.issuer {
            return Err(CertificateError::SameName);
        }
        if self.issuer_token.expose().is_empty() {
            return Err(CertificateError::NoKey);
        }
        // A line feed in a scope would forge further lines of what is signed.
        if !self.scopes.iter().all(|scope| scope::is_valid(scope)) {
            return Err(CertificateError::InvalidScope);
        }
        let validity = self.start.until(self.expiry);
        if validity.is_zero() || validity > MAX_LIFETIME {
            return Err(CertificateError::Validity);
        }
        Ok(())
    }

    /// Deterministic. Unnamed (only the published vectors are) when `name` is `None`.
    fn sign_as(&self, name: Option<&str>, seed: &str) -> Result<Credentials, CertificateError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.issuer_token.expose().as_bytes());
        let written = Written {
            version: 1,
            scopes: self.scopes,
            start: self.start.0,
            expiry: self.expiry.0,
            seed,
            signature: &STANDARD.encode(self.signature(&key, name, seed)),
            issuer: name.map(|_| self.issuer),
        };
        let access_token = URL_SAFE_NO_PAD.encode(hmac::sign(&key, seed.as_bytes()));
        Ok(Credentials {
            client_id: name.unwrap_or(self.issuer).to_owned(),
            access_token: SecretString::new(access_token),
            certificate: Some(written.certificate()?),
            authorized_scopes: None,
        })
    }

    /// Over lines joined by a line feed, none trailing; names only in named credentials.
    fn signature(&self, key: &hmac::Key, name: Option<&str>, seed: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        context.update(b"version:1");
        let mut line = |label: &str, value: &str| {
            for part in ["\n", label, ":", value] {
                context.update(part.as_bytes());
            }
        };
        let mut number = itoa::Buffer::new();
        if let Some(name) = name {
            line("clientId", name);
            line("issuer", self.issuer);
        }
        line("seed", seed);
        line("start", number.format(self.start.0));
        line("expiry", number.format(self.expiry.0));
        line("scopes", "");
        for scope in self.scopes {
            context.update(b"\n");
            context.update(scope.as_bytes());
        }
        context.sign()
    }
}

/// A certificate as it is written.
#[derive(Serialize)]
struct Written<'a> {
    version: u8,
    scopes: &'a [String],
    start: i64,
    expiry: i64,
    seed: &'a str,
    signature: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
}

impl Written<'_> {
    fn certificate(&self) -> Result<Certificate, CertificateError> {
        // Room for nearly any from the start: growing would leave unwiped copies behind.
        let scopes: usize = self.scopes.iter().map(|scope| scope.len() + 8).sum();
        let mut json = Vec::with_capacity(1024 + scopes);
        serde_json::to_writer(&mut json, self).map_err(|_| CertificateError::NotAnObject)?;
        let json = String::from_utf8(json).map_err(|_| CertificateError::NotAnObject)?;
        Ok(Certificate(SecretString::new(json)))
    }
}

/// A random UUID (version 4, RFC 9562) in 22 characters of base64url.
fn slugid() -> Result<String, CertificateError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CertificateError::NoRandomness)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether the auth service takes `name` as a clientId: `^[A-Za-z0-9!@/:.+|_-]+$` in its
/// schemas (`services/auth/schemas/constants.yml` of the Taskcluster monorepo).
pub fn is_client_id(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!@/:.+|_-".contains(&byte))
}

#[cfg(test)]
mod tests;
