//! The token that a connection presented last, so that a caller who sends the same one with request
//! after request costs a comparison instead of a keyed hash and a look-up in a cache.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::bearer::bearer_text;
use super::cache::CachedToken;
use super::issuer::{CacheHit, find_cached};
use super::{Authenticated, BearerToken, DEFAULT_TOKEN_BYTES, Issuer, PresentedToken, TokenDigest};
use crate::clock::Now;
use crate::header_fields::HeaderFields;

/// How long a token is recognised without a look-up. Then the cache is consulted again, which records
/// that the token is in use. Otherwise tokens that are used once could displace it.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Remembers the token that a connection presented last. Everything that a cache hit depends on is
/// checked again for each request: that the route has the issuer that verified it, that the issuer's
/// keys are the same, and that the token has not expired. What was verified belongs to the cache: the
/// reference to it is weak, so that a connection holds no memory that the cache has given up.
///
/// Connections of an HTTP proxy have several callers. The memo has one token, which is recognised only
/// by all of its bytes, compared in constant time, so that none of them learns another's. It is stored
/// as soon as it has been presented twice in a row, and wiped when it is replaced or the connection
/// closes. A token that was not verified is never stored, so the memory, at most
/// [`DEFAULT_TOKEN_BYTES`] for each connection, is used by authenticated callers only. Larger tokens,
/// if `limits.token_bytes` allows any, are looked up each time.
#[derive(Default)]
pub struct TokenMemo(State);

#[derive(Default)]
enum State {
    #[default]
    Empty,
    /// A token that was presented once.
    Seen(TokenDigest),
    Known(Box<Known>),
}

struct Known {
    bearer: BearerToken,
    issuer: Weak<Issuer>,
    cached: Weak<CachedToken>,
    /// Monotonic time.
    until: Duration,
}

impl Known {
    /// The caller, if one of `issuers` would find the token in its cache at `now`.
    fn authenticated(&self, issuers: &[Arc<Issuer>], now: Now) -> Option<Authenticated> {
        let is_same = |issuer: &&Arc<Issuer>| Arc::as_ptr(issuer) == self.issuer.as_ptr();
        let issuer = issuers.iter().find(is_same)?;
        let cached = self.cached.upgrade()?;
        issuer
            .accepts(&cached, now)
            .then(|| Authenticated::cached(&cached))
    }
}

impl TokenMemo {
    /// The caller, if the request has the token that is remembered, and one of `issuers` would have
    /// found it in its cache at `now`. Also returns the token itself, of which no copy need be made.
    pub fn recall(
        &self,
        headers: &dyn HeaderFields,
        issuers: &[Arc<Issuer>],
        now: Now,
    ) -> Option<(Authenticated, &BearerToken)> {
        let State::Known(known) = &self.0 else {
            return None;
        };
        let text = bearer_text(headers).ok()??;
        if now.monotonic >= known.until || !known.bearer.is(text) {
            return None;
        }
        known
            .authenticated(issuers, now)
            .map(|caller| (caller, &known.bearer))
    }

    /// Like [`TokenMemo::recall`], for a token that did not come in a header field.
    pub fn recall_token(
        &self,
        token: PresentedToken<'_>,
        issuers: &[Arc<Issuer>],
        now: Now,
    ) -> Option<Authenticated> {
        let State::Known(known) = &self.0 else {
            return None;
        };
        if now.monotonic >= known.until || known.bearer.digest() != token.digest() {
            return None;
        }
        known.authenticated(issuers, now)
    }

    /// The caller that `token` identifies, if one of `issuers` has it in its cache: the usual case of
    /// [`authenticate`](super::authenticate). Remembers the token.
    pub fn look_up(
        &mut self,
        token: PresentedToken<'_>,
        issuers: &[Arc<Issuer>],
        now: Now,
    ) -> Option<Authenticated> {
        let hit = find_cached(token, issuers, Some(now))?;
        let authenticated = Authenticated::cached(&hit.cached);
        if token.size() <= DEFAULT_TOKEN_BYTES {
            self.remember(token, &hit, now);
        } else {
            self.0 = State::Empty;
        }
        Some(authenticated)
    }

    fn remember(&mut self, token: PresentedToken<'_>, hit: &CacheHit<'_>, now: Now) {
        let bearer = match std::mem::take(&mut self.0) {
            State::Known(known) if known.bearer.digest() == token.digest() => known.bearer,
            State::Seen(digest) if digest == token.digest() => token.to_bearer(),
            _ => {
                self.0 = State::Seen(token.digest());
                return;
            }
        };
        self.0 = State::Known(Box::new(Known {
            bearer,
            issuer: Arc::downgrade(hit.issuer),
            cached: Arc::downgrade(&hit.cached),
            until: now.monotonic.saturating_add(MAX_AGE),
        }));
    }
}

impl fmt::Debug for TokenMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenMemo(..)")
    }
}

#[cfg(test)]
mod tests;
