//! Proof that a caller is who it says.

use std::net::IpAddr;
use std::sync::Arc;

use super::extensions::Extensions;
use super::{BasicCredentials, TokenDigest};
use crate::clock::UnixMillis;

/// A token that passed every check of its issuer. There is no other constructor than
/// verification.
#[derive(Debug)]
pub struct VerifiedToken {
    pub(super) issuer: Arc<str>,
    pub(super) subject: String,
    pub(super) client: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) permissions: Vec<String>,
    pub(super) expires_at: UnixMillis,
    pub(super) claims: serde_json::Map<String, serde_json::Value>,
    pub(super) digest: TokenDigest,
    pub(super) extensions: Extensions,
}

impl VerifiedToken {
    /// As if `issuer` had vouched for `claims`; for tests of what comes after verification.
    #[cfg(test)]
    pub(crate) fn for_test(issuer: &str, claims: serde_json::Value) -> Arc<Self> {
        let serde_json::Value::Object(claims) = claims else {
            panic!("claims are an object")
        };
        Arc::new(Self {
            issuer: issuer.into(),
            subject: claims
                .get("sub")
                .and_then(|s| s.as_str())
                .unwrap_or_default()
                .into(),
            client: None,
            scopes: Vec::new(),
            permissions: Vec::new(),
            expires_at: UnixMillis(i64::MAX),
            claims,
            digest: TokenDigest([0; 32]),
            extensions: Extensions::default(),
        })
    }

    /// The configured name of the issuer.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }
    /// `sub`.
    pub fn subject(&self) -> &str {
        &self.subject
    }
    /// `client_id`, else `azp`.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }
    /// `scope`, split.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }
    /// Auth0's `permissions`.
    pub fn permissions(&self) -> &[String] {
        &self.permissions
    }
    /// `exp`, without leeway.
    pub fn expires_at(&self) -> UnixMillis {
        self.expires_at
    }
    /// Every claim, by exact name.
    pub fn claims(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.claims
    }
    /// The token's keyed hash.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }
    /// What was concluded from it; dies with it.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

#[cfg(test)]
impl VerifiedToken {
    /// As if verified; there is no such way outside unit tests.
    pub(crate) fn for_tests(issuer: &str, subject: &str, client: Option<&str>) -> Self {
        Self {
            issuer: issuer.into(),
            subject: subject.to_owned(),
            client: client.map(str::to_owned),
            scopes: Vec::new(),
            permissions: Vec::new(),
            expires_at: UnixMillis(i64::MAX),
            claims: serde_json::Map::new(),
            digest: TokenDigest([0; 32]),
            extensions: Extensions::default(),
        }
    }

    /// The same, with this `exp`.
    pub(crate) fn until(mut self, expires_at: UnixMillis) -> Self {
        self.expires_at = expires_at;
        self
    }
}

/// Who stands behind a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A token that an issuer's keys prove.
    Verified(Arc<VerifiedToken>),
    /// An opaque token: the exchange will be the check.
    Delegated {
        /// The configured name of the `delegated` issuer.
        issuer: Arc<str>,
        /// The token's keyed hash.
        digest: TokenDigest,
    },
    /// A username and password: the exchange will be the check.
    Password {
        /// As sent.
        credentials: Arc<BasicCredentials>,
        /// The connected peer; none on Unix sockets.
        peer: Option<IpAddr>,
    },
    /// A route that asks for nobody (`anonymous = true`, loopback only).
    Anonymous,
}
