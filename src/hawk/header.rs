//! The `Authorization: Hawk …` header.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Credentials;
use super::certificate::Certificate;
use super::error::{HawkError, MAX_AUTHORIZATION_CHARS};
use super::mac::{MacInput, check_attribute, check_request};
use crate::bounded_cache::heap_size;
use crate::clock::UnixMillis;
use crate::secret::SecretString;

/// A SHA-256 MAC or hash in base64.
const MAC_CHARS: usize = 44;
/// Seconds since the epoch have ten digits until the year 2286.
const TIME_CHARS: usize = 10;
/// A [`nonce`] consists of 64 random bits and a 32-bit counter.
const NONCE_BYTES: usize = 12;
/// The length of a [`nonce`] in base64url.
const NONCE_CHARS: usize = 16;

/// One request as the service will see it. Every part goes into the MAC unchanged.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The time by the *service's* clock (offset already applied). Sent in whole seconds.
    pub at: UnixMillis,
    /// Required, but never checked by Taskcluster; see [`nonce`].
    pub nonce: &'a str,
    /// The method as sent (HEAD stays HEAD); upper-cased for the MAC.
    pub method: &'a str,
    /// The raw path and query exactly as sent: origin form, visible ASCII.
    pub target: &'a str,
    /// The host name without port; lower-cased for the MAC. An IPv6 literal may have brackets.
    pub host: &'a str,
    /// The port that the service puts into the MAC; see [`service_port`](super::service_port).
    pub port: u16,
    /// The base64 payload hash, if one is sent. hawkgate sends none.
    pub payload_hash: Option<&'a str>,
}

/// Credentials prepared for signing: the HMAC key schedule and `ext` are computed once.
/// Both are zeroized on drop.
pub struct Signer {
    pub(super) id: Box<str>,
    pub(super) key: hmac::Key,
    /// Empty if the header has no `ext` attribute; the service answers 401 to an empty one.
    pub(super) ext: SecretString,
    /// What is secret in `ext`, see [`Signer::ext_secrets`].
    ext_secrets: Vec<SecretString>,
    narrowed: bool,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// Prepares `credentials`.
    ///
    /// # Errors
    /// If a header with a ten-digit timestamp and a [`nonce`] would exceed the limit, the
    /// clientId is not valid in a header, or the accessToken is empty.
    pub fn new(credentials: &Credentials) -> Result<Self, HawkError> {
        let ext = ext(
            credentials.certificate.as_ref(),
            credentials.authorized_scopes.as_deref(),
        )?;
        let signer = Self::with_ext(&credentials.client_id, &credentials.access_token, ext)?;
        Ok(Self {
            narrowed: credentials.authorized_scopes.is_some(),
            ..signer
        })
    }

    /// Whether `ext` contains `authorizedScopes`.
    pub fn has_authorized_scopes(&self) -> bool {
        self.narrowed
    }

    /// Like [`Self::new`], with an arbitrary `ext`; empty for none.
    pub(super) fn with_ext(
        id: &str,
        access_token: &SecretString,
        ext: SecretString,
    ) -> Result<Self, HawkError> {
        check_attribute("client id", id)?;
        if access_token.expose().is_empty() {
            return Err(HawkError::Unrepresentable("access token"));
        }
        if !ext.expose().is_empty() {
            check_attribute("ext", ext.expose())?;
        }
        let signer = Self {
            id: id.into(),
            key: hmac::Key::new(hmac::HMAC_SHA256, access_token.expose().as_bytes()),
            ext_secrets: ext_secrets(&ext),
            ext,
            narrowed: false,
        };
        within_limit(signer.length(TIME_CHARS, NONCE_CHARS, None))?;
        Ok(signer)
    }

    /// What is sent with every request and must not appear in an answer: `ext`, and the seed and
    /// the signature of the certificate in it.
    pub fn ext_secrets(&self) -> &[SecretString] {
        &self.ext_secrets
    }

    /// The memory that it takes, in bytes.
    pub fn heap_size(&self) -> usize {
        let secrets = self.ext_secrets.iter();
        size_of::<Self>()
            + heap_size::string(&self.id)
            + heap_size::string(self.ext.expose())
            + heap_size::allocation(size_of_val(self.ext_secrets.as_slice()))
            + secrets
                .map(|s| heap_size::string(s.expose()))
                .sum::<usize>()
    }

    /// The header value: `Hawk id="…", ts="…", nonce="…", [hash="…",] [ext="…",] mac="…"`.
    ///
    /// # Errors
    /// If the value would exceed the limit or a part cannot be represented.
    pub fn authorization(&self, request: &SignedRequest<'_>) -> Result<String, HawkError> {
        check_attribute("nonce", request.nonce)?;
        check_request(request.method, request.target, request.host)?;
        if let Some(hash) = request.payload_hash {
            check_attribute("payload hash", hash)?;
        }
        let seconds = request.at.as_secs();
        let mut digits = itoa::Buffer::new();
        let ts = digits.format(seconds);
        let length = self.length(ts.len(), request.nonce.len(), request.payload_hash);
        within_limit(length)?;
        let mac = MacInput {
            kind: "hawk.1.header",
            seconds,
            nonce: request.nonce,
            method: request.method,
            target: request.target,
            host: request.host,
            port: request.port,
            hash: request.payload_hash.unwrap_or_default(),
            ext: self.ext.expose(),
        }
        .mac(&self.key);

        let mut value = String::with_capacity(length);
        value.push_str("Hawk id=\"");
        value.push_str(&self.id);
        value.push_str("\", ts=\"");
        value.push_str(ts);
        value.push_str("\", nonce=\"");
        value.push_str(request.nonce);
        if let Some(hash) = request.payload_hash {
            value.push_str("\", hash=\"");
            value.push_str(hash);
        }
        if !self.ext.expose().is_empty() {
            value.push_str("\", ext=\"");
            value.push_str(self.ext.expose());
        }
        value.push_str("\", mac=\"");
        STANDARD.encode_string(mac, &mut value);
        value.push('"');
        Ok(value)
    }

    /// The length of a header in characters, from the lengths of its variable parts.
    fn length(&self, ts: usize, nonce: usize, hash: Option<&str>) -> usize {
        const FRAME: usize = "Hawk id=\"\", ts=\"\", nonce=\"\", mac=\"\"".len();
        let optional = |name: &str, value: usize| match value {
            0 => 0,
            _ => ", =\"\"".len() + name.len() + value,
        };
        FRAME
            + self.id.len()
            + ts
            + nonce
            + MAC_CHARS
            + optional("hash", hash.map_or(0, str::len))
            + optional("ext", self.ext.expose().len())
    }
}

fn within_limit(length: usize) -> Result<(), HawkError> {
    if length > MAX_AUTHORIZATION_CHARS {
        return Err(HawkError::TooLong { length });
    }
    Ok(())
}

/// Base64 of `{"certificate": {…}, "authorizedScopes": […]}`, the `ext` that Taskcluster
/// expects (`docs/design/taskcluster.md`, "Temporary credentials"); empty without either.
fn ext(
    certificate: Option<&Certificate>,
    scopes: Option<&[String]>,
) -> Result<SecretString, HawkError> {
    let scopes = scopes
        .map(serde_json::to_string)
        .transpose()
        .map_err(|_| HawkError::Unrepresentable("authorized scopes"))?;
    if certificate.is_none() && scopes.is_none() {
        return Ok(SecretString::new(String::new()));
    }
    let certificate = certificate.map_or("", Certificate::as_json);
    let scopes = scopes.as_deref().unwrap_or_default();
    // Allocated in full, because growing would leave copies behind that are not zeroized.
    let mut json = Zeroizing::new(String::with_capacity(certificate.len() + scopes.len() + 64));
    json.push('{');
    if !certificate.is_empty() {
        json.push_str("\"certificate\":");
        json.push_str(certificate);
    }
    if !scopes.is_empty() {
        json.push_str(if certificate.is_empty() { "" } else { "," });
        json.push_str("\"authorizedScopes\":");
        json.push_str(scopes);
    }
    json.push('}');
    let mut encoded = String::with_capacity(json.len().div_ceil(3) * 4);
    STANDARD.encode_string(json.as_bytes(), &mut encoded);
    Ok(SecretString::new(encoded))
}

/// See [`Signer::ext_secrets`]. An `ext` with scopes only has no secrets.
fn ext_secrets(ext: &SecretString) -> Vec<SecretString> {
    if ext.expose().is_empty() {
        return Vec::new();
    }
    let json = STANDARD.decode(ext.expose()).map(Zeroizing::new);
    let parsed = json
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok());
    let parsed: Value = parsed.unwrap_or_default();
    let certificate = match (&parsed, parsed.get("certificate")) {
        (Value::Object(_), None) => return Vec::new(),
        (_, certificate) => certificate,
    };
    let part = |name: &str| certificate?.get(name)?.as_str().map(SecretString::from);
    let parts = ["seed", "signature"].into_iter().filter_map(part);
    std::iter::once(ext.clone()).chain(parts).collect()
}

/// Where the MAC is in a value that [`Signer::authorization`] returned.
pub fn mac_in(value: &[u8]) -> Range<usize> {
    let end = value.len().saturating_sub(1);
    end.saturating_sub(MAC_CHARS)..end
}

/// A fresh nonce in base64url. It only has to be unique, since the MAC is what authenticates
/// the request; so each thread draws 64 random bits once and then counts. Drawing random bits
/// for every nonce would cost as much as the MAC. Empty if the random number generator fails;
/// [`Signer::authorization`] rejects an empty nonce.
pub fn nonce() -> String {
    thread_local! {
        static LAST: Cell<Option<([u8; 8], u32)>> = const { Cell::new(None) };
    }
    let next = LAST
        .get()
        .and_then(|(drawn, count)| Some((drawn, count.checked_add(1)?)));
    let fresh = || {
        let mut drawn = [0; 8];
        let filled = SystemRandom::new().fill(&mut drawn);
        filled.ok().map(|()| (drawn, 0))
    };
    let Some((drawn, count)) = next.or_else(fresh) else {
        return String::new();
    };
    LAST.set(Some((drawn, count)));
    let mut bytes = [0; NONCE_BYTES];
    bytes[..8].copy_from_slice(&drawn);
    bytes[8..].copy_from_slice(&count.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests;
