//! The audit event of a request.

use super::context::Context;
use crate::gateway::Admission;
use crate::gateway::login;
use crate::gateway::outcome::{
    Audit, AuditDecision, AuditEvent, ForwardAuthResult, SessionEvent, SessionRecord, SignInResult,
};

impl Context {
    /// Returns the audit event, or `None` if there is no audit log or the request involves no
    /// credential: it matched no route, or was passed through by a route without a source.
    pub(super) fn audit(&self, path: &str) -> Option<Box<Audit>> {
        // A preflight requests no credential, and replacing credentials has events of its own.
        if !self.gateway.observability.audit
            || self.preflight
            || self.gateway.is_credentials_endpoint(path)
        {
            return None;
        }
        if let Some(endpoint) = &self.own_endpoint
            && let Some(session) = &endpoint.session
        {
            return session_event(session);
        }
        let (admission, refused) = (self.admission.as_ref(), self.admission_error.as_ref());
        let endpoint = self.own_endpoint.as_ref();
        if let Some(asked) = endpoint.and_then(|endpoint| endpoint.forward_auth.as_deref())
            && asked.result == ForwardAuthResult::Reported
        {
            // It requests no credential.
            return None;
        }
        let event = if endpoint.is_some_and(|endpoint| endpoint.forward_auth.is_some()) {
            AuditEvent::ForwardAuth
        } else if endpoint.is_some_and(|endpoint| endpoint.route.as_deref() == Some(login::LABEL)) {
            AuditEvent::Login
        } else if self.gateway.is_bewit_endpoint(path) {
            AuditEvent::Bewit
        } else {
            AuditEvent::Request
        };
        let route = admission
            .map(|a| &a.route)
            .or(refused.and_then(|r| r.route.as_ref()));
        let rejected = self.rejection.is_some();
        let involves_credential =
            endpoint.is_some() || route.is_some_and(|r| rejected || r.source.is_some());
        if !involves_credential {
            return None;
        }
        let granted = admission.is_some_and(|a| a.credential().is_some())
            || endpoint.is_some_and(|endpoint| endpoint.credential.is_some());
        let decision = match (granted, rejected) {
            (true, _) => AuditDecision::Granted,
            (false, true) => AuditDecision::Refused,
            // An OPTIONS request, which requests no credential either.
            (false, false) if event == AuditEvent::Login => return None,
            (false, false) => AuditDecision::Unsigned,
        };
        let caller = admission
            .map(|a| &a.caller)
            .or(refused.map(|r| &r.caller))
            .or(endpoint.and_then(|endpoint| endpoint.caller.as_ref()));
        Some(Box::new(Audit {
            event,
            decision,
            subject: caller
                .and_then(|c| c.subject().or(c.username().filter(|_| granted)))
                .map(str::to_owned),
            client: caller.and_then(|c| c.client()).map(str::to_owned),
            credential: admission
                .and_then(Admission::client_id)
                .or(endpoint.and_then(|endpoint| endpoint.credential.as_deref()))
                .map(str::to_owned),
            scopes: admission
                .and_then(Admission::decision)
                .and_then(|ruling| ruling.scopes())
                .or(endpoint.and_then(|endpoint| endpoint.scopes.as_ref()))
                .cloned(),
        }))
    }
}

/// The audit event at an endpoint of a session: only of what begins or ends sessions.
fn session_event(session: &SessionRecord) -> Option<Box<Audit>> {
    let (event, decision) = match session.event? {
        SessionEvent::SignIn(result) => (
            AuditEvent::SignIn,
            match result {
                SignInResult::Ok => AuditDecision::Granted,
                _ => AuditDecision::Refused,
            },
        ),
        SessionEvent::SignOut => (AuditEvent::SignOut, AuditDecision::Ended),
        SessionEvent::BackChannelLogout { accepted: true } => {
            (AuditEvent::BackChannelLogout, AuditDecision::Ended)
        }
        SessionEvent::BackChannelLogout { accepted: false } => {
            (AuditEvent::BackChannelLogout, AuditDecision::Refused)
        }
        SessionEvent::Refresh(_) => return None,
    };
    Some(Box::new(Audit {
        event,
        decision,
        subject: session.subject.clone(),
        client: None,
        credential: None,
        scopes: None,
    }))
}
