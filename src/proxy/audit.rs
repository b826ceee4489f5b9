//! What the audit log is told of a request.

use super::context::Context;
use crate::gateway::Admission;
use crate::gateway::login;
use crate::gateway::outcome::{Audit, AuditDecision, AuditEvent};

impl Context {
    /// `None` where there is no audit log, and of requests that no credential was at stake
    /// in: those to no route, and those that a route without a source let pass.
    pub(super) fn audit(&self, path: &str) -> Option<Box<Audit>> {
        if !self.gateway.observability.audit {
            return None;
        }
        let (admission, refused) = (self.admission.as_ref(), self.refused.as_ref());
        let own = self.own.as_ref();
        let event = if own.is_some_and(|own| own.route.as_deref() == Some(login::LABEL)) {
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
        let concerned = own.is_some() || route.is_some_and(|r| rejected || r.source.is_some());
        if !concerned {
            return None;
        }
        let granted = admission.is_some_and(|a| a.credential().is_some())
            || own.is_some_and(|own| own.credential.is_some());
        let decision = match (granted, rejected) {
            (true, _) => AuditDecision::Granted,
            (false, true) => AuditDecision::Refused,
            // A browser's preflight: nothing was asked for yet.
            (false, false) if event == AuditEvent::Login => return None,
            (false, false) => AuditDecision::Unsigned,
        };
        let caller = admission
            .map(|a| &a.caller)
            .or(refused.map(|r| &r.caller))
            .or(own.and_then(|own| own.caller.as_ref()));
        Some(Box::new(Audit {
            event,
            decision,
            subject: caller
                .and_then(|c| c.subject().or(c.username().filter(|_| granted)))
                .map(str::to_owned),
            client: caller.and_then(|c| c.client()).map(str::to_owned),
            credential: admission
                .and_then(Admission::client_id)
                .or(own.and_then(|own| own.credential.as_deref()))
                .map(str::to_owned),
            scopes: admission
                .and_then(Admission::decision)
                .and_then(|ruling| ruling.scopes())
                .or(own.and_then(|own| own.scopes.as_ref()))
                .cloned(),
        }))
    }
}
