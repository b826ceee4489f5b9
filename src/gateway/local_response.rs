//! Responses of hawkgate's own endpoints (`[login]`, `[[session]]`, `[[forward_auth]]` and `/bewit`), and
//! to preflights and other OPTIONS requests that are not forwarded.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use zeroize::Zeroizing;

use super::outcome::{ForwardAuthRecord, SessionRecord};
use super::rejection::{ErrorResponse, Rejection};
use crate::clock::UnixMillis;
use crate::token::Caller;

/// The methods that a route without `methods` is known to take.
pub(super) const STANDARD_METHODS: [&str; 7] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A response that hawkgate generates. It may contain credentials, so `Debug` omits the body.
pub struct LocalResponse {
    /// The status.
    pub status: StatusCode,
    /// Headers by name, without `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// Headers whose names are configured, for the proxy that sends the request upstream.
    pub upstream_headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
    /// The rejection, if the request was refused.
    pub rejection: Option<Rejection>,
    /// Details of the request, for metrics and logs.
    pub details: RequestDetails,
}

/// What metrics and logs record about a request to one of these endpoints.
#[derive(Clone, Debug, Default)]
pub struct RequestDetails {
    /// The value of the `route` label.
    pub route: Option<Arc<str>>,
    /// The issuer, once known.
    pub issuer: Option<Arc<str>>,
    /// The result of verification, if one took place.
    pub verification: Option<&'static str>,
    /// The rule that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// Set for forward-auth requests.
    pub forward_auth: Option<Box<ForwardAuthRecord>>,
    /// The session, at an endpoint of one.
    pub session: Option<Box<SessionRecord>>,
    /// The source of the credentials.
    pub source: Option<Arc<str>>,
    /// The caller, if authenticated.
    pub caller: Option<Caller>,
    /// The `clientId` of the credentials issued.
    pub credential: Option<String>,
    /// The scopes that a rule limited the credentials to.
    pub scopes: Option<Arc<[String]>>,
    /// Why a preflight got no permission.
    pub cause: Option<&'static str>,
}

impl LocalResponse {
    /// A response without a body.
    pub(super) fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: vec![("cache-control", "no-store".into())],
            upstream_headers: Vec::new(),
            body: Zeroizing::default(),
            rejection: None,
            details: RequestDetails::default(),
        }
    }

    /// `204 No Content`.
    pub fn no_content() -> Self {
        Self::new(StatusCode::NO_CONTENT)
    }

    /// `303 See Other` to `url`, which is also the body, as in taskcluster-proxy.
    pub fn see_other(url: &str) -> Self {
        let mut response = Self::new(StatusCode::SEE_OTHER)
            .header("location", url)
            .header("content-type", "text/plain; charset=utf-8");
        response.body = Zeroizing::new(url.as_bytes().to_vec());
        response
    }

    /// The response to an OPTIONS request that is not forwarded, on a route for these `methods`;
    /// `None` if it is for any.
    pub fn options(methods: Option<&[Method]>) -> Self {
        let allow = match methods {
            Some(methods) => {
                let names: Vec<_> = methods.iter().map(Method::as_str).collect();
                names.join(", ")
            }
            None => STANDARD_METHODS.join(", "),
        };
        Self::new(StatusCode::NO_CONTENT).header("allow", allow)
    }

    /// The response to a refused request.
    pub fn refusal(rejection: Rejection, method: &Method, now: UnixMillis) -> Self {
        let ErrorResponse {
            status,
            headers,
            body,
        } = rejection.to_response(method, now);
        Self {
            status,
            headers,
            upstream_headers: Vec::new(),
            body: Zeroizing::new(body.into_bytes()),
            rejection: Some(rejection),
            details: RequestDetails::default(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl fmt::Debug for LocalResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalResponse")
            .field("status", &self.status)
            .field("rejection", &self.rejection)
            .finish_non_exhaustive()
    }
}
