//! The original request, as each kind of proxy describes it. Nothing is guessed: each header must be
//! there exactly once, and headers of other proxies are not read, because clients can send them.

use http::{HeaderName, Method};

use super::{CHECK, ProxyKind, invalid};
use crate::gateway::rejection::Rejection;
use crate::header_fields::{HeaderFields, Repeated, only, text};

const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// A request that a proxy asks about. Only its form is not checked yet: it is to be treated like a
/// request that arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRequest {
    /// The method.
    pub method: Method,
    /// The host, with or without a port.
    pub host: String,
    /// Path and query, byte for byte.
    pub target: String,
}

impl ProxyKind {
    /// Reads the original request from the `method`, `host`, `target` and `headers` of the request to
    /// [`CHECK`].
    ///
    /// # Errors
    /// If a header is missing, repeated or malformed.
    pub fn original(
        self,
        method: &Method,
        host: &str,
        target: &str,
        headers: &dyn HeaderFields,
    ) -> Result<OriginalRequest, Rejection> {
        match self {
            Self::Nginx => {
                let method = method_in(headers, &X_ORIGINAL_METHOD, NGINX_METHOD)?;
                let url = required(headers, &X_ORIGINAL_URL, NGINX_URL)?;
                let (host, target) = split_url(url).ok_or_else(|| {
                    let problem = "is not scheme://host/path";
                    invalid(format!("{X_ORIGINAL_URL} {problem}: {NGINX_URL}"))
                })?;
                Ok(OriginalRequest {
                    method,
                    host: host.to_owned(),
                    target: target.to_owned(),
                })
            }
            Self::Traefik | Self::Caddy => {
                let remedy = if self == Self::Traefik {
                    "Traefik's ForwardAuth sends it unless trustForwardHeader is set"
                } else {
                    "Caddy's forward_auth directive sends it"
                };
                Ok(OriginalRequest {
                    method: method_in(headers, &X_FORWARDED_METHOD, remedy)?,
                    host: required(headers, &X_FORWARDED_HOST, remedy)?.to_owned(),
                    target: required(headers, &X_FORWARDED_URI, remedy)?.to_owned(),
                })
            }
            Self::Envoy => Ok(OriginalRequest {
                method: method.clone(),
                host: host.to_owned(),
                target: target.strip_prefix(CHECK).unwrap_or_default().to_owned(),
            }),
        }
    }
}

const NGINX_METHOD: &str = "write `proxy_set_header X-Original-Method $request_method;`";
const NGINX_URL: &str = "write `proxy_set_header X-Original-URL $scheme://$host$request_uri;`";

fn required<'h>(
    headers: &'h dyn HeaderFields,
    name: &HeaderName,
    remedy: &str,
) -> Result<&'h str, Rejection> {
    let problem = match only(headers, name) {
        Ok(Some(value)) => match text(value) {
            Some(text) if !text.is_empty() => return Ok(text),
            _ => "is empty or not ASCII",
        },
        Ok(None) => "is missing",
        Err(Repeated) => "was sent more than once",
    };
    Err(invalid(format!("{name} {problem}: {remedy}")))
}

fn method_in(
    headers: &dyn HeaderFields,
    name: &HeaderName,
    remedy: &str,
) -> Result<Method, Rejection> {
    let method = required(headers, name, remedy)?;
    Method::from_bytes(method.as_bytes())
        .map_err(|_| invalid(format!("{name} is not a method: {remedy}")))
}

/// Splits an absolute URL into its authority, and its path and query as sent.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let path = rest.find(['/', '?', '#'])?;
    Some(rest.split_at(path))
}
