//! The `Authorization: Hawk …` header.

use std::cell::Cell;
use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::mac::{MacInput, check_attribute, check_request};
use super::{Certificate, Credentials};
use crate::clock::UnixMillis;
use crate::secret::SecretString;

/// The longest Authorization value that the auth service reads (taskcluster.md §3).
pub const MAX_AUTHORIZATION_CHARS: usize = 4096;

/// A SHA-256 MAC or hash in base64.
const MAC_CHARS: usize = 44;
/// Seconds since the epoch have ten digits until the year 2286.
const TIME_CHARS: usize = 10;
/// What a [`nonce`] is made of: 64 random bits and a count.
const NONCE_BYTES: usize = 12;
/// What [`nonce`] yields.
const NONCE_CHARS: usize = 16;

/// One request as the service will see it; every part goes into the MAC as it stands.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// When, by the *service's* clock (offset already applied). Sent as whole seconds.
    pub at: UnixMillis,
    /// Required, never checked by Taskcluster; see [`nonce`].
    pub nonce: &'a str,
    /// As sent (HEAD stays HEAD); upper-cased for the MAC.
    pub method: &'a str,
    /// Raw path and query exactly as they go on the wire: origin form, visible ASCII.
    pub target: &'a str,
    /// Host name without port; lower-cased for the MAC. An IPv6 literal with or without
    /// its brackets.
    pub host: &'a str,
    /// The port that the service computes with.
    pub port: u16,
    /// Base64 payload hash, if one is sent. hawkgate sends none.
    pub payload_hash: Option<&'a str>,
}

/// Why a header, or a bewit, cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HawkError {
    /// The value would pass [`MAX_AUTHORIZATION_CHARS`].
    #[error(
        "the Authorization header would have {length} characters; Taskcluster reads at most {MAX_AUTHORIZATION_CHARS}. Grant fewer scopes"
    )]
    TooLong {
        /// How long it would be.
        length: usize,
    },
    /// The path and query with their bewit would pass what the service reads.
    #[error(
        "the path and query with a bewit would have {length} characters; Taskcluster reads at most {max}",
        max = super::bewit::MAX_TARGET_CHARS
    )]
    TargetTooLong {
        /// How long they would be.
        length: usize,
    },
    /// The target bears a bewit already: it must be sent as it is (taskcluster.md §4).
    #[error("the query already has a bewit")]
    SecondScheme,
    /// A method or target, which the caller chose, that the service would not see as it
    /// stands here.
    #[error("the request's {0} has characters that are not signed as they stand")]
    Unsignable(&'static str),
    /// An id, key, nonce or host that is empty or cannot stand in a header.
    #[error("the {0} is empty or has characters that cannot stand in a Hawk header")]
    Unrepresentable(&'static str),
}

/// Credentials prepared for signing: the HMAC key schedule and `ext` computed once.
/// The key is wiped on drop (by the HMAC context), and so is `ext`.
pub struct Signer {
    pub(super) id: Box<str>,
    pub(super) key: hmac::Key,
    /// Empty when the header has none: an empty `ext` attribute is a 401.
    pub(super) ext: SecretString,
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
    /// When no header made with them, a ten-digit time and a nonce of [`nonce`] could be
    /// within the limit; when the id cannot stand in a header or the key is empty.
    pub fn new(credentials: &Credentials) -> Result<Self, HawkError> {
        let ext = ext(
            credentials.certificate.as_ref(),
            credentials.authorized_scopes.as_deref(),
        )?;
        Self::with_ext(&credentials.client_id, &credentials.access_token, ext)
    }

    /// With an `ext` of any form; empty for none.
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
            ext,
        };
        within_limit(signer.length(TIME_CHARS, NONCE_CHARS, None))?;
        Ok(signer)
    }

    /// What a request signed with it may do, roles unexpanded: its authorized scopes, else
    /// its certificate's. `None` when both leave that to the client itself.
    pub fn scopes(&self) -> Option<Vec<String>> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Ext {
            authorized_scopes: Option<Vec<String>>,
            certificate: Option<Certified>,
        }
        #[derive(serde::Deserialize)]
        struct Certified {
            scopes: Vec<String>,
        }
        let json = Zeroizing::new(STANDARD.decode(self.ext.expose()).ok()?);
        let ext: Ext = serde_json::from_slice(&json).ok()?;
        ext.authorized_scopes
            .or_else(|| Some(ext.certificate?.scopes))
    }

    /// The whole header value, `Hawk id="…", ts="…", nonce="…", [ext="…",] mac="…"`.
    ///
    /// # Errors
    /// When the value passes the limit or a part cannot be represented.
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

    /// How long a header is, in characters, given the lengths of what varies.
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

/// Base64 of `{"certificate": {…}, "authorizedScopes": […]}` (taskcluster.md §3), empty
/// when it would hold neither.
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
    // Room for everything from the start: growing would leave unwiped copies behind.
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

/// A fresh nonce, header-safe. All that is asked of it is to be another one each time (the
/// MAC is what proves the request), so each thread draws 64 random bits once and then
/// counts: asking the system every time costs as much as the MAC. Empty if it has no
/// randomness to give, which [`Signer::authorization`] refuses.
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
