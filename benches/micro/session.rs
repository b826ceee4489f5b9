//! Opening the session in a request's cookie.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use criterion::Criterion;
use futures::FutureExt as _;
use hawkgate::clock::{Now, SharedClock, SystemClock};
use hawkgate::secret::{SecretRef, SecretString};
use hawkgate::session::settings::{SessionKind, SessionSettings, SessionStore, Unauthenticated};
use hawkgate::session::{
    IdentityProvider, LogoutToken, LogoutTokenError, ProviderEndpoints, ProviderError,
    ProviderGrant, RefreshObserver, RefreshResult, SessionGrant, SessionMemo, Sessions, Site,
    SiteSecurity,
};
use hawkgate::signin::AuthorizationCode;
use hawkgate::token::BearerToken;
use http::{HeaderMap, HeaderValue, header};

use crate::fixture::{runtime, token};

/// Issues one access token.
#[derive(Debug)]
struct Provider(BearerToken);

#[async_trait]
impl IdentityProvider for Provider {
    async fn endpoints(&self) -> Result<ProviderEndpoints, ProviderError> {
        Ok(ProviderEndpoints {
            issuer: "https://idp.example/".into(),
            authorization: "https://idp.example/authorize".parse().expect("a URL"),
            end_session: None,
            iss_required: false,
        })
    }

    async fn redeem(&self, _code: &AuthorizationCode) -> Result<ProviderGrant, ProviderError> {
        Ok(ProviderGrant {
            grant: SessionGrant::Oidc {
                access_token: self.0.clone(),
                access_token_expires_at: None,
                refresh_token: Some(SecretString::from("v1.a-refresh-token-of-usual-length")),
                id_token: Some(SecretString::from(self.0.expose())),
            },
            subject: "auth0|5f7c8ec7c33c6c004bbafe82".into(),
            name: Some("Ada Lovelace".into()),
            email: Some("ada@example.com".into()),
            provider_session: Some("a-session-of-the-provider".into()),
        })
    }

    async fn refresh(
        &self,
        _refresh_token: &SecretString,
        _subject: &str,
    ) -> Result<ProviderGrant, ProviderError> {
        Err(ProviderError::Refused("never".into()))
    }

    async fn revoke(&self, _refresh_token: &SecretString) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn verify_logout_token(&self, _token: &str) -> Result<LogoutToken, LogoutTokenError> {
        Err(LogoutTokenError::Invalid("never".into()))
    }
}

#[derive(Debug)]
struct Unobserved;

impl RefreshObserver for Unobserved {
    fn refreshed(&self, _result: RefreshResult) {}
}

fn sessions(token: &str, clock: SharedClock) -> Sessions {
    let key = std::env::temp_dir().join(format!("hawkgate-bench-{}", std::process::id()));
    std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("a key file");
    let settings = SessionSettings {
        name: "web".into(),
        kind: SessionKind::Oidc,
        provider: "https://idp.example/".into(),
        client_id: "client".into(),
        scopes: vec!["openid".into()],
        audience: None,
        resource: None,
        cookie_key: SecretRef::File(key.clone()),
        previous_cookie_key: None,
        store: SessionStore::Cookie,
        idle: Duration::from_hours(8),
        lifetime: Duration::from_hours(24),
        prefix: "/oauth2/".into(),
        unauthenticated: Unauthenticated::Login,
        origin: None,
        timeout: Duration::from_secs(5),
    };
    let provider = Arc::new(Provider(BearerToken::new(token).expect("a bearer token")));
    let sessions = Sessions::new(settings, provider, Arc::new(Unobserved), clock, None, None);
    std::fs::remove_file(key).expect("the key file");
    sessions.expect("valid settings")
}

/// The header fields of a browser that has signed in.
fn signed_in(sessions: &Sessions, now: Now) -> HeaderMap {
    let runtime = runtime();
    let site = Site {
        origin: "https://app.example".into(),
        security: SiteSecurity::Https,
    };
    let cookie = |cookies: &[hawkgate::session::SetCookie]| {
        let pair = cookies.first().and_then(|c| c.as_str().split(';').next());
        let pair = pair.expect("a cookie").to_owned();
        let value = HeaderValue::from_str(&pair).expect("a field value");
        HeaderMap::from_iter([(header::COOKIE, value)])
    };
    let none = HeaderMap::new();
    let begun = runtime.block_on(sessions.begin("/", &site, &none, now));
    let begun = begun.expect("an attempt");
    let state = begun
        .location
        .query_pairs()
        .find(|(name, _)| name == "state");
    let query = format!("code=c&state={}", state.expect("a state").1);
    let attempt = cookie(&begun.cookies);
    let signed_in = runtime.block_on(sessions.complete(&query, &site, &attempt, now));
    cookie(&signed_in.expect("a session").cookies)
}

pub(crate) fn session(c: &mut Criterion) {
    let (_, token) = token("RS256");
    let clock = SystemClock::shared();
    let now = Now::read(&*clock);
    let sessions = sessions(&token, clock);
    let headers = signed_in(&sessions, now);
    let open = |memo: &mut SessionMemo| {
        let opening = sessions.open(black_box(&headers), SiteSecurity::Https, now, memo);
        // Nothing is waited for without a shared store.
        opening.now_or_never().expect("a result")
    };
    c.bench_function("open a session's cookie", |b| {
        b.iter(|| open(&mut SessionMemo::default()));
    });
    let mut memo = SessionMemo::default();
    open(&mut memo);
    c.bench_function("recall a session's cookie", |b| b.iter(|| open(&mut memo)));
}
