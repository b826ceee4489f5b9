//! Builds the sessions of the configuration: their providers, and how requests meet them.

use std::sync::Arc;

use async_trait::async_trait;

use super::StartError;
use super::build::{Builder, Purpose};
use super::components::{Component, Components, SessionBasis, reuse_or_build};
use super::shared_store::UsedStore;
use crate::config::{self, Config, SessionProvider};
use crate::gateway::rate_limit::{RateLimiter, RateLimiters};
use crate::gateway::session::Session;
use crate::network::Network;
use crate::reload::Fingerprints;
use crate::remote::oidc_provider::OidcProvider;
use crate::remote::taskcluster_provider::TaskclusterProvider;
use crate::secret::SecretString;
use crate::session::settings::SessionStore;
use crate::session::{
    IdentityProvider, LogoutToken, LogoutTokenError, ProviderEndpoints, ProviderError,
    ProviderGrant, Sessions, Site, SiteSecurity,
};
use crate::signin::AuthorizationCode;
use crate::token::Issuer;

impl Builder<'_> {
    /// The sessions, of which those of `previous` are kept whose settings and files are unchanged.
    /// Others keep what they remember of users who have signed out and of tokens that were renewed.
    pub(super) fn sessions(
        &self,
        config: &Config,
        fingerprints: &Fingerprints,
        previous: &Components,
        issuers: &[Arc<Issuer>],
        store: &UsedStore,
    ) -> Result<Vec<Component<SessionBasis, Sessions>>, StartError> {
        let component = |session: &config::Session| {
            let name = &session.settings.name;
            let issuer = session.issuer().and_then(|at| config.issuers.get(at));
            let own = config.files_of("session", name);
            let keys = issuer.map(|issuer| config.files_of("issuer", &issuer.name));
            let files = own.chain(keys.into_iter().flatten());
            let files = fingerprints.only(files.chain(config.network_files()));
            let basis = (
                session.clone(),
                issuer.cloned(),
                config.cache.bounds(),
                config.network.clone(),
                store.clone(),
            );
            reuse_or_build(&previous.sessions, basis, files, || {
                let failed = |e: &dyn std::error::Error| StartError::unusable("session", name, e);
                let provider = self.identity_provider(session, &config.network, issuers)?;
                let predecessor = previous.session(name);
                let (settings, observer) = (
                    session.settings.clone(),
                    self.metrics.session_observer(name),
                );
                let clock = self.clock.clone();
                let made = match self.purpose {
                    Purpose::Explain
                        if settings.cookie_key.read().is_err()
                            || settings.store == SessionStore::Shared =>
                    {
                        Sessions::without_keys(settings, provider, observer, clock)
                    }
                    _ => {
                        let fleet = store.fleet();
                        Sessions::new(settings, provider, observer, clock, predecessor, fleet)
                    }
                };
                made.map_err(|error| failed(&error))
            })
        };
        config.sessions.iter().map(component).collect()
    }

    fn identity_provider(
        &self,
        session: &config::Session,
        network: &Network,
        issuers: &[Arc<Issuer>],
    ) -> Result<Arc<dyn IdentityProvider>, StartError> {
        if self.purpose == Purpose::Explain {
            return Ok(Arc::new(NotContacted));
        }
        let name = &session.settings.name;
        let clock = self.clock.clone();
        let failed = |e: &dyn std::error::Error| StartError::unusable("session", name, e);
        Ok(match &session.provider {
            SessionProvider::Oidc { settings, .. } => {
                let issuer = session.issuer().and_then(|at| issuers.get(at));
                let issuer = issuer.cloned().ok_or_else(|| {
                    StartError::Unusable(format!("session {name:?} has no issuer"))
                })?;
                let made = OidcProvider::new(settings.clone(), issuer, network, clock);
                Arc::new(made.map_err(|e| failed(&e))?)
            }
            SessionProvider::Taskcluster(settings) => {
                let made = TaskclusterProvider::new(settings.clone(), network, clock);
                Arc::new(made.map_err(|e| failed(&e))?)
            }
        })
    }

    /// The sessions as requests meet them. `common` is the rate limit that all routes share.
    pub(super) fn gateway_sessions(
        &self,
        config: &Config,
        components: &mut Components,
        previous: &Components,
        common: Option<&Arc<RateLimiter>>,
    ) -> Result<Vec<Arc<Session>>, StartError> {
        if config.sessions.is_empty() {
            return Ok(Vec::new());
        }
        let sign_ins = components.sign_in_limit(previous, self.clock)?;
        let issuers: Vec<_> = components.issuers().cloned().collect();
        let pairs = config.sessions.iter().zip(&components.sessions);
        let sessions = pairs.map(|(session, component)| {
            let rates = (common, &sign_ins);
            Arc::new(self.gateway_session(session, component.value(), &issuers, rates))
        });
        Ok(sessions.collect())
    }

    fn gateway_session(
        &self,
        session: &config::Session,
        sessions: &Arc<Sessions>,
        issuers: &[Arc<Issuer>],
        (common, sign_ins): (Option<&Arc<RateLimiter>>, &Arc<RateLimiter>),
    ) -> Session {
        let settings = &session.settings;
        let issuer = session.issuer().and_then(|at| issuers.get(at));
        Session {
            sessions: Arc::clone(sessions),
            prefix: settings.prefix.clone(),
            unauthenticated: settings.unauthenticated,
            site: settings.origin.clone().map(site),
            issuers: issuer.into_iter().cloned().collect(),
            provider: settings.provider.clone(),
            rates: RateLimiters::new(common.into_iter().cloned().collect()),
            sign_ins: RateLimiters::new(vec![Arc::clone(sign_ins)]),
            clock: self.clock.clone(),
        }
    }
}

/// The configuration accepts http origins on loopback only.
fn site(origin: String) -> Site {
    let security = if origin.starts_with("https://") {
        SiteSecurity::Https
    } else {
        SiteSecurity::LoopbackHttp
    };
    Site { origin, security }
}

/// Replaces the provider while requests are explained: asking what would happen to a cookie must not
/// use up its refresh token.
#[derive(Debug)]
struct NotContacted;

impl NotContacted {
    fn error() -> ProviderError {
        ProviderError::Unavailable {
            cause: "the provider is not contacted to explain a request".to_owned(),
            retry_after: None,
        }
    }
}

#[async_trait]
impl IdentityProvider for NotContacted {
    async fn endpoints(&self) -> Result<ProviderEndpoints, ProviderError> {
        Err(Self::error())
    }

    async fn redeem(&self, _code: &AuthorizationCode) -> Result<ProviderGrant, ProviderError> {
        Err(Self::error())
    }

    async fn refresh(
        &self,
        _refresh_token: &SecretString,
        _subject: &str,
    ) -> Result<ProviderGrant, ProviderError> {
        Err(Self::error())
    }

    async fn revoke(&self, _refresh_token: &SecretString) -> Result<(), ProviderError> {
        Err(Self::error())
    }

    async fn verify_logout_token(&self, _token: &str) -> Result<LogoutToken, LogoutTokenError> {
        Err(LogoutTokenError::Invalid(Self::error().to_string()))
    }
}
