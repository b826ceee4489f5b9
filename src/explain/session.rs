//! Explains requests with the cookie of a session. The session's provider is not contacted: a renewal
//! would use up the refresh token in the browser's cookie.

use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::report::{Stage, Status, Step, Verdict};
use super::{Explainer, cause, token};
use crate::clock::{Now, UnixMillis};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::route::Route;
use crate::gateway::session::{Endpoint, LABEL, Session};
use crate::session::settings::{SessionStore, Unauthenticated};
use crate::session::{Ended, Presented, SessionGrant, SessionMemo, SiteSecurity, UserSession};
use crate::token::{BearerToken, Caller, SignedInClient};

impl Explainer<'_> {
    /// `None` if the request is for something else.
    pub(super) fn session_endpoint(&mut self) -> Option<Verdict> {
        let (host, target) = (&self.question.host, &self.question.target);
        let (session, name) = self.gateway.sessions.find(host, target)?;
        let prefix = &session.prefix;
        let why = format!(
            "hawkgate answers everything below {prefix:?} itself (session {}), ahead of any route",
            session.name()
        );
        self.report.note(Stage::Route, LABEL, why);
        if Endpoint::named(name).is_some() {
            return Some(Verdict::passes());
        }
        let why = format!("there is no such endpoint below {prefix:?}");
        self.report.failed(Stage::Route, "endpoint", why);
        Some(Verdict::refused(&Reason::NoRoute.into()))
    }

    /// Explains a request without a token on a route with a session.
    pub(super) async fn session(&mut self, route: &Route, session: &Session) -> Verdict {
        let headers = self.question.headers(None);
        let security = match session.security(self.question.head(&headers)) {
            Ok(security) => security,
            Err(refusal) => return self.insecure(&refusal, &headers).await,
        };
        let headers = match self.with_cookie(headers, session, security) {
            Ok(headers) => headers,
            Err(refusal) => return Verdict::refused(&refusal),
        };
        if !headers.contains_key(COOKIE) {
            let why = "no cookie was given (--cookie-file)";
            self.report.failed(Stage::Token, "sent", why);
            return self.not_signed_in(session, &headers).await;
        }
        if let Err(error) = session.sessions.settings().cookie_key.read() {
            let why = format!("the cookie cannot be opened without the session's key: {error}");
            self.report.failed(Stage::Token, "cookie_key", &why);
            return Verdict::Unknown { why };
        }
        if session.sessions.settings().store == SessionStore::Shared {
            let why = "the session is in the shared store, which is not asked to explain a request";
            self.report.failed(Stage::Token, "a session", why);
            return Verdict::Unknown { why: why.into() };
        }
        let now = Now::read(&**self.clock);
        let mut memo = SessionMemo::default();
        let opening = session.sessions.open(&headers, security, now, &mut memo);
        match opening.await {
            Presented::Unavailable { cause, .. } => Verdict::Unknown { why: cause },
            Presented::None => {
                let name = session.sessions.cookie_name(security);
                let why = format!("there is no cookie called {name}{}", other_site(security));
                self.report.failed(Stage::Token, "sent", why);
                self.not_signed_in(session, &headers).await
            }
            Presented::Ended(ended) => {
                self.report
                    .failed(Stage::Token, "a session", describe(ended));
                self.not_signed_in(session, &headers).await
            }
            Presented::Open(user) => {
                self.describe(session, &user, now);
                self.signed_in(route, session, &user, &headers, now).await
            }
        }
    }

    /// The site is one at which there are no sessions.
    async fn insecure(&mut self, refusal: &Rejection, headers: &HeaderMap) -> Verdict {
        let why = format!("{}: give the whole URL, with https://", cause(refusal));
        self.report
            .failed(Stage::Token, "a site with sessions", why);
        self.decide(headers).await
    }

    /// `headers` with the cookie, as a script of the site itself would send them unless another origin
    /// was given.
    fn with_cookie(
        &mut self,
        mut headers: HeaderMap,
        session: &Session,
        security: SiteSecurity,
    ) -> Result<HeaderMap, Rejection> {
        let Some(cookie) = &self.question.cookie else {
            return Ok(headers);
        };
        let text = cookie.expose();
        let field = Zeroizing::new(if text.contains('=') {
            text.to_owned()
        } else {
            let name = session.sessions.cookie_name(security);
            format!("{name}={text}")
        });
        let Ok(mut value) = HeaderValue::try_from(field.as_str()) else {
            let why = "it has characters that are not allowed in a header";
            self.report.failed(Stage::Token, "readable", why);
            return Err(Reason::BadRequest.into());
        };
        value.set_sensitive(true);
        headers.insert(COOKIE, value);
        if self.question.origin.is_none() {
            let same_origin = HeaderValue::from_static("same-origin");
            headers.insert(HeaderName::from_static("sec-fetch-site"), same_origin);
        }
        Ok(headers)
    }

    /// Reports whose session it is, and until when.
    fn describe(&mut self, session: &Session, user: &UserSession, now: Now) {
        self.report.push(Step {
            stage: Stage::Token,
            what: "a session".into(),
            status: Status::Ok,
            expected: None,
            found: Some(format!("{:?}", user.subject)),
            detail: Some(format!("the cookie is one of session {}", session.name())),
        });
        for (what, text) in [("name", &user.name), ("email", &user.email)] {
            if let Some(text) = text {
                self.report.note(Stage::Token, what, format!("{text:?}"));
            }
        }
        for (what, at) in [
            ("signed in", user.signed_in_at),
            ("ends", user.expires_at),
            ("ends if it is not used", user.idle_expires_at),
        ] {
            self.report.note(Stage::Token, what, time(at, now));
        }
        let what = "signed out";
        let why = "known to the running hawkgate only";
        self.report.note(Stage::Token, what, why);
    }

    async fn signed_in(
        &mut self,
        route: &Route,
        session: &Session,
        user: &Arc<UserSession>,
        headers: &HeaderMap,
        now: Now,
    ) -> Verdict {
        match &user.grant {
            SessionGrant::Taskcluster {
                credentials,
                expires_at,
                ..
            } => {
                let why = format!("end {}", time(*expires_at, now));
                self.report.note(Stage::Token, "the credentials", why);
                let (name, client_id) = (session.name().clone(), &credentials.client_id);
                let client = SignedInClient::new(name, client_id, *expires_at);
                let caller = Caller::Client(Arc::new(client));
                self.caller(route, Some(&caller), headers).await
            }
            SessionGrant::Oidc {
                access_token,
                access_token_expires_at,
                refresh_token,
                ..
            } => {
                let can_renew = refresh_token.is_some();
                let ends = match access_token_expires_at {
                    Some(at) => format!("ends {}", time(*at, now)),
                    None => "the provider did not say when it ends".to_owned(),
                };
                let renewal = if can_renew { "a" } else { "no" };
                let why = format!("{ends}; there is {renewal} refresh token");
                self.report.note(Stage::Token, "the access token", why);
                if can_renew && user.is_renewal_due(now) {
                    return self.unknown(
                        "the access token is due to be renewed, which explain does not do: it would \
                         use up the refresh token",
                    );
                }
                self.access_token(route, session, access_token, can_renew, headers)
                    .await
            }
        }
    }

    /// Verifies the session's access token as the gateway does.
    async fn access_token(
        &mut self,
        route: &Route,
        session: &Session,
        access_token: &BearerToken,
        can_renew: bool,
        headers: &HeaderMap,
    ) -> Verdict {
        let (config, issuers) = (self.config, &session.issuers);
        if self.question.offline && self.needs_network(issuers) {
            let why = "verifying it needs the network, which --offline rules out";
            self.report.note(Stage::Token, "verified", why);
            token::explain_unverified(&mut self.report, config, issuers, Some(access_token));
            return Verdict::Unknown { why: why.into() };
        }
        let (report, now) = (&mut self.report, self.clock.now());
        let caller = token::explain(report, config, issuers, Some(access_token), now).await;
        if caller.is_none() && can_renew {
            return self.unknown(
                "hawkgate would renew an access token that its issuer does not accept, which explain \
                 does not do",
            );
        }
        self.caller(route, caller.as_ref(), headers).await
    }

    /// Lets the gateway refuse a request without a session.
    async fn not_signed_in(&mut self, session: &Session, headers: &HeaderMap) -> Verdict {
        if session.unauthenticated == Unauthenticated::Login {
            let why = format!(
                "is redirected to {}login instead of being refused",
                session.prefix
            );
            let what = "a page opened in a browser";
            self.report.note(Stage::Token, what, why);
        }
        self.decide(headers).await
    }

    fn unknown(&mut self, why: &str) -> Verdict {
        self.report.note(Stage::Token, "verified", why);
        Verdict::Unknown { why: why.into() }
    }
}

/// Why a cookie of the expected name may be missing.
fn other_site(security: SiteSecurity) -> &'static str {
    match security {
        SiteSecurity::Https => "",
        SiteSecurity::LoopbackHttp => ": for cookies of an https site, give the whole URL",
    }
}

fn describe(ended: Ended) -> &'static str {
    match ended {
        Ended::Invalid => {
            "the cookie cannot be opened: it was sealed with another key, for another session, \
             provider or client, is incomplete, or is there more than once"
        }
        Ended::Idle => "it was not used for longer than `idle`",
        Ended::Lifetime => "it is older than `lifetime`",
        Ended::SignedOut => "it was signed out",
        Ended::Refused => "the provider refused to renew it",
        Ended::Credentials => "its credentials have expired",
    }
}

/// A time, with its distance from now.
fn time(at: UnixMillis, now: Now) -> String {
    let away = at.as_secs().saturating_sub(now.wall.as_secs());
    match away {
        0.. => format!("{} (in {away} s)", at.to_rfc3339()),
        _ => format!("{} ({} s ago)", at.to_rfc3339(), away.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests;
