//! `POST /bewit`: URLs signed for whoever cannot sign (taskcluster.md §7).

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use http::Method;
use url::Url;
use zeroize::Zeroizing;

use super::rejection::Rejection;
use super::route::{NoRoute, Upstream};
use super::{Admission, Gateway, Head, Refused, path};
use crate::clock::Now;
use crate::credential::{Credential, Lease};
use crate::gateway::reason::Reason;
use crate::hawk::HawkError;
use crate::hawk::bewit::{BewitRequest, has_bewit};

/// Where bewits are made, at every host.
pub const PATH: &str = "/bewit";

/// The longest URL that is signed, in bytes; with its bewit the service reads at most 4096
/// characters of path and query.
pub const MAX_URL_BYTES: usize = 8 * 1024;

/// How long a signed URL is good, as long as its credentials are.
const LIFETIME: Duration = Duration::from_hours(1);

/// A signed URL: whoever has it can use it. `Debug` shows nothing.
pub struct SignedUrl(Zeroizing<String>);

impl SignedUrl {
    /// The URL itself. Every use of this is a place to review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedUrl([redacted])")
    }
}

/// Whether `target` is where bewits are made.
pub(super) fn is_endpoint(target: &str) -> bool {
    path::without_query(target) == PATH
}

impl Gateway {
    /// Whether this target is an endpoint that makes bewits.
    pub fn makes_bewits_at(&self, target: &str) -> bool {
        self.routes.makes_bewits() && is_endpoint(target)
    }

    /// Signs `url`, which must be one that a GET through this gateway at the same path
    /// would reach, by a route with `bewit = true`, and with what that route wants of its
    /// callers. `head` is that of the request for the bewit.
    ///
    /// # Errors
    /// With the refusal to send: of the URL, or of its caller as the route refuses him.
    pub async fn bewit(
        &self,
        head: Head<'_>,
        url: &str,
    ) -> Result<(Admission, SignedUrl), Box<Refused>> {
        let before = |rejection| Box::new(Refused::before_routing(rejection));
        let url = Written::parse(url.trim_ascii()).map_err(before)?;
        let route = match self.routes.find(head.host, url.target, &Method::GET) {
            Ok(route) if route.compat.bewit && url.leads_to(&route.upstream) => route,
            Err(NoRoute::Ambiguous) => return Err(before(unreadable("the path is ambiguous"))),
            Ok(_) | Err(NoRoute::Unmatched) => return Err(before(Reason::BewitRefused.into())),
        };
        let opened = Head {
            method: &Method::GET,
            target: url.target,
            ..head
        };
        let admission = self
            .admit_on(route, opened, Now::read(&*self.clock))
            .await?;
        match self.sign_url(&admission, &url) {
            Ok(signed) => Ok((admission, signed)),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    fn sign_url(&self, admission: &Admission, url: &Written<'_>) -> Result<SignedUrl, Rejection> {
        let credential = admission.lease.as_ref().map(Lease::credential);
        let Some(Credential::Taskcluster { signer, .. }) = credential else {
            return Err(
                Rejection::from(Reason::Internal).because("the route has nothing to sign with")
            );
        };
        let upstream = &admission.route.upstream;
        let now = self.clock.now().offset_by(upstream.clock_offset());
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
                Rejection::from(reason).because(error.to_string())
            })?;
        Ok(SignedUrl(Zeroizing::new(format!(
            "{}{}",
            url.origin, &*target
        ))))
    }
}

/// A URL taken apart; the target byte for byte as it was written.
struct Written<'a> {
    /// Scheme and authority, as written.
    origin: &'a str,
    target: &'a str,
    parsed: Url,
}

impl<'a> Written<'a> {
    fn parse(text: &'a str) -> Result<Self, Rejection> {
        if text.is_empty() {
            return Err(unreadable("the body holds no URL"));
        }
        // The rules for a request's own target, and a fragment is never sent.
        let plain = |b: u8| b.is_ascii_graphic() && !b"#\"<>\\`".contains(&b);
        if !text.bytes().all(plain) {
            return Err(unreadable("the URL has characters that a URL cannot have"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(unreadable("the URL is not absolute"));
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let origin = &text[..scheme.len() + "://".len() + end];
        if authority.contains('@') || !target.starts_with('/') {
            return Err(unreadable("the URL has a user name or no path"));
        }
        if path::climbs(path::without_query(target)) {
            return Err(unreadable("the URL has dot segments"));
        }
        if has_bewit(target) {
            return Err(unreadable("the URL has a bewit already"));
        }
        let parsed = Url::parse(origin).map_err(|_| unreadable("the URL has no readable host"))?;
        Ok(Self {
            origin,
            target,
            parsed,
        })
    }

    /// Whether this is where requests to `upstream` go.
    fn leads_to(&self, upstream: &Upstream) -> bool {
        let scheme = if upstream.tls { "https" } else { "http" };
        let host = self.parsed.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        self.parsed.scheme() == scheme
            && bare == upstream.host
            && self.parsed.port_or_known_default() == Some(upstream.port)
    }
}

fn unreadable(cause: &'static str) -> Rejection {
    Rejection::from(Reason::BadRequest).because(cause)
}
