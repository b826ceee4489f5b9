//! Verified identities of callers.

use std::net::IpAddr;
use std::sync::Arc;

use super::extensions::{self, Extensions};
use super::{BasicCredentials, TokenDigest};
use crate::bounded_cache::heap_size;
use crate::clock::UnixMillis;

/// A token that has passed every check of its issuer. Only verification can construct one.
#[derive(Debug)]
pub struct VerifiedToken {
    pub(super) issuer: Arc<str>,
    pub(super) subject: String,
    pub(super) client: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) permissions: Vec<String>,
    pub(super) expires_at: UnixMillis,
    pub(super) accepted_until: UnixMillis,
    pub(super) claims: serde_json::Map<String, serde_json::Value>,
    pub(super) digest: TokenDigest,
    pub(super) extensions: Extensions,
}

impl VerifiedToken {
    /// A token of `issuer` with these claims, as if verified.
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
            accepted_until: UnixMillis(i64::MAX),
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
    /// `client_id`, otherwise `azp`.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }
    /// `scope`, split into its values.
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
    /// When the token stops being accepted: at `exp`, plus the leeway that its issuer allows. If an
    /// introspection response has no `exp`, when its issuer would be asked again.
    pub fn accepted_until(&self) -> UnixMillis {
        self.accepted_until
    }
    /// All claims.
    pub fn claims(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.claims
    }
    /// The token's keyed hash.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }
    /// The memory that the token takes, in bytes, with what it may have as [`Self::extensions`].
    pub(super) fn heap_size(&self) -> usize {
        let Self {
            issuer: _,
            subject,
            client,
            scopes,
            permissions,
            expires_at: _,
            accepted_until: _,
            claims,
            digest: _,
            extensions: _,
        } = self;
        size_of::<Self>()
            + heap_size::string(subject)
            + client.as_deref().map_or(0, heap_size::string)
            + heap_size::strings(scopes)
            + heap_size::strings(permissions)
            + heap_size::json_object(claims)
            + extensions::MAX_BYTES
    }
    /// Values derived from the token, which are dropped with it.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

#[cfg(test)]
impl VerifiedToken {
    /// A token without claims, as if verified.
    pub(crate) fn for_tests(issuer: &str, subject: &str, client: Option<&str>) -> Self {
        Self {
            issuer: issuer.into(),
            subject: subject.to_owned(),
            client: client.map(str::to_owned),
            scopes: Vec::new(),
            permissions: Vec::new(),
            expires_at: UnixMillis(i64::MAX),
            accepted_until: UnixMillis(i64::MAX),
            claims: serde_json::Map::new(),
            digest: TokenDigest([0; 32]),
            extensions: Extensions::default(),
        }
    }

    /// The same token with another `exp`.
    pub(crate) fn until(mut self, expires_at: UnixMillis) -> Self {
        self.expires_at = expires_at;
        self.accepted_until = expires_at;
        self
    }
}

/// A client of a Taskcluster deployment, on whose behalf a user signed in with a browser.
#[derive(Debug)]
pub struct SignedInClient {
    session: Arc<str>,
    accepted_until: UnixMillis,
    claims: serde_json::Map<String, serde_json::Value>,
    client_id: String,
}

impl SignedInClient {
    /// The client `client_id`, signed in through the `[[session]]` called `session` with credentials
    /// that can be used until then.
    pub fn new(session: Arc<str>, client_id: &str, accepted_until: UnixMillis) -> Self {
        let claims = [("clientId".to_owned(), client_id.into())];
        Self {
            session,
            accepted_until,
            claims: claims.into_iter().collect(),
            client_id: client_id.to_owned(),
        }
    }

    /// The configured name of the `[[session]]`.
    pub fn session(&self) -> &Arc<str> {
        &self.session
    }
    /// The clientId that the deployment named when the user signed in.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }
    /// When its credentials can no longer be used.
    pub fn accepted_until(&self) -> UnixMillis {
        self.accepted_until
    }
    /// What rules see as claims: `clientId`.
    pub fn claims(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.claims
    }
}

/// The sender of a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A caller with a verified token.
    Verified(Arc<VerifiedToken>),
    /// A caller whose session has the credentials of this client.
    Client(Arc<SignedInClient>),
    /// A caller with an opaque token, which the credential exchange will verify.
    Delegated {
        /// The configured name of the `delegated` issuer.
        issuer: Arc<str>,
        /// The token's keyed hash.
        digest: TokenDigest,
        /// The client's address; `None` on Unix sockets. Not part of the identity.
        peer: Option<IpAddr>,
    },
    /// A caller with a username and password, which the credential exchange will verify.
    Password {
        /// The credentials as sent.
        credentials: Arc<BasicCredentials>,
        /// The peer's address; `None` on Unix sockets.
        peer: Option<IpAddr>,
    },
    /// A caller without credentials, on a route with `anonymous = true` (loopback only).
    Anonymous,
}
