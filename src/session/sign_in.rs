//! Signing in: the authorization request, and the callback.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use url::Url;

use super::attempt::SignInAttempt;
use super::cookie::{self, Found};
use super::seal::Purpose;
use super::shared::{SaveError, Ticket};
use super::{
    Begun, Inner, MAX_CLOCK_SKEW, ProviderError, ProviderGrant, SessionGrant, SessionId, SetCookie,
    SignInError, SignedIn, Site, SiteSecurity, UserSession, refresh,
};
use crate::clock::{Now, UnixMillis};
use crate::header_fields::HeaderFields;
use crate::shared_store::StoreError;
use crate::signin::{AuthorizationCode, AuthorizationFlow, CallbackError, LIFETIME};

/// The attempts that a browser may have at the same time, one for each tab.
const MAX_ATTEMPTS: usize = 5;

/// The cookies that one answer removes.
const MAX_REMOVALS: usize = 16;

/// The query parameter that says which attempt a callback belongs to.
const STATE: &str = "state";

impl Inner {
    pub(super) async fn begin(
        &self,
        return_to: &str,
        site: &Site,
        headers: &dyn HeaderFields,
        now: Now,
    ) -> Result<Begun, SignInError> {
        self.warn_of_http(site);
        let removed = self.superseded(headers, site.security, now);
        let endpoints = self.provider.endpoints().await.map_err(sign_in_error)?;
        let redirect_uri = self.redirect_uri(site)?;
        let flow = AuthorizationFlow::start(
            &endpoints.issuer,
            endpoints.iss_required,
            redirect_uri,
            since_epoch(now),
        );
        let flow = flow.map_err(|_| SignInError::Randomness)?;
        let client_id = &self.settings.client_id;
        let location = flow.url(&endpoints.authorization, client_id, &self.request);
        let attempt = SignInAttempt {
            flow: flow.saved().clone(),
            origin: site.origin.clone(),
            return_to: self.destination(return_to).to_owned(),
        };
        let mut cookies = vec![self.attempt_cookie(&attempt, site.security)?];
        cookies.extend(removed);
        Ok(Begun { location, cookies })
    }

    fn redirect_uri(&self, site: &Site) -> Result<Url, SignInError> {
        let uri = format!("{}{}callback", site.origin, self.settings.prefix);
        Url::parse(&uri).map_err(|_| SignInError::Malformed)
    }

    /// Where a user goes after the sign-in: not to the endpoints again.
    fn destination<'r>(&self, return_to: &'r str) -> &'r str {
        let valid = super::return_to(return_to);
        valid
            .filter(|path| !path.starts_with(&self.settings.prefix))
            .unwrap_or("/")
    }

    fn attempt_cookie(
        &self,
        attempt: &SignInAttempt,
        security: SiteSecurity,
    ) -> Result<SetCookie, SignInError> {
        let value = self.sealer.seal(Purpose::Attempt, attempt.encode());
        let value = value.map_err(|_| SignInError::Randomness)?;
        let name = self.names.attempt(security, attempt.flow.state.expose());
        let cookie = cookie::set(&name, &value, security, LIFETIME);
        let size = cookie.as_str().len();
        if size > cookie::MAX_COOKIE_BYTES {
            return Err(SignInError::TooLarge(size));
        }
        Ok(cookie)
    }

    /// The removal of attempts that are over, or too many beside a new one: the oldest first.
    fn superseded(
        &self,
        headers: &dyn HeaderFields,
        security: SiteSecurity,
        now: Now,
    ) -> Vec<SetCookie> {
        let mut attempts: Vec<_> = cookie::pairs(headers)
            .filter(|(name, _)| self.names.is_attempt(security, name))
            .take(MAX_ATTEMPTS + MAX_REMOVALS)
            .map(|(name, value)| {
                let attempt = self.unseal_attempt(value, now);
                // Those that cannot be used sort before all others.
                (attempt.map(|attempt| attempt.began_at()), name)
            })
            .collect();
        attempts.sort_unstable_by_key(|(began, _)| *began);
        let excess = (attempts.len() + 1).saturating_sub(MAX_ATTEMPTS);
        let over = attempts
            .iter()
            .enumerate()
            .filter(|(index, (began, _))| *index < excess || began.is_none());
        over.take(MAX_REMOVALS)
            .filter_map(|(_, (_, name))| std::str::from_utf8(name).ok())
            .map(|name| cookie::remove(name, security))
            .collect()
    }

    /// The attempt in a cookie's value, unless it is not one, over, or in the future.
    fn unseal_attempt(&self, value: &[u8], now: Now) -> Option<SignInAttempt> {
        let attempt = self.read_attempt(value)?;
        let (began, now) = (attempt.began_at(), now.wall);
        let current = began <= now.plus(MAX_CLOCK_SKEW) && now < began.plus(LIFETIME);
        current.then_some(attempt)
    }

    fn read_attempt(&self, value: &[u8]) -> Option<SignInAttempt> {
        if value.len() > cookie::MAX_COOKIE_BYTES {
            return None;
        }
        SignInAttempt::decode(&self.sealer.open(Purpose::Attempt, value)?)
    }

    /// The attempt that a callback with this `query` belongs to, and the name of its cookie.
    fn find_attempt(
        &self,
        query: &str,
        site: &Site,
        headers: &dyn HeaderFields,
        now: Now,
    ) -> Result<(String, SignInAttempt), SignInError> {
        let mut parameters = url::form_urlencoded::parse(query.as_bytes());
        let state = parameters.find(|(name, _)| name == STATE);
        let (_, state) = state.ok_or(SignInError::UnknownAttempt)?;
        let name = self.names.attempt(site.security, &state);
        let Found::One(value) = cookie::find(headers, &name) else {
            return Err(SignInError::UnknownAttempt);
        };
        let attempt = self
            .read_attempt(value)
            .ok_or(SignInError::UnknownAttempt)?;
        let began = attempt.began_at();
        // It belongs to the site where it began: its redirect URI is there.
        if attempt.origin != site.origin || began > now.wall.plus(MAX_CLOCK_SKEW) {
            return Err(SignInError::UnknownAttempt);
        }
        Ok((name, attempt))
    }

    pub(super) fn attempted_destination(
        &self,
        query: &str,
        site: &Site,
        headers: &dyn HeaderFields,
        now: Now,
    ) -> Option<String> {
        let (_, attempt) = self.find_attempt(query, site, headers, now).ok()?;
        Some(self.destination(&attempt.return_to).to_owned())
    }

    pub(super) async fn complete(
        &self,
        query: &str,
        site: &Site,
        headers: &dyn HeaderFields,
        now: Now,
    ) -> Result<SignedIn, SignInError> {
        let (name, attempt) = self.find_attempt(query, site, headers, now)?;
        let return_to = self.destination(&attempt.return_to).to_owned();
        let code = self.accept(attempt, query, now)?;
        let grant = self.provider.redeem(&code).await.map_err(sign_in_error)?;
        let now = Now::read(&*self.clock);
        let session = self.new_session(grant, now)?;
        let session = match self.records() {
            Some(records) => {
                let ticket = Ticket::random().map_err(|_| SignInError::Randomness)?;
                records.create(session, ticket, now).await?
            }
            None => Arc::new(session),
        };
        let cookie = self.cookie(&session, site.security, now)?;
        Ok(SignedIn {
            session,
            return_to,
            cookies: vec![cookie, cookie::remove(&name, site.security)],
        })
    }

    /// The authorization code of a callback, once for each attempt.
    fn accept(
        &self,
        attempt: SignInAttempt,
        query: &str,
        now: Now,
    ) -> Result<AuthorizationCode, SignInError> {
        let state = attempt.flow.state.clone();
        let over = attempt.began_at().plus(LIFETIME + MAX_CLOCK_SKEW);
        let mut flow = AuthorizationFlow::restore(attempt.flow);
        let accepted = flow.accept_redirect(query, since_epoch(now));
        if accepted.as_ref().err() == Some(&CallbackError::StateMismatch) {
            return Err(SignInError::UnknownAttempt);
        }
        if !self.state.attempts.is_first(state.expose(), over, now.wall) {
            return Err(SignInError::UnknownAttempt);
        }
        accepted.map_err(|error| callback_error(&error))
    }

    fn new_session(&self, grant: ProviderGrant, now: Now) -> Result<UserSession, SignInError> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| SignInError::Randomness)?;
        let expires_at = match &grant.grant {
            SessionGrant::Oidc {
                access_token_expires_at,
                refresh_token: Some(_),
                ..
            } => *access_token_expires_at,
            _ => None,
        };
        Ok(UserSession {
            id: SessionId(id),
            generation: 0,
            renew_at: expires_at.map(|at| refresh::renew_at(at, now.wall)),
            grant: grant.grant,
            subject: grant.subject,
            name: grant.name,
            email: grant.email,
            provider_session: grant.provider_session,
            signed_in_at: now.wall,
            expires_at: now.wall.plus(self.settings.lifetime),
            idle_expires_at: now.wall.plus(self.settings.idle),
            entry: None,
        })
    }

    fn warn_of_http(&self, site: &Site) {
        if site.security == SiteSecurity::LoopbackHttp
            && !self.warned_of_http.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                session = &*self.settings.name,
                origin = site.origin,
                "plain http: cookies have neither Secure nor the prefix __Host-; use it on this \
                 machine only"
            );
        }
    }
}

/// The wall clock as a duration, which is what an [`AuthorizationFlow`] counts in. A cookie outlives the
/// process, so the monotonic clock will not do.
fn since_epoch(now: Now) -> Duration {
    UnixMillis::from_secs(0).until(now.wall)
}

fn callback_error(error: &CallbackError) -> SignInError {
    match error {
        CallbackError::StateMismatch | CallbackError::AlreadyUsed => SignInError::UnknownAttempt,
        CallbackError::Expired => SignInError::Expired,
        CallbackError::IssuerMismatch => SignInError::IssuerMismatch,
        CallbackError::Denied { code, .. } => SignInError::Denied(code),
        CallbackError::Malformed => SignInError::Malformed,
    }
}

impl From<SaveError> for SignInError {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::TooLarge(size) => Self::TooLargeToShare(size),
            SaveError::Store(StoreError::Randomness) => Self::Randomness,
            SaveError::Store(error) => Self::StoreUnavailable(error),
        }
    }
}

fn sign_in_error(error: ProviderError) -> SignInError {
    match error {
        ProviderError::Refused(cause) | ProviderError::Misconfigured(cause) => {
            SignInError::Provider(cause)
        }
        ProviderError::Unavailable { cause, .. } => SignInError::Unavailable(cause),
        ProviderError::InvalidToken(cause) => SignInError::Token(cause),
    }
}
