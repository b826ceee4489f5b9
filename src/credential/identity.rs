//! The cache key: a keyed hash of everything that makes one caller's credential different
//! from another's. It cannot be reversed, and no two callers can collide on purpose
//! (`docs/design/cache.md`).

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::circuit_breaker::Origin;
use crate::token::{BearerToken, Caller, TokenDigest};

/// Identifies one caller at one source.
pub(super) type Identity = [u8; 32];

/// The HMAC-SHA256 key of one [`super::CachedSource`]: a random one, which never leaves the process, or
/// one that the replicas of a fleet have in common.
#[derive(Clone)]
pub struct IdentityKey {
    key: hmac::Key,
    tokens: TokenParts,
}

/// How a token becomes a part of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenParts {
    /// By its digest, under a random key of this process.
    Digest,
    /// By its text, because other replicas have other digests.
    Text,
}

/// The operating system could not supply random bytes. hawkgate must not start without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct RandomnessError;

impl IdentityKey {
    /// A fresh key. It comes directly from the operating system, because seeding the
    /// cryptographic library's own generator takes 60 ms of CPU time, which would delay
    /// start-up.
    ///
    /// # Errors
    /// If the operating system cannot supply random bytes.
    pub fn random() -> Result<Self, RandomnessError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut key[..]).map_err(|_| RandomnessError)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key[..]),
            tokens: TokenParts::Digest,
        })
    }

    /// A key that other replicas have as well.
    pub(super) fn of_fleet(key: hmac::Key) -> Self {
        Self {
            key,
            tokens: TokenParts::Text,
        }
    }

    /// Who causes an exchange for `caller`. A verified caller speaks for itself, whatever tokens
    /// it has; others may be anybody, so they count by address.
    pub(super) fn origin(&self, caller: &Caller) -> Origin {
        match caller {
            Caller::Verified(token) => {
                let mut hasher = self.hasher();
                hasher.part(b"origin");
                hasher.part(token.issuer().as_bytes());
                hasher.part(token.subject().as_bytes());
                Origin::Subject(hasher.finish())
            }
            Caller::Client(client) => {
                let mut hasher = self.hasher();
                hasher.part(b"client");
                hasher.part(client.session().as_bytes());
                hasher.part(client.client_id().as_bytes());
                Origin::Subject(hasher.finish())
            }
            Caller::Delegated { peer, .. } | Caller::Password { peer, .. } => {
                Origin::of_peer(*peer)
            }
            Caller::Anonymous => Origin::Local,
        }
    }

    /// A hasher for one identity.
    pub fn hasher(&self) -> IdentityHasher {
        IdentityHasher {
            context: hmac::Context::with_key(&self.key),
            tokens: self.tokens,
            lacks_token: false,
        }
    }
}

impl std::fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdentityKey([redacted])")
    }
}

/// Hashes the parts of an identity. Each part is prefixed with its length, so that no two
/// sequences of parts can hash alike by being split differently.
pub struct IdentityHasher {
    context: hmac::Context,
    tokens: TokenParts,
    /// Whether a token was to be added by its text, which is not known.
    lacks_token: bool,
}

impl IdentityHasher {
    /// Adds one part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.context.update(&(bytes.len() as u64).to_le_bytes());
        self.context.update(bytes);
    }

    /// Adds a token, whose digest and, if it is at hand, text are given.
    pub fn token(&mut self, digest: TokenDigest, token: Option<&BearerToken>) {
        match (self.tokens, token) {
            (TokenParts::Digest, _) => self.part(&digest.0),
            (TokenParts::Text, Some(token)) => self.part(token.expose().as_bytes()),
            (TokenParts::Text, None) => self.lacks_token = true,
        }
    }

    /// Adds a part that may be absent; absent differs from empty.
    pub fn optional(&mut self, bytes: Option<&[u8]>) {
        self.part(&[u8::from(bytes.is_some())]);
        self.part(bytes.unwrap_or_default());
    }

    /// Adds a list that may be absent; absent differs from empty.
    pub fn list(&mut self, items: Option<&[String]>) {
        let count = items.map(|items| (items.len() as u64).to_le_bytes());
        self.optional(count.as_ref().map(<[u8; 8]>::as_slice));
        for item in items.unwrap_or_default() {
            self.part(item.as_bytes());
        }
    }

    /// Like [`Self::list`], ignoring the order of the items.
    pub(super) fn set(&mut self, items: Option<&[String]>) {
        match items {
            Some(items) if items.len() > 1 => {
                let mut sorted = items.to_vec();
                sorted.sort_unstable();
                self.list(Some(&sorted));
            }
            _ => self.list(items),
        }
    }

    /// The identity.
    pub fn finish(self) -> [u8; 32] {
        let mut identity = [0; 32];
        identity.copy_from_slice(self.context.sign().as_ref());
        identity
    }

    /// Like [`Self::finish`]; `None` if a part was missing.
    pub(super) fn finish_complete(self) -> Option<Identity> {
        (!self.lacks_token).then(|| self.finish())
    }

    /// Adds `caller`, who presented `token`.
    pub(super) fn caller(&mut self, caller: &Caller, token: Option<&BearerToken>) {
        match caller {
            Caller::Verified(token) => {
                self.part(b"verified");
                self.part(token.issuer().as_bytes());
                self.part(token.subject().as_bytes());
                self.optional(token.client().map(str::as_bytes));
            }
            Caller::Client(client) => {
                self.part(b"client");
                self.part(client.session().as_bytes());
                self.part(client.client_id().as_bytes());
            }
            // An opaque token reveals no subject, so its digest is used instead.
            Caller::Delegated { issuer, digest, .. } => {
                self.part(b"delegated");
                self.part(issuer.as_bytes());
                self.token(*digest, token);
            }
            // With the password in the key, a caller who does not know it can never reach a
            // credential that was issued for it.
            Caller::Password { credentials, .. } => {
                self.part(b"password");
                self.part(credentials.username().as_bytes());
                self.part(credentials.password().expose().as_bytes());
            }
            Caller::Anonymous => self.part(b"anonymous"),
        }
    }
}

impl std::fmt::Debug for IdentityHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdentityHasher(..)")
    }
}
