//! What the provider remembers: sign-ins in progress, authorization codes, and the grants of users
//! who have signed in. All of it is bounded, in memory, and found by digests of secrets.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

use super::users::{User, equal};
use crate::clock::{SharedClock, UnixMillis};
use crate::demo::random::random;
use crate::demo::{DemoError, SCOPE};

/// Maximum number of sign-ins in progress, of codes, and of grants. The oldest gives way.
const MAX_ENTRIES: usize = 256;
/// How long the user may take to sign in.
const SIGN_IN_LIFETIME: Duration = Duration::from_mins(10);
/// How long a code is valid (RFC 6749 §4.1.2 recommends at most 10 minutes).
const CODE_LIFETIME: Duration = Duration::from_mins(1);
/// How long a grant can be refreshed.
const GRANT_LIFETIME: Duration = Duration::from_hours(8);
/// How many wrong passwords end a sign-in.
const MAX_FAILURES: u8 = 5;

/// Known scopes, with what they mean for the user. Others are ignored (OpenID Connect Core
/// §3.1.2.1).
pub(super) const SCOPES: [(&str, &str); 5] = [
    ("openid", "know who you are"),
    ("profile", "see your name"),
    ("email", "see your email address"),
    (SCOPE, "call the API on your behalf"),
    ("offline_access", "stay signed in while you are away"),
];

/// A valid authorization request, as it waits for the user.
#[derive(Clone, Debug)]
pub(super) struct AuthorizationRequest {
    pub(super) client_id: &'static str,
    pub(super) redirect_uri: String,
    pub(super) state: String,
    pub(super) nonce: String,
    /// PKCE with S256 (RFC 7636).
    pub(super) code_challenge: String,
    /// The granted ones of the requested scopes.
    pub(super) scopes: Vec<&'static str>,
}

/// What a user has granted to a client.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) client_id: &'static str,
    pub(super) user: &'static User,
    pub(super) scopes: Vec<&'static str>,
    /// `sid` in the tokens.
    pub(super) sid: String,
    pub(super) signed_in_at: UnixMillis,
}

impl Grant {
    pub(super) fn has(&self, scope: &str) -> bool {
        self.scopes.contains(&scope)
    }
}

/// A grant, with the tokens to issue for it.
pub(super) struct Issue {
    pub(super) grant: Grant,
    /// For the ID token; `None` for a refresh.
    pub(super) nonce: Option<String>,
    /// The new refresh token, with the scope `offline_access`.
    pub(super) refresh_token: Option<String>,
}

/// Entries that expire, found by a secret.
struct Expiring<T>(VecDeque<Entry<T>>);

struct Entry<T> {
    digest: Digest,
    expires_at: UnixMillis,
    value: T,
}

struct Pending {
    request: AuthorizationRequest,
    failures: u8,
}

struct Code {
    request: AuthorizationRequest,
    user: &'static User,
    signed_in_at: UnixMillis,
    /// The grant for which it was redeemed.
    redeemed_for: Option<String>,
}

/// A grant, and the digest of the last part of its only valid refresh token.
struct Family {
    grant: Grant,
    current: Digest,
}

struct State {
    pending: Expiring<Pending>,
    codes: Expiring<Code>,
    families: Expiring<Family>,
}

pub(super) struct Grants {
    clock: SharedClock,
    state: Mutex<State>,
}

fn hash(secret: &str) -> Digest {
    digest(&SHA256, secret.as_bytes())
}

fn same(left: &Digest, right: &Digest) -> bool {
    verify_slices_are_equal(left.as_ref(), right.as_ref()).is_ok()
}

impl<T> Expiring<T> {
    fn new() -> Self {
        Self(VecDeque::new())
    }

    fn insert(&mut self, secret: &str, value: T, expires_at: UnixMillis) {
        while self.0.len() >= MAX_ENTRIES {
            self.0.pop_front();
        }
        let digest = hash(secret);
        self.0.push_back(Entry {
            digest,
            expires_at,
            value,
        });
    }

    fn get(&mut self, secret: &str, now: UnixMillis) -> Option<&mut T> {
        self.0.retain(|entry| entry.expires_at > now);
        let digest = hash(secret);
        let found = self.0.iter_mut().find(|entry| same(&entry.digest, &digest));
        found.map(|entry| &mut entry.value)
    }

    fn remove(&mut self, secret: &str) {
        let digest = hash(secret);
        self.0.retain(|entry| !same(&entry.digest, &digest));
    }
}

impl Grants {
    pub(super) fn new(clock: SharedClock) -> Self {
        let state = State {
            pending: Expiring::new(),
            codes: Expiring::new(),
            families: Expiring::new(),
        };
        Self {
            clock,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a request until the user has signed in. Returns the secret that the sign-in form
    /// contains.
    pub(super) fn begin(&self, request: AuthorizationRequest) -> Result<String, DemoError> {
        let id = random()?;
        let pending = Pending {
            request,
            failures: 0,
        };
        let expires_at = self.clock.now().plus(SIGN_IN_LIFETIME);
        self.state().pending.insert(&id, pending, expires_at);
        Ok(id)
    }

    /// Returns the request of a sign-in in progress.
    pub(super) fn pending(&self, id: &str) -> Option<AuthorizationRequest> {
        let now = self.clock.now();
        Some(self.state().pending.get(id, now)?.request.clone())
    }

    /// Records a wrong password. Returns whether the user may try again.
    pub(super) fn fail(&self, id: &str) -> bool {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(pending) = state.pending.get(id, now) else {
            return false;
        };
        pending.failures += 1;
        if pending.failures < MAX_FAILURES {
            return true;
        }
        state.pending.remove(id);
        false
    }

    /// Ends a sign-in without a code.
    pub(super) fn cancel(&self, id: &str) {
        self.state().pending.remove(id);
    }

    /// Ends a sign-in with a code for `user`. `None` if it is no longer in progress.
    pub(super) fn grant_code(
        &self,
        id: &str,
        user: &'static User,
    ) -> Result<Option<String>, DemoError> {
        let (code, now) = (random()?, self.clock.now());
        let mut state = self.state();
        let Some(pending) = state.pending.get(id, now) else {
            return Ok(None);
        };
        let granted = Code {
            request: pending.request.clone(),
            user,
            signed_in_at: now,
            redeemed_for: None,
        };
        state.pending.remove(id);
        state.codes.insert(&code, granted, now.plus(CODE_LIFETIME));
        Ok(Some(code))
    }

    /// Redeems a code, once. A second attempt ends the grant of the first: one of the two had
    /// stolen the code (RFC 6749 §4.1.2). `None` stands for `invalid_grant`.
    pub(super) fn redeem(
        &self,
        code: &str,
        client_id: &str,
        redirect_uri: &str,
        code_verifier: &str,
    ) -> Result<Option<Issue>, DemoError> {
        let (family, token, sid) = (random()?, random()?, random()?);
        let now = self.clock.now();
        let state = &mut *self.state();
        let Some(found) = state.codes.get(code, now) else {
            return Ok(None);
        };
        if let Some(earlier) = found.redeemed_for.replace(family.clone()) {
            state.families.remove(&earlier);
            return Ok(None);
        }
        let request = &found.request;
        let valid = request.client_id == client_id
            && request.redirect_uri == redirect_uri
            && equal(&challenge(code_verifier), &request.code_challenge);
        if !valid {
            return Ok(None);
        }
        let grant = Grant {
            client_id: request.client_id,
            user: found.user,
            scopes: request.scopes.clone(),
            sid,
            signed_in_at: found.signed_in_at,
        };
        let nonce = Some(request.nonce.clone());
        let refresh_token = grant
            .has("offline_access")
            .then(|| format!("{family}.{token}"));
        let kept = Family {
            grant: grant.clone(),
            current: hash(&token),
        };
        let expires_at = now.plus(GRANT_LIFETIME);
        state.families.insert(&family, kept, expires_at);
        Ok(Some(Issue {
            grant,
            nonce,
            refresh_token,
        }))
    }

    /// Exchanges a refresh token for a new one. A token that was exchanged before ends the grant:
    /// it is in two hands (RFC 9700 §4.14.2). `None` stands for `invalid_grant`.
    pub(super) fn refresh(
        &self,
        refresh_token: &str,
        client_id: &str,
    ) -> Result<Option<Issue>, DemoError> {
        let Some((family, token)) = refresh_token.split_once('.') else {
            return Ok(None);
        };
        let (next, now) = (random()?, self.clock.now());
        let mut state = self.state();
        let Some(found) = state.families.get(family, now) else {
            return Ok(None);
        };
        if !same(&hash(token), &found.current) || found.grant.client_id != client_id {
            state.families.remove(family);
            return Ok(None);
        }
        found.current = hash(&next);
        Ok(Some(Issue {
            grant: found.grant.clone(),
            nonce: None,
            refresh_token: Some(format!("{family}.{next}")),
        }))
    }

    /// Ends the grant of a refresh token (RFC 7009).
    pub(super) fn revoke(&self, refresh_token: &str) {
        if let Some((family, _)) = refresh_token.split_once('.') {
            self.state().families.remove(family);
        }
    }

    /// Ends the grant with this `sid`.
    pub(super) fn end_session(&self, sid: &str) {
        let families = &mut self.state().families.0;
        families.retain(|entry| entry.value.grant.sid != sid);
    }
}

/// Returns the S256 challenge of a verifier (RFC 7636 §4.6); one that is too short or long
/// matches nothing.
fn challenge(code_verifier: &str) -> String {
    if (43..=128).contains(&code_verifier.len()) {
        BASE64URL.encode(hash(code_verifier))
    } else {
        String::new()
    }
}
