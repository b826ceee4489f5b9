//! Whose credential it is: the cache's key, a keyed hash from which nothing can be read
//! back and in which no two callers can meet (identity.md §B; pomerium PR#6165).

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{CredentialSource, FetchError, SwapRequest};
use crate::token::Caller;

/// One identity at one source.
pub(super) type Identity = [u8; 32];

/// The random HMAC-SHA256 key of one [`super::Source`]; never leaves the process.
#[derive(Clone)]
pub struct IdentityKey(hmac::Key);

/// The system gives no randomness; nothing must start without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct RandomnessError;

impl IdentityKey {
    /// A fresh key, from the system itself: the library's own generator takes 60 ms of
    /// processor time to begin with, which nobody needs to wait for when hawkgate starts.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self, RandomnessError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut key[..]).map_err(|_| RandomnessError)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key[..])))
    }

    /// Begins one identity.
    pub fn hasher(&self) -> IdentityHasher {
        IdentityHasher(hmac::Context::with_key(&self.0))
    }

    /// The identity of `request`'s caller at `source`, called `name`. The subject is always
    /// part of it, a token never; but for sources that give every caller the same
    /// ([`CredentialSource::is_shared`]).
    pub(super) fn identify(
        &self,
        name: &str,
        source: &dyn CredentialSource,
        request: &SwapRequest,
    ) -> Result<Identity, FetchError> {
        let mut hasher = self.hasher();
        hasher.part(name.as_bytes());
        if source.is_shared() {
            hasher.part(b"everybody");
            hasher.set(request.scopes.as_deref());
        } else {
            hasher.caller(&request.caller);
            hasher.list(request.scopes.as_deref());
        }
        source.identity(request, &mut hasher)?;
        Ok(hasher.finish())
    }
}

impl std::fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdentityKey([redacted])")
    }
}

/// Collects the parts of an identity. Each part goes in behind its length, so that parts
/// cannot run into each other.
pub struct IdentityHasher(hmac::Context);

impl IdentityHasher {
    /// Adds one part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a part that may be missing; missing is not the same as empty.
    pub fn optional(&mut self, bytes: Option<&[u8]>) {
        self.part(&[u8::from(bytes.is_some())]);
        self.part(bytes.unwrap_or_default());
    }

    /// Adds a list that may be missing; missing is not the same as empty.
    pub fn list(&mut self, items: Option<&[String]>) {
        let count = items.map(|items| (items.len() as u64).to_le_bytes());
        self.optional(count.as_ref().map(<[u8; 8]>::as_slice));
        for item in items.unwrap_or_default() {
            self.part(item.as_bytes());
        }
    }

    /// As [`Self::list`], where the order means nothing.
    fn set(&mut self, items: Option<&[String]>) {
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
        identity.copy_from_slice(self.0.sign().as_ref());
        identity
    }

    fn caller(&mut self, caller: &Caller) {
        match caller {
            Caller::Verified(token) => {
                self.part(b"verified");
                self.part(token.issuer().as_bytes());
                self.part(token.subject().as_bytes());
                self.optional(token.client().map(str::as_bytes));
            }
            // Nothing is known of an opaque token but itself: it is its own subject.
            Caller::Delegated { issuer, digest } => {
                self.part(b"delegated");
                self.part(issuer.as_bytes());
                self.part(&digest.0);
            }
            // Whoever does not know the password never meets what was had with it.
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
