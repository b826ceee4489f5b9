//! Requests of other proxies at the listeners of `[[forward_auth]]`.

use std::net::IpAddr;
use std::sync::Arc;

use super::Transaction;
use crate::gateway::forward_auth::{Action, ForwardAuth};
use crate::gateway::outcome::{ForwardAuthRecord, ForwardAuthResult};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Head, LocalResponse};
use crate::proxy::record::path_of;
use crate::proxy::validate::{self, HeadLimits};

impl Transaction<'_> {
    /// Serves a request on a listener of the `[[forward_auth]]` called `name`.
    ///
    /// # Errors
    /// If a reload has removed it. All other refusals are responses.
    pub(super) async fn forward_auth(
        &mut self,
        name: &Arc<str>,
    ) -> Result<LocalResponse, Rejection> {
        let gateway = Arc::clone(&self.context.gateway);
        let Some(asked) = gateway.forward_auth(name) else {
            let cause = "this listener's [[forward_auth]] is no longer configured";
            return Err(Rejection::from(Reason::NoRoute).with_cause(cause));
        };
        let mut record = ForwardAuthRecord {
            name: Arc::clone(name),
            result: ForwardAuthResult::Refused,
            original: None,
        };
        let answered = match asked.action(&self.head.method, self.head.target()) {
            Ok(Action::Check) => self.check(asked, &mut record).await,
            Ok(Action::Report) => {
                record.result = ForwardAuthResult::Reported;
                let reported = gateway.report_401(asked, &self.head.fields);
                reported.map(|()| LocalResponse::no_content())
            }
            Err(rejection) => Err(rejection),
        };
        let mut response = answered.unwrap_or_else(|rejection| {
            let reason = rejection.reason;
            record.result = result(reason);
            let (method, now) = (&self.head.method, self.relay.clock.now());
            let mut refusal = LocalResponse::refusal(rejection, method, now);
            refusal.status = asked.status(reason);
            refusal
        });
        response.details.forward_auth = Some(Box::new(record));
        Ok(response)
    }

    async fn check(
        &mut self,
        asked: &ForwardAuth,
        record: &mut ForwardAuthRecord,
    ) -> Result<LocalResponse, Rejection> {
        let gateway = Arc::clone(&self.context.gateway);
        let host = self.head.host().unwrap_or_default();
        let (method, target) = (&self.head.method, self.head.target());
        let original = asked
            .kind
            .original(method, host, target, &self.head.fields)?;
        let limits = HeadLimits::from(&**self.relay.limits.load());
        validate::check_original(&original.method, &original.host, &original.target, &limits)?;
        record.original = Some((original.method.clone(), path_of(&original.target)));
        let head = Head {
            peer: self.client_behind_proxy(),
            // The proxy's own, which says nothing about its client.
            certificate: None,
            ..self.peer.head(
                &original.method,
                &original.host,
                &original.target,
                &self.head.fields,
            )
        };
        match gateway.check_original(asked, head, self.began).await {
            Ok((admission, response)) => {
                record.result = ForwardAuthResult::Allowed;
                self.context.admit(admission);
                Ok(response)
            }
            Err(refused) => Err(self.context.reject(refused)),
        }
    }

    /// The address of the proxy's client, if the listener trusts this proxy to report it. The proxy's
    /// own address must not pass for it in rules.
    fn client_behind_proxy(&self) -> Option<IpAddr> {
        let trusted = self.conn.metadata.trusted_proxies.as_ref()?;
        let proxy = self.peer.ip?;
        if !trusted.iter().any(|network| network.contains(&proxy)) {
            return None;
        }
        self.peer.accountable
    }
}

fn result(reason: Reason) -> ForwardAuthResult {
    match reason.status().as_u16() {
        401 => ForwardAuthResult::Unauthenticated,
        500.. => ForwardAuthResult::Unavailable,
        _ => ForwardAuthResult::Refused,
    }
}
