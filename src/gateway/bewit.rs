//! `POST /bewit`: signs URLs with a bewit, as taskcluster-proxy does
//! (`docs/design/taskcluster.md`).

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use http::Method;
use url::Url;
use zeroize::Zeroizing;

use super::rejection::Rejection;
use super::route::{NoRoute, Upstream};
use super::{Admission, AdmissionError, CallerMemo, Gateway, Head, path, reserved_path};
use crate::clock::Now;
use crate::credential::{Credential, Lease};
use crate::gateway::reason::Reason;
use crate::hawk::HawkError;
use crate::hawk::bewit::{BewitRequest, has_bewit};

/// The path of the endpoint, on every host.
pub const PATH: &str = reserved_path::BEWIT;

/// Maximum length of a URL, in bytes. Services limit path and query, including the bewit, to 4096
/// characters.
pub const MAX_URL_BYTES: usize = 8 * 1024;

/// Lifetime of a bewit. It becomes invalid earlier if its credentials expire.
const LIFETIME: Duration = Duration::from_hours(1);

/// A signed URL. Anyone who has it can use it, so `Debug` redacts it.
pub struct SignedUrl(Zeroizing<String>);

impl SignedUrl {
    /// The URL. Review every use of this.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedUrl([redacted])")
    }
}

/// Whether `target` is the endpoint.
pub(super) fn is_endpoint(target: &str) -> bool {
    path::without_query(target) == PATH
}

impl Gateway {
    /// Whether `target` is the endpoint and any route has `bewit = true`.
    pub fn is_bewit_endpoint(&self, target: &str) -> bool {
        self.routes.has_bewit_route() && is_endpoint(target)
    }

    /// Checks a request to the endpoint before its body is read. The route of its URL has its own
    /// check.
    ///
    /// # Errors
    /// If a web page sent the request, and no route with `bewit = true` needs credentials.
    pub fn check_bewit_sender(&self, head: Head<'_>) -> Result<(), Rejection> {
        let (isolation, named) = (
            self.routes.bewit_isolation(),
            self.routes.names_host(head.host),
        );
        self.isolation.check_route(isolation, named, None, head)
    }

    /// Signs `url`, provided that a GET of the same path through this gateway would reach it by a
    /// route with `bewit = true` that admits the caller. `head` is the head of the request to the
    /// endpoint.
    ///
    /// # Errors
    /// If the URL does not belong to the upstream of such a route, or the route refuses the caller.
    pub async fn bewit(
        &self,
        head: Head<'_>,
        url: &str,
    ) -> Result<(Admission, SignedUrl), Box<AdmissionError>> {
        let before = |rejection| Box::new(AdmissionError::before_routing(rejection));
        let url = TargetUrl::parse(url.trim_ascii()).map_err(before)?;
        let route = match self.routes.find(head.host, url.target, &Method::GET) {
            Ok(route) if route.compat.bewit && url.is_for(&route.upstream) => route,
            Err(NoRoute::Ambiguous(ambiguity)) => return Err(before(ambiguity.into())),
            Ok(_) | Err(NoRoute::Unmatched | NoRoute::Reserved) => {
                return Err(before(Reason::BewitRefused.into()));
            }
        };
        let signed_request = Head {
            method: &Method::GET,
            target: url.target,
            ..head
        };
        let now = Now::read(&*self.clock);
        let admission = self
            .admit_on(route, signed_request, now, &mut CallerMemo::default())
            .await?;
        match self.sign_url(&admission, &url) {
            Ok(signed) => Ok((admission, signed)),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    fn sign_url(&self, admission: &Admission, url: &TargetUrl<'_>) -> Result<SignedUrl, Rejection> {
        let credential = admission.lease.as_ref().map(Lease::credential);
        let Some(Credential::Taskcluster { signer, .. }) = credential else {
            return Err(Rejection::from(Reason::Internal)
                .with_cause("the route has no credential to sign with"));
        };
        let upstream = &admission.route.upstream;
        let now = Self::time_at(upstream, admission, Now::read(&*self.clock));
        let target = signer
            .with_bewit(&BewitRequest {
                target: url.target,
                host: &upstream.host,
                port: upstream.signed_port,
                expires: now.plus(LIFETIME),
            })
            .map(Zeroizing::new)
            .map_err(|error| {
                let reason = match error {
                    HawkError::TargetTooLong { .. } => Reason::UrlTooLong,
                    HawkError::SecondScheme | HawkError::Unsignable(_) => Reason::BadRequest,
                    _ => Reason::Internal,
                };
                Rejection::from(reason).with_cause(error.to_string())
            })?;
        Ok(SignedUrl(Zeroizing::new(format!(
            "{}{}",
            url.origin, &*target
        ))))
    }
}

/// A parsed URL whose target is preserved byte for byte.
pub(super) struct TargetUrl<'a> {
    /// Scheme and authority, as sent.
    origin: &'a str,
    target: &'a str,
    parsed: Url,
}

impl<'a> TargetUrl<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Rejection> {
        if text.is_empty() {
            return Err(bad_url("the body contains no URL"));
        }
        // As for request targets. `#` is excluded because a fragment is never sent to a server.
        let plain = |b: u8| b.is_ascii_graphic() && !b"#\"<>\\`".contains(&b);
        if !text.bytes().all(plain) {
            return Err(bad_url(
                "the URL has characters that are not valid in a URL",
            ));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad_url("the URL is not absolute"));
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let origin = &text[..scheme.len() + "://".len() + end];
        if authority.contains('@') || !target.starts_with('/') {
            return Err(bad_url("the URL has a user name or lacks a path"));
        }
        if path::has_dot_segments(path::without_query(target)) {
            return Err(bad_url("the URL has dot segments"));
        }
        if has_bewit(target) {
            return Err(bad_url("the URL already has a bewit"));
        }
        let parsed = Url::parse(origin).map_err(|_| bad_url("the URL has no valid host"))?;
        Ok(Self {
            origin,
            target,
            parsed,
        })
    }

    /// Whether the URL belongs to `upstream`.
    fn is_for(&self, upstream: &Upstream) -> bool {
        let scheme = if upstream.tls { "https" } else { "http" };
        let host = self.parsed.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        self.parsed.scheme() == scheme
            && bare == upstream.host
            && self.parsed.port_or_known_default() == Some(upstream.port)
    }
}

fn bad_url(cause: &'static str) -> Rejection {
    Rejection::from(Reason::BadRequest).with_cause(cause)
}
