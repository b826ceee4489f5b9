//! Signing out: here, at the provider, and by the provider.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use super::{Ended, Inner, LogoutTokenError, SignedOut, Site, UserSession, cookie};
use crate::clock::Now;

impl Inner {
    pub(super) async fn sign_out(
        &self,
        session: Option<&UserSession>,
        site: &Site,
        now: Now,
    ) -> SignedOut {
        if let Some(session) = session {
            self.end(session, now);
        }
        let name = self.names.session(site.security);
        SignedOut {
            location: self.end_session_url(session, site).await,
            cookies: vec![cookie::remove(name, site.security)],
        }
    }

    /// Ends `session` in this process, and revokes its refresh token.
    fn end(&self, session: &UserSession, now: Now) {
        self.state
            .revocations
            .end_session(session, Ended::SignedOut, now);
        let mut renewals = self.state.renewals.lock();
        let newer = renewals
            .get(session)
            .and_then(|entry| entry.newer_than(session, now));
        let token = newer
            .map_or(session, |newer| newer)
            .refresh_token()
            .cloned();
        renewals.remove(session.id);
        drop(renewals);
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
        let logout_tokens = &self.state.logout_tokens;
        if !logout_tokens.is_first(&token.id, token.accepted_until, now.wall) {
            return Err(LogoutTokenError::Invalid(
                "the logout token was used before".to_owned(),
            ));
        }
        let revocations = &self.state.revocations;
        match (&token.provider_session, &token.subject) {
            (Some(sid), subject) => {
                revocations.end_provider_session(sid);
                if let Some(subject) = subject {
                    revocations.end_unnamed(subject, now);
                }
            }
            (None, Some(subject)) => revocations.end_user(subject, now),
            (None, None) => {
                let problem = "the logout token names neither a session nor a user";
                return Err(LogoutTokenError::Invalid(problem.to_owned()));
            }
        }
        Ok(())
    }
}
