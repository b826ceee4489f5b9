//! Forward-auth: another proxy asks before it sends a request to an upstream itself, and the answer
//! contains the headers to send it with (`docs/forward-auth.md`).
//!
//! The decision is that of a request to hawkgate itself, except that hawkgate sees no response:
//! nothing is replayed, no clock is learnt, and a 401 is only known if the proxy reports it.

mod original;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::local_response::LocalResponse;
use super::reason::Reason;
use super::recovery::{self, Recovery};
use super::rejection::Rejection;
use super::route::Route;
use super::rule::Decision;
use super::{Admission, AdmissionError, CallerMemo, CredentialHeader, Gateway, Head};
use crate::clock::Now;
use crate::credential::{Receipt, Reported};
use crate::hawk::bewit::has_bewit;
use crate::header_fields::{HeaderFields, only};
use crate::token::{PresentedToken, TokenDigest};

pub use original::OriginalRequest;

/// Where proxies ask. Envoy appends the original path.
pub const CHECK: &str = "/check";
/// Where proxies report a 401 of the upstream, with POST.
pub const REPORT: &str = "/unauthorized";

/// In an answer: the receipt of the credential in it.
const CREDENTIAL: &str = "x-hawkgate-credential";
/// In a request: the receipt of a credential that the upstream answered 401 to.
const REJECTED: HeaderName = HeaderName::from_static("x-hawkgate-rejected");
/// Names the headers that Envoy removes from the original request
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_authz_filter>).
const ENVOY_REMOVES: &str = "x-envoy-auth-headers-to-remove";

/// How long a caller waits whose 401s have caused an exchange, in seconds.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(30);

/// The proxy that asks, and with it the only headers that describe the original request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// nginx's `auth_request`: `X-Original-Method` and `X-Original-URL`.
    Nginx,
    /// Traefik's `ForwardAuth`: `X-Forwarded-Method`, `-Host` and `-Uri`.
    Traefik,
    /// Caddy's `forward_auth`: the same.
    Caddy,
    /// Envoy's `ext_authz` with an HTTP service: the method, the host, and the path after [`CHECK`].
    Envoy,
}

/// A `[[forward_auth]]`.
#[derive(Debug)]
pub struct ForwardAuth {
    /// Its configured name.
    pub name: Arc<str>,
    /// The proxy that asks.
    pub kind: ProxyKind,
    /// The names of the routes whose credentials the proxy may get.
    pub routes: Vec<Arc<str>>,
}

/// What a proxy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To know whether it may send a request, and with which credential.
    Check,
    /// To report that the upstream answered 401.
    Report,
}

impl ForwardAuth {
    /// What a request with this method and target wants. Nothing else is served, so that a proxy which
    /// passes on paths of its clients by mistake gets no 2xx answer for them.
    ///
    /// # Errors
    /// [`Reason::ForwardAuthRequest`] for other targets.
    pub fn action(&self, method: &Method, target: &str) -> Result<Action, Rejection> {
        if target == REPORT {
            return match *method {
                Method::POST => Ok(Action::Report),
                _ => Err(invalid(format!("{REPORT} takes only POST"))),
            };
        }
        let rest = target.strip_prefix(CHECK);
        let (asks, remedy) = match self.kind {
            ProxyKind::Nginx | ProxyKind::Traefik => (rest == Some(""), "ask at /check"),
            // Caddy keeps the original query.
            ProxyKind::Caddy => (
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?')),
                "write `uri /check` in Caddy's forward_auth",
            ),
            ProxyKind::Envoy => (
                rest.is_some_and(|rest| rest.starts_with('/')),
                "write `path_prefix: /check` in Envoy's http_service",
            ),
        };
        if asks {
            return Ok(Action::Check);
        }
        Err(invalid(format!("there is nothing at this path: {remedy}")))
    }

    /// The status with which this proxy is told about a refusal. nginx answers its client 500 to
    /// anything but 2xx, 401 and 403, which is right for faults that are not the client's.
    pub fn status(&self, reason: Reason) -> StatusCode {
        let status = reason.status();
        let passes = status == StatusCode::UNAUTHORIZED || reason == Reason::ForwardAuthRequest;
        if self.kind == ProxyKind::Nginx && status.is_client_error() && !passes {
            return StatusCode::FORBIDDEN;
        }
        status
    }

    /// Whether the proxy may get credentials of `route`. The configuration reader refuses the routes
    /// that this refuses by their nature; this also covers routes that were built in another way.
    fn serves(&self, route: &Route) -> bool {
        let needs_token = !route.anonymous && route.workload_token.is_none();
        self.routes.contains(&route.name)
            && needs_token
            && route.session.is_none()
            && !route.takes_password()
    }

    /// The answer that lets the request pass with `credential`. Every header that the upstream trusts is
    /// in it, so that none of the original request's survives: those without a value are empty, or
    /// named for Envoy to remove.
    fn allow(
        &self,
        credential: CredentialHeader,
        decision: Option<&Decision>,
        rule_headers: &[HeaderName],
    ) -> LocalResponse {
        let mut response = LocalResponse::new(StatusCode::OK);
        let headers = &mut response.upstream_headers;
        headers.push((credential.name, credential.value));
        headers.extend_from_slice(decision.map_or(&[], Decision::headers));
        let trusted = std::iter::once(&header::AUTHORIZATION).chain(rule_headers);
        let absent = trusted.filter(|name| !headers.iter().any(|(set, _)| set == *name));
        let absent: Vec<HeaderName> = absent.cloned().collect();
        if self.kind != ProxyKind::Envoy {
            let empty = |name| (name, HeaderValue::from_static(""));
            headers.extend(absent.into_iter().map(empty));
        } else if !absent.is_empty() {
            let names: Vec<_> = absent.iter().map(HeaderName::as_str).collect();
            response = response.header(ENVOY_REMOVES, names.join(","));
        }
        response
    }
}

impl Gateway {
    /// The `[[forward_auth]]` called `name`; `None` if a reload has removed it.
    pub fn forward_auth(&self, name: &str) -> Option<&Arc<ForwardAuth>> {
        self.forward_auth.iter().find(|asked| *asked.name == *name)
    }

    /// Decides about the original request `head`, as [`Gateway::admit`] does, and answers with its
    /// credential. With the receipt of a rejected credential in `X-Hawkgate-Rejected`, that is replaced
    /// first, within the limits of [`crate::credential::CachedSource::replace`].
    ///
    /// # Errors
    /// If the request is refused.
    pub async fn check_original(
        &self,
        asked: &ForwardAuth,
        head: Head<'_>,
        now: Now,
    ) -> Result<(Admission, LocalResponse), Box<AdmissionError>> {
        let before = |rejection| Err(Box::new(AdmissionError::before_routing(rejection)));
        let found = self.match_route(head)?;
        if !asked.serves(found.route) {
            let cause = format!(
                "route {} is not among the routes of this [[forward_auth]]",
                found.route.name
            );
            return before(Rejection::from(Reason::NoRoute).with_cause(cause));
        }
        if has_bewit(head.target) {
            let cause = "the URL has a bewit, and upstreams refuse a second credential";
            return before(Rejection::from(Reason::BewitRefused).with_cause(cause));
        }
        let memo = &mut CallerMemo::default();
        let mut admission = self.admit_with_memo(found, head, now, memo).await?;
        match self.answer(asked, &mut admission, head, now).await {
            Ok(response) => Ok((admission, response)),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    async fn answer(
        &self,
        asked: &ForwardAuth,
        admission: &mut Admission,
        head: Head<'_>,
        now: Now,
    ) -> Result<LocalResponse, Rejection> {
        let holder = holder(head.headers, self.max_token_bytes)?;
        replace_rejected(admission, head.headers, holder, now).await?;
        // As hawkgate itself would send it to the upstream.
        let target = admission.target().unwrap_or(head.target);
        let Some(credential) = self.sign(admission, head.method, target)? else {
            let cause = "the route has no credential";
            return Err(Rejection::from(Reason::Internal).with_cause(cause));
        };
        let response = asked.allow(credential, admission.decision(), &self.rule_headers);
        let receipt = receipt(admission, target, holder, now);
        Ok(match receipt {
            Some(receipt) => response.header(CREDENTIAL, receipt),
            None => response,
        })
    }

    /// Drops the credential whose receipt is in `X-Hawkgate-Rejected`, unless it has been replaced. The
    /// caller's token must be the one that it was handed out for.
    ///
    /// # Errors
    /// If there is no such receipt or token, or if 401s of this caller have caused an exchange in the last
    /// 30 seconds.
    pub fn report_401(
        &self,
        asked: &ForwardAuth,
        headers: &dyn HeaderFields,
    ) -> Result<(), Rejection> {
        let holder = holder(headers, self.max_token_bytes)?;
        let receipt = only(headers, &REJECTED).ok().flatten();
        let Some(receipt) = receipt else {
            return Err(invalid("one X-Hawkgate-Rejected is required".to_owned()));
        };
        let now = self.clock.now();
        let served = self.routes.iter().filter(|route| asked.serves(route));
        let reported = served
            .filter_map(|route| route.source.as_ref())
            .find_map(|source| {
                let receipt = source.check_receipt(receipt, holder, now)?;
                Some(source.report(&receipt))
            });
        match reported {
            Some(Reported::Replaced) => Ok(()),
            Some(Reported::Limited) => Err(Rejection {
                retry_after: Some(RETRY_AFTER),
                ..Reason::RateLimited.into()
            }
            .with_cause("401s of this caller have caused an exchange a short time ago")),
            None => Err(invalid(
                "X-Hawkgate-Rejected has expired, or was not handed out for this token".to_owned(),
            )),
        }
    }
}

/// The digest of the caller's token, with which receipts are bound to it.
fn holder(headers: &dyn HeaderFields, max_bytes: usize) -> Result<TokenDigest, Rejection> {
    let token = PresentedToken::from_headers(headers, max_bytes)?;
    let token = token.ok_or_else(|| Rejection::from(Reason::MissingToken))?;
    Ok(token.digest())
}

/// Replaces the credential, if the proxy reports that it was rejected. A receipt that is not valid
/// counts for nothing: any client of the proxy may have sent it.
async fn replace_rejected(
    admission: &mut Admission,
    headers: &dyn HeaderFields,
    holder: TokenDigest,
    now: Now,
) -> Result<(), Rejection> {
    let Ok(Some(receipt)) = only(headers, &REJECTED) else {
        return Ok(());
    };
    let (Some(source), Some(lease)) = (&admission.route.source, admission.lease.clone()) else {
        return Ok(());
    };
    let receipt = source.check_receipt(receipt, holder, now.wall);
    if !receipt.is_some_and(|receipt: Receipt| receipt.is_for(&lease)) {
        return Ok(());
    }
    match recovery::replace(admission, &lease).await {
        Recovery::Refuse(_, rejection) => Err(*rejection),
        // If nothing else is to be had, the proxy tries the same credential again, and passes the 401 on.
        Recovery::Replay(_) | Recovery::PassThrough(_) => Ok(()),
    }
}

/// The receipt of the credential, unless 401s to this target are the upstream's own.
fn receipt(admission: &Admission, target: &str, holder: TokenDigest, now: Now) -> Option<String> {
    if admission.route.passes_401(target) {
        return None;
    }
    let (source, lease) = (admission.route.source.as_ref()?, admission.credential()?);
    source.receipt(&admission.swap_request(), lease, holder, now.wall)
}

/// A request of the proxy that cannot be served, which is a mistake in its configuration.
fn invalid(cause: String) -> Rejection {
    Rejection::from(Reason::ForwardAuthRequest).with_cause(cause)
}
