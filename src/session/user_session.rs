//! One user's session.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::clock::{Now, UnixMillis};
use crate::credential::Lease;
use crate::hawk::Credentials;
use crate::secret::{KEY_BYTES, SecretString};
use crate::shared_store::{GenerationId, StoreKey};
use crate::token::BearerToken;

/// One user's session. `Debug` shows no token.
#[derive(Clone)]
pub struct UserSession {
    /// Random; stays the same until the session ends. A new one at each sign-in.
    pub id: SessionId,
    /// Counts renewals.
    pub generation: u32,
    /// What the session is good for.
    pub grant: SessionGrant,
    /// `sub`, or the clientId.
    pub subject: String,
    /// `name`, if the provider says.
    pub name: Option<String>,
    /// `email`, if the provider says.
    pub email: Option<String>,
    /// `sid` of the ID token: the provider's name for its session.
    pub provider_session: Option<String>,
    /// When the user signed in.
    pub signed_in_at: UnixMillis,
    /// The end of `lifetime`.
    pub expires_at: UnixMillis,
    /// The end of `idle`, unless the session is used before.
    pub idle_expires_at: UnixMillis,
    /// From when on the access token is renewed; `None` if it cannot be, or never expires.
    pub renew_at: Option<UnixMillis>,
    /// Where it is in the shared store, if it is there.
    pub(super) entry: Option<Arc<StoreEntry>>,
}

/// The entry of a session in the shared store.
pub(super) struct StoreEntry {
    pub(super) key: StoreKey,
    /// The half of the record's key that only the cookie has.
    pub(super) half: Zeroizing<[u8; KEY_BYTES]>,
    /// What the session was read as, or written as.
    pub(super) generation: GenerationId,
}

/// What a session is good for.
#[derive(Clone)]
pub enum SessionGrant {
    /// Tokens of an OpenID provider.
    Oidc {
        /// Verified by the session's issuer for each request, like any bearer token.
        access_token: BearerToken,
        /// When it expires; `None` if the provider did not say.
        access_token_expires_at: Option<UnixMillis>,
        /// Renews it.
        refresh_token: Option<SecretString>,
        /// Kept for the provider's logout if it fits into the cookie.
        id_token: Option<SecretString>,
    },
    /// Credentials of a Taskcluster deployment, leased to requests as they are.
    Taskcluster {
        /// The credentials with their `Lease`.
        lease: Lease,
        /// The credentials, to be sealed again.
        credentials: Credentials,
        /// When they expire.
        expires_at: UnixMillis,
    },
}

/// 128 random bits. Not a secret, but not logged either: the log has a digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl UserSession {
    pub(super) fn access_token_expires_at(&self) -> Option<UnixMillis> {
        match &self.grant {
            SessionGrant::Oidc {
                access_token_expires_at,
                ..
            } => *access_token_expires_at,
            SessionGrant::Taskcluster { .. } => None,
        }
    }

    pub(super) fn refresh_token(&self) -> Option<&SecretString> {
        match &self.grant {
            SessionGrant::Oidc { refresh_token, .. } => refresh_token.as_ref(),
            SessionGrant::Taskcluster { .. } => None,
        }
    }

    pub(super) fn id_token(&self) -> Option<&SecretString> {
        match &self.grant {
            SessionGrant::Oidc { id_token, .. } => id_token.as_ref(),
            SessionGrant::Taskcluster { .. } => None,
        }
    }

    /// Whether the access token has not expired as far as is known.
    pub(super) fn has_valid_token(&self, now: Now) -> bool {
        self.access_token_expires_at()
            .is_none_or(|at| now.wall < at)
    }

    /// Whether the access token is to be renewed before it expires.
    pub fn is_renewal_due(&self, now: Now) -> bool {
        !self.has_valid_token(now) || self.renew_at.is_some_and(|at| now.wall >= at)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

impl fmt::Debug for SessionGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oidc { .. } => "Oidc([redacted])",
            Self::Taskcluster { .. } => "Taskcluster([redacted])",
        })
    }
}

impl fmt::Debug for UserSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSession")
            .field("subject", &self.subject)
            .field("generation", &self.generation)
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}
