//! Authenticates a request by the cookie of its session.

use std::sync::Arc;

use super::browser;
use super::{CookieCaller, Session, unavailable};
use crate::clock::Now;
use crate::credential::{Credential, Lease};
use crate::gateway::admission::Admission;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{CallerMemo, Head, signing_failure};
use crate::hawk::{Certificate, Credentials, scope};
use crate::session::{Presented, RenewError, SessionGrant, SiteSecurity, UserSession};
use crate::token::{self, Caller, PresentedToken, SignedInClient, TokenError};

impl Admission {
    /// Takes the caller from the cookie of the route's `session`.
    pub(in crate::gateway) async fn authenticate_by_cookie(
        &mut self,
        session: &Session,
        head: Head<'_>,
        now: Now,
        memo: &mut CallerMemo,
    ) -> Result<(), Rejection> {
        let security = match session.security(head) {
            Ok(security) => security,
            // Programs that call the route without a token learn that they need one.
            Err(_) if !self.route.issuers.is_empty() && !browser::navigates(head) => {
                return Err(Reason::MissingToken.into());
            }
            Err(insecure) => return Err(insecure),
        };
        let sessions = &session.sessions;
        let opening = sessions.open(head.headers, security, now, &mut memo.session);
        let user = match opening.await {
            Presented::Open(user) => user,
            Presented::Unavailable { cause, retry_after } => {
                return Err(unavailable(cause, Some(retry_after)));
            }
            Presented::None => return Err(session.sign_in_required(head, None)),
            Presented::Ended(_) => {
                let removal = sessions.removal(security);
                return Err(session.sign_in_required(head, Some(removal)));
            }
        };
        self.check_cross_site(session, head)?;
        let ended = || session.sign_in_required(head, Some(sessions.removal(security)));
        let by_cookie = self.by_cookie.insert(Box::new(CookieCaller {
            security: Some(security),
            navigates: browser::navigates(head),
            session: Some(Arc::clone(&user)),
            ..CookieCaller::default()
        }));
        let renewed = by_cookie.renewed(sessions.renew(user, security, now).await);
        let user = match renewed {
            Ok(user) => user,
            Err(RenewError::Ended(_)) => return Err(ended()),
            Err(RenewError::Unavailable { cause, retry_after }) => {
                return Err(unavailable(cause, retry_after));
            }
            Err(RenewError::Misconfigured(cause)) => return Err(misconfigured(cause)),
        };
        match &user.grant {
            SessionGrant::Oidc { .. } => {
                let verified = self.verify_session(user, session, security, head, now, memo);
                verified.await
            }
            SessionGrant::Taskcluster {
                credentials,
                expires_at,
                ..
            } => {
                let (name, client_id) = (session.name().clone(), &credentials.client_id);
                let client = SignedInClient::new(name, client_id, *expires_at);
                self.caller = Caller::Client(Arc::new(client));
                Ok(())
            }
        }
    }

    /// Verifies the session's access token. If its issuer refuses it, another one may be had.
    async fn verify_session(
        &mut self,
        user: Arc<UserSession>,
        session: &Session,
        security: SiteSecurity,
        head: Head<'_>,
        now: Now,
        memo: &mut CallerMemo,
    ) -> Result<(), Rejection> {
        let error = match self.verify(&user, session, head, now, memo).await {
            Ok(()) => return Ok(()),
            Err(error) if is_rejected(&error) => error,
            Err(error) => return Err(error.into()),
        };
        let sessions = &session.sessions;
        let renewed = sessions.renew_refused(user, security, now).await;
        let caller = self.by_cookie.get_or_insert_default();
        let ended = |error: &TokenError| {
            let removal = sessions.removal(security);
            session
                .sign_in_required(head, Some(removal))
                .with_cause(format!("the access token: {error}"))
        };
        match caller.renewed(renewed) {
            Ok(newer) => {
                let verified = self.verify(&newer, session, head, now, memo).await;
                verified.map_err(|error| {
                    if is_rejected(&error) {
                        ended(&error)
                    } else {
                        error.into()
                    }
                })
            }
            Err(RenewError::Ended(_)) => Err(ended(&error)),
            Err(RenewError::Unavailable { cause, retry_after }) => {
                Err(unavailable(cause, retry_after))
            }
            Err(RenewError::Misconfigured(cause)) => Err(misconfigured(cause)),
        }
    }

    /// Refuses requests that pages of other origins sent with the user's cookie.
    fn check_cross_site(&self, session: &Session, head: Head<'_>) -> Result<(), Rejection> {
        let allowed = |_: &[u8]| self.route.allows_credentials_of(head.headers);
        match browser::cross_site(head, |sender| session.is_own(sender, head), allowed) {
            None => Ok(()),
            Some(cause) => Err(Rejection::from(Reason::CrossSite).with_cause(cause)),
        }
    }

    /// Verifies the session's access token with its issuer, like any bearer token.
    async fn verify(
        &mut self,
        user: &UserSession,
        session: &Session,
        head: Head<'_>,
        now: Now,
        memo: &mut CallerMemo,
    ) -> Result<(), TokenError> {
        let SessionGrant::Oidc { access_token, .. } = &user.grant else {
            return Err(TokenError::Internal);
        };
        let (token, issuers) = (PresentedToken::from(access_token), &session.issuers);
        let known = memo.token.recall_token(token, issuers, now);
        let known = known.or_else(|| memo.token.look_up(token, issuers, now));
        let authenticated = match known {
            Some(known) => {
                self.cached_at = Some(now);
                Ok(known)
            }
            None => token::authenticate(token, issuers, head.peer).await,
        };
        match authenticated {
            Ok(authenticated) => {
                self.set_caller(authenticated);
                if self.passes_token() {
                    self.bearer = Some(access_token.clone());
                }
                Ok(())
            }
            Err(refused) => {
                self.verification = Some(refused.error.label());
                self.rejecting_issuer = refused.issuer;
                Err(refused.error)
            }
        }
    }

    /// The lease of the session's own credentials, narrowed as the rules demand.
    ///
    /// # Errors
    /// If a header signed with them would exceed Taskcluster's limit.
    pub(in crate::gateway) fn session_lease(&self, now: Now) -> Result<Option<Lease>, Rejection> {
        let session = self
            .by_cookie
            .as_ref()
            .and_then(|caller| caller.session.as_ref());
        let Some(SessionGrant::Taskcluster {
            lease,
            credentials,
            expires_at,
        }) = session.map(|session| &session.grant)
        else {
            return Ok(None);
        };
        let Some(scopes) = self.decision().and_then(|decision| decision.scopes()) else {
            return Ok(Some(lease.clone()));
        };
        let certified = credentials
            .certificate
            .as_ref()
            .and_then(Certificate::scopes);
        let narrowed = Credentials {
            authorized_scopes: Some(scope::narrow(certified.as_deref(), scopes)),
            ..credentials.clone()
        };
        let credential = Credential::taskcluster(&narrowed).map_err(|error| {
            Rejection::from(signing_failure(&error)).with_cause(error.to_string())
        })?;
        Ok(Some(Lease::detached(credential, *expires_at, now)))
    }

    /// The upstream rejected the credentials of the caller's own session: it has ended.
    pub(in crate::gateway) fn end_session(&self, target: &str, now: Now) -> Option<Rejection> {
        let session = self.route.session.as_ref()?;
        let caller = self.by_cookie.as_ref()?;
        let user = caller.session.as_ref()?;
        let in_vain = session.sessions.reject_credentials(user, now);
        let removal = caller
            .security
            .map(|security| session.sessions.removal(security));
        Some(session.sign_in_at(target, caller.navigates && !in_vain, removal))
    }
}

fn misconfigured(cause: String) -> Rejection {
    Rejection::from(Reason::ClientRefused).with_cause(cause)
}

/// Whether the token itself is at fault, so that another one may be accepted.
fn is_rejected(error: &TokenError) -> bool {
    !matches!(
        error,
        TokenError::KeysUnavailable { .. }
            | TokenError::IntrospectionUnavailable { .. }
            | TokenError::ClientRefused { .. }
            | TokenError::ClockNotSet
            | TokenError::Internal
    )
}
