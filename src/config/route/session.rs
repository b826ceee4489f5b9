//! `route.session`

use super::access::refuse_other_tenant;
use super::{Context, Route};
use crate::config::diagnostic::quoted;
use crate::config::reader::Reader;
use crate::config::references;
use crate::config::resolved::{SessionProvider, SourceKind};
use crate::config::value::Item;

impl Route {
    /// Returns `Some(None)` if the route has no session, `None` if its session does not exist.
    #[allow(clippy::option_option)]
    pub(super) fn find_session(
        &self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
    ) -> Option<Option<usize>> {
        let Some(name) = &self.session.value else {
            return self.session.is_absent().then_some(None);
        };
        let reference = Item {
            at: self.session.at.clone(),
            value: name.clone(),
        };
        references::find(reader, "session", context.sessions, &reference).map(Some)
    }

    /// Refuses what contradicts a session. Whether the route has one is also clear if its name is
    /// unknown.
    pub(super) fn check_session(
        &self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
        session: Option<usize>,
        source: Option<&SourceKind>,
    ) {
        if !self.session.given {
            return;
        }
        let anonymous = self.anonymous.value == Some(true);
        let password = matches!(source, Some(SourceKind::Password(_)));
        let contradictions = [
            (
                anonymous,
                &self.anonymous.at,
                "conflicts with session: nobody would have to sign in",
            ),
            (
                password,
                &self.source.at,
                "asks callers for a username and password, but users of a session sign in at its provider",
            ),
            (
                self.workload_token.given,
                &self.workload_token.at,
                "conflicts with session: a request without Authorization would be the workload's",
            ),
        ];
        for (_, at, problem) in contradictions.into_iter().filter(|(given, ..)| *given) {
            reader.error(at, problem, "remove one of the two");
        }
        let session = session.and_then(|index| context.sessions.get(index)?.value.as_ref());
        match session.map(|session| &session.provider) {
            Some(SessionProvider::Oidc { issuer, .. }) => {
                let kind = context.issuers.get(*issuer).and_then(|i| i.value.as_ref());
                if let (Some(SourceKind::Auth0Identity(source)), Some(kind)) = (source, kind) {
                    refuse_other_tenant(reader, &self.session.at, kind, source);
                }
            }
            Some(SessionProvider::Taskcluster(_)) => self.check_taskcluster(reader),
            None => {}
        }
    }

    /// Checks a route whose session has credentials of its own.
    fn check_taskcluster(&self, reader: &mut Reader<'_>) {
        let name = quoted(self.session.value.as_deref().unwrap_or_default());
        if self.source.given {
            let problem =
                format!("conflicts with session {name}, whose credentials sign the requests");
            let remedy = "remove it, or use a separate route for each";
            reader.error(&self.source.at, problem, remedy);
        }
        if self.requires_scopes() {
            let problem = format!(
                "cannot be checked: session {name} is of kind taskcluster, without a token"
            );
            reader.error(&self.require_scopes.at, problem, "remove it");
        }
    }
}
