//! Signs users in for the unit tests of other modules.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::COOKIE;

use super::settings::SessionSettings;
use super::{
    IdentityProvider, LogoutToken, LogoutTokenError, ProviderEndpoints, ProviderError,
    ProviderGrant, RefreshObserver, RefreshResult, Sessions, Site,
};
use crate::clock::{Now, SharedClock, UnixMillis};
use crate::secret::SecretString;
use crate::signin::AuthorizationCode;

/// A provider that issues one grant, for any code.
#[derive(Debug, Default)]
pub(crate) struct Provider(Mutex<Option<ProviderGrant>>);

#[async_trait]
impl IdentityProvider for Provider {
    async fn endpoints(&self) -> Result<ProviderEndpoints, ProviderError> {
        Ok(ProviderEndpoints {
            issuer: "https://idp.example.com/".into(),
            authorization: "https://idp.example.com/authorize".parse().unwrap(),
            end_session: None,
            iss_required: false,
        })
    }

    async fn redeem(&self, _: &AuthorizationCode) -> Result<ProviderGrant, ProviderError> {
        let grant = self.0.lock().unwrap().take();
        grant.ok_or(ProviderError::Refused("the code is used up".into()))
    }

    async fn refresh(&self, _: &SecretString, _: &str) -> Result<ProviderGrant, ProviderError> {
        Err(ProviderError::Refused("nothing to refresh".into()))
    }

    async fn revoke(&self, _: &SecretString) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Those that begin with `valid` are. For `unverifiable` there are no keys.
    async fn verify_logout_token(&self, token: &str) -> Result<LogoutToken, LogoutTokenError> {
        if token == "unverifiable" {
            return Err(LogoutTokenError::Unavailable {
                cause: "no keys".into(),
                retry_after: Duration::from_secs(7),
            });
        }
        if !token.starts_with("valid") {
            return Err(LogoutTokenError::Invalid("none".into()));
        }
        Ok(LogoutToken {
            id: token.into(),
            issued_at: UnixMillis::from_secs(0),
            accepted_until: UnixMillis::from_secs(10_000_000_000),
            subject: None,
            provider_session: Some(token.into()),
        })
    }
}

#[derive(Debug)]
struct Unobserved;

impl RefreshObserver for Unobserved {
    fn refreshed(&self, _: RefreshResult) {}
}

/// Sessions whose provider issues `grant`.
pub(crate) fn sessions(
    settings: SessionSettings,
    grant: Option<ProviderGrant>,
    clock: SharedClock,
) -> Sessions {
    let provider = Arc::new(Provider(Mutex::new(grant)));
    Sessions::new(settings, provider, Arc::new(Unobserved), clock, None, None).unwrap()
}

/// Signs in at `site`, and returns the session's cookie: `name=value`.
pub(crate) async fn sign_in(sessions: &Sessions, site: &Site, now: Now) -> String {
    let none = HeaderMap::new();
    let begun = sessions.begin("/", site, &none, now).await.unwrap();
    let mut query = begun.location.query_pairs();
    let (_, state) = query.find(|(name, _)| name == "state").unwrap();
    let attempt = pair(begun.cookies[0].as_str()).parse().unwrap();
    let headers = HeaderMap::from_iter([(COOKIE, attempt)]);
    let callback = format!("code=c-1&state={state}");
    let done = sessions.complete(&callback, site, &headers, now).await;
    let done = done.unwrap();
    let name = format!("{}=", sessions.cookie_name(site.security));
    let mut cookies = done.cookies.iter().map(|cookie| pair(cookie.as_str()));
    cookies
        .find(|cookie| cookie.starts_with(&name))
        .unwrap()
        .to_owned()
}

/// `name=value` of a `Set-Cookie` field.
fn pair(field: &str) -> &str {
    field.split(';').next().unwrap()
}
