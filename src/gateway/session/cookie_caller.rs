//! The caller who presented the cookie of a session.

use std::sync::Arc;

use super::digest;
use crate::clock::UnixMillis;
use crate::gateway::outcome::{RefreshResult, SessionEvent};
use crate::session::{Ended, RenewError, Renewed, SetCookie, SiteSecurity, UserSession};

/// What is known of a caller who presented a session's cookie.
#[derive(Debug, Default)]
pub struct CookieCaller {
    /// The session, once it was opened and may be used.
    pub(in crate::gateway) session: Option<Arc<UserSession>>,
    /// The cookies that the answer sets, whatever it is.
    pub(in crate::gateway) cookies: Vec<SetCookie>,
    /// What happened to the session.
    pub(in crate::gateway) event: Option<SessionEvent>,
    /// Which cookies the site has.
    pub(super) security: Option<SiteSecurity>,
    /// Whether the browser would show the answer as a page.
    pub(super) navigates: bool,
}

impl CookieCaller {
    /// The cookies that the answer sets. Returned once.
    pub fn take_cookies(&mut self) -> Vec<SetCookie> {
        std::mem::take(&mut self.cookies)
    }

    /// The end of the session's lifetime.
    pub fn expires_at(&self) -> Option<UnixMillis> {
        self.session.as_ref().map(|session| session.expires_at)
    }

    /// What happened to the session.
    pub fn event(&self) -> Option<SessionEvent> {
        self.event
    }

    /// The session's subject and a digest of its id, if something happened to it.
    pub fn changed(&self) -> Option<(&str, String)> {
        self.event?;
        let session = self.session.as_ref()?;
        Some((&session.subject, digest(session.id)))
    }

    /// Records how a renewal ended.
    pub(super) fn renewed(
        &mut self,
        renewed: Result<Renewed, RenewError>,
    ) -> Result<Arc<UserSession>, RenewError> {
        match renewed {
            Ok(Renewed {
                session,
                cookie,
                refreshed,
            }) => {
                if refreshed {
                    self.event = Some(SessionEvent::Refresh(RefreshResult::Refreshed));
                }
                if let Some(cookie) = cookie {
                    self.cookies = vec![cookie];
                }
                self.session = Some(Arc::clone(&session));
                Ok(session)
            }
            Err(error) => {
                self.event = match &error {
                    RenewError::Unavailable { .. } | RenewError::Misconfigured(_) => {
                        Some(SessionEvent::Refresh(RefreshResult::Unavailable))
                    }
                    RenewError::Ended(Ended::Refused) => {
                        Some(SessionEvent::Refresh(RefreshResult::Refused))
                    }
                    RenewError::Ended(_) => None,
                };
                Err(error)
            }
        }
    }
}
