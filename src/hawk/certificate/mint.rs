//! Minting named temporary credentials (`docs/design/taskcluster.md`, "Temporary
//! credentials").

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

/// The longest validity of a certificate.
pub const MAX_LIFETIME: Duration = Duration::from_hours(31 * 24);

/// Named temporary credentials to mint from an issuing client.
#[derive(Clone, Copy, Debug)]
pub struct Mint<'a> {
    /// The issuing client's clientId.
    pub issuer: &'a str,
    /// The issuing client's accessToken.
    pub issuer_token: &'a SecretString,
    /// The new clientId; must differ from `issuer`.
    pub client_id: &'a str,
    /// The scopes that the certificate grants.
    pub scopes: &'a [String],
    /// The start of the validity.
    pub start: UnixMillis,
    /// The end of the validity, at most [`MAX_LIFETIME`] after `start`.
    pub expiry: UnixMillis,
}

impl Mint<'_> {
    /// Mints the credentials with a fresh seed.
    ///
    /// # Errors
    /// If the service would reject the result because of its names, scopes or validity.
    pub fn sign(&self) -> Result<Credentials, CertificateError> {
        self.check()?;
        let seed = Zeroizing::new(format!("{}{}", slugid()?, slugid()?));
        self.sign_as(Some(self.client_id), &seed)
    }

    fn check(&self) -> Result<(), CertificateError> {
        if !is_client_id(self.issuer) {
            return Err(CertificateError::InvalidClientId("issuing client's id"));
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
        // A line feed in a scope would forge additional lines of the signed text.
        if !self.scopes.iter().all(|scope| scope::is_valid(scope)) {
            return Err(CertificateError::InvalidScope);
        }
        let validity = self.start.until(self.expiry);
        if validity.is_zero() || validity > MAX_LIFETIME {
            return Err(CertificateError::Validity);
        }
        Ok(())
    }

    /// Deterministic. The credentials are unnamed if `name` is `None`; only the published test
    /// vectors are.
    fn sign_as(&self, name: Option<&str>, seed: &str) -> Result<Credentials, CertificateError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.issuer_token.expose().as_bytes());
        let written = CertificateJson {
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

    /// The HMAC over lines that are joined by line feeds, without a trailing one. Only named
    /// credentials include the names.
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

/// The JSON form of a certificate.
#[derive(Serialize)]
struct CertificateJson<'a> {
    version: u8,
    scopes: &'a [String],
    start: i64,
    expiry: i64,
    seed: &'a str,
    signature: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
}

impl CertificateJson<'_> {
    fn certificate(&self) -> Result<Certificate, CertificateError> {
        // Usually large enough, because growing would leave copies behind that are not zeroized.
        let scopes: usize = self.scopes.iter().map(|scope| scope.len() + 8).sum();
        let mut json = Vec::with_capacity(1024 + scopes);
        serde_json::to_writer(&mut json, self).map_err(|_| CertificateError::NotAnObject)?;
        let json = String::from_utf8(json).map_err(|_| CertificateError::NotAnObject)?;
        Ok(Certificate(SecretString::new(json)))
    }
}

/// A random UUID (version 4, RFC 9562) as 22 characters of base64url.
fn slugid() -> Result<String, CertificateError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CertificateError::NoRandomness)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether the auth service accepts `name` as a clientId: `^[A-Za-z0-9!@/:.+|_-]+$`, from
/// `services/auth/schemas/constants.yml` of the Taskcluster repository.
pub fn is_client_id(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!@/:.+|_-".contains(&byte))
}

#[cfg(test)]
mod tests;
