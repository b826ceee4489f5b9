//! Signing out: here, at the provider, and by the provider.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use super::shared::Which;
use super::{Ended, Inner, LogoutToken, LogoutTokenError, SignedOut, Site, UserSession, cookie};
use crate::clock::Now;
use crate::secret::SecretString;

impl Inner {
    pub(super) async fn sign_out(
        &self,
        session: Option<&UserSession>,
        site: &Site,
        now: Now,
    ) -> SignedOut {
        if let Some(session) = session {
            self.end(session, now).await;
        }
        let name = self.names.session(site.security);
        SignedOut {
            location: self.end_session_url(session, site).await,
            cookies: vec![cookie::remove(name, site.security)],
        }
    }

    /// Ends `session` in this process and in the fleet, and revokes its refresh token.
    async fn end(&self, session: &UserSession, now: Now) {
        self.state
            .revocations
            .end_session(session, Ended::SignedOut, now);
        let mut token = self.forget_renewal(session, now);
        if let Some(shared) = &self.shared {
            // Another replica may have refreshed it.
            let stored = shared.reread(session, now).await;
            if let Some(newer) = stored.filter(|stored| stored.generation > session.generation) {
                token = newer.refresh_token().cloned().or(token);
            }
            let which = Which::Session(session.id);
            shared.end(which, Ended::SignedOut, now).await;
            shared.remove(session).await;
        }
        if let Some(token) = token {
            let (provider, name) = (Arc::clone(&self.provider), Arc::clone(&self.settings.name));
            tokio::spawn(async move {
                if let Err(error) = provider.revoke(&token).await {
                    let session = &*name;
                    tracing::warn!(session, %error, "a refresh token was not revoked");
                }
            });
        }
    }

    /// Forgets that `session` was refreshed here. Returns its newest refresh token.
    fn forget_renewal(&self, session: &UserSession, now: Now) -> Option<SecretString> {
        let mut renewals = self.state.renewals.lock();
        let newer = renewals
            .get(session)
            .and_then(|entry| entry.newer_than(session, now));
        let newest = newer.map_or(session, |newer| newer);
        let token = newest.refresh_token().cloned();
        renewals.remove(session.id);
        token
    }

    /// The provider's logout page (OpenID Connect RP-Initiated Logout 1.0 §2).
    async fn end_session_url(&self, session: Option<&UserSession>, site: &Site) -> Option<Url> {
        let mut url = self.provider.endpoints().await.ok()?.end_session?;
        let back = format!("{}{}logout", site.origin, self.settings.prefix);
        let mut state = [0; 16];
        aws_lc_rs::rand::fill(&mut state).ok()?;
        let mut query = url.query_pairs_mut();
        if let Some(id_token) = session.and_then(UserSession::id_token) {
            query.append_pair("id_token_hint", id_token.expose());
        }
        query
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("post_logout_redirect_uri", &back)
            .append_pair("state", &URL_SAFE_NO_PAD.encode(state));
        drop(query);
        Some(url)
    }

    pub(super) async fn back_channel_logout(
        &self,
        token: &str,
        now: Now,
    ) -> Result<(), LogoutTokenError> {
        let token = self.provider.verify_logout_token(token).await?;
        if !self.is_first(&token, now).await {
            return Err(LogoutTokenError::Invalid(
                "the logout token was used before".to_owned(),
            ));
        }
        let revocations = &self.state.revocations;
        let ended = match (&token.provider_session, &token.subject) {
            (Some(sid), subject) => {
                revocations.end_provider_session(sid);
                if let Some(subject) = subject {
                    revocations.end_unnamed(subject, now);
                }
                let unnamed = subject.as_deref().map(Which::Unnamed);
                vec![Some(Which::ProviderSession(sid)), unnamed]
            }
            (None, Some(subject)) => {
                revocations.end_user(subject, now);
                vec![Some(Which::User(subject))]
            }
            (None, None) => {
                let problem = "the logout token names neither a session nor a user";
                return Err(LogoutTokenError::Invalid(problem.to_owned()));
            }
        };
        if let Some(shared) = &self.shared {
            for which in ended.into_iter().flatten() {
                shared.end(which, Ended::SignedOut, now).await;
            }
        }
        Ok(())
    }

    /// Whether a logout token is used for the first time, here and, as far as the shared store can say, at
    /// other replicas.
    async fn is_first(&self, token: &LogoutToken, now: Now) -> bool {
        let here = &self.state.logout_tokens;
        if !here.is_first(&token.id, token.accepted_until, now.wall) {
            return false;
        }
        let Some(shared) = &self.shared else {
            return true;
        };
        let ttl = now
            .wall
            .until(token.accepted_until)
            .max(Duration::from_secs(1));
        shared
            .is_first_logout_token(&token.id, ttl)
            .await
            .unwrap_or(true)
    }
}
