//! The cookie of a session, as hawkgate seals it with the same key.

use std::fmt::{self, Debug};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hawkgate::clock::{Now, SystemClock};
use hawkgate::secret::{SecretRef, SecretString};
use hawkgate::session::settings::{SessionKind, SessionSettings, SessionStore, Unauthenticated};
use hawkgate::session::{
    IdentityProvider, LogoutToken, LogoutTokenError, ProviderEndpoints, ProviderError,
    ProviderGrant, RefreshObserver, RefreshResult, SessionGrant, Sessions, Site, SiteSecurity,
};
use hawkgate::signin::AuthorizationCode;
use hawkgate::token::BearerToken;
use http::{HeaderMap, HeaderValue, header};

use super::identity::ISSUER;

/// The name of the session.
pub(crate) const NAME: &str = "bench";

/// Signs in with `token` at a provider that is not there, and returns the `Cookie` field. `key` is
/// the file with the cookie key.
pub(crate) async fn cookie(key: &Path, token: &str) -> String {
    let clock = SystemClock::shared();
    let provider = Arc::new(Provider(token.to_owned()));
    let sessions = Sessions::new(
        settings(key),
        provider,
        Arc::new(Nobody),
        clock.clone(),
        None,
        None,
    );
    let sessions = sessions.expect("a session");
    let site = Site {
        origin: "http://localhost".into(),
        security: SiteSecurity::LoopbackHttp,
    };
    let now = Now::read(&*clock);
    let begun = sessions.begin("/", &site, &HeaderMap::new(), now).await;
    let begun = begun.expect("a sign-in");
    let attempt = begun.cookies.first().expect("a cookie");
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, pair(attempt.as_str()));
    let state = begun
        .location
        .query_pairs()
        .find(|(name, _)| name == "state");
    let (_, state) = state.expect("a state");
    let query = format!("code=c&state={state}");
    let signed_in = sessions.complete(&query, &site, &headers, now).await;
    let signed_in = signed_in.expect("a session");
    let cookie = signed_in.cookies.first().expect("a cookie");
    pair(cookie.as_str()).to_str().expect("text").to_owned()
}

fn pair(cookie: &str) -> HeaderValue {
    let pair = cookie.split(';').next().unwrap_or_default();
    HeaderValue::from_str(pair).expect("a value")
}

fn settings(key: &Path) -> SessionSettings {
    SessionSettings {
        name: NAME.into(),
        kind: SessionKind::Oidc,
        provider: ISSUER.into(),
        client_id: "bench".into(),
        scopes: vec!["openid".into()],
        audience: None,
        resource: None,
        cookie_key: SecretRef::File(key.to_owned()),
        previous_cookie_key: None,
        store: SessionStore::Cookie,
        idle: Duration::from_hours(8),
        lifetime: Duration::from_hours(24),
        prefix: "/oauth2/".into(),
        unauthenticated: Unauthenticated::Login,
        origin: None,
        timeout: Duration::from_secs(5),
    }
}

/// Issues this access token.
struct Provider(String);

impl Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider(..)")
    }
}

fn absent() -> ProviderError {
    ProviderError::Misconfigured("there is no provider".into())
}

#[async_trait]
impl IdentityProvider for Provider {
    async fn endpoints(&self) -> Result<ProviderEndpoints, ProviderError> {
        Ok(ProviderEndpoints {
            issuer: ISSUER.into(),
            authorization: ISSUER.parse().expect("a URL"),
            end_session: None,
            iss_required: false,
        })
    }

    async fn redeem(&self, _: &AuthorizationCode) -> Result<ProviderGrant, ProviderError> {
        let now = SystemClock::shared().now();
        Ok(ProviderGrant {
            grant: SessionGrant::Oidc {
                access_token: BearerToken::new(&self.0).expect("a token"),
                access_token_expires_at: Some(now.plus(Duration::from_mins(59))),
                refresh_token: None,
                id_token: None,
            },
            subject: "alice".into(),
            name: None,
            email: None,
            provider_session: None,
        })
    }

    async fn refresh(&self, _: &SecretString, _: &str) -> Result<ProviderGrant, ProviderError> {
        Err(absent())
    }

    async fn revoke(&self, _: &SecretString) -> Result<(), ProviderError> {
        Err(absent())
    }

    async fn verify_logout_token(&self, _: &str) -> Result<LogoutToken, LogoutTokenError> {
        Err(LogoutTokenError::Invalid(absent().to_string()))
    }
}

#[derive(Debug)]
struct Nobody;

impl RefreshObserver for Nobody {
    fn refreshed(&self, _: RefreshResult) {}
}
