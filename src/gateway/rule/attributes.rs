//! The attributes of a caller and request that rules are evaluated with.

use std::net::IpAddr;

use http::header::USER_AGENT;
use serde_json::{Map, Value};

use crate::gateway::client_certificate::ClientCertificate;
use crate::header_fields::{HeaderFields, only, text};
use crate::token::Caller;

/// The attributes that an expression is evaluated with.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// The verified claims; `None` for opaque tokens and anonymous routes.
    pub claims: Option<&'a Map<String, Value>>,
    /// The configured name of the issuer; empty on anonymous routes.
    pub issuer: &'a str,
    /// `sub`; empty without claims.
    pub subject: &'a str,
    /// `client_id`, otherwise `azp`; empty if the token has neither.
    pub client: &'a str,
    /// `scope`, split at spaces.
    pub scopes: &'a [String],
    /// Attributes of the request.
    pub request: RequestAttributes<'a>,
}

/// The attributes of a request's head.
#[derive(Clone, Copy, Debug)]
pub struct RequestAttributes<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The host, in lower case and without port.
    pub host: &'a str,
    /// The path, without query.
    pub path: &'a str,
    /// `User-Agent`; empty if absent, repeated or not visible ASCII.
    pub user_agent: &'a str,
    /// The client's address; `None` on Unix sockets.
    pub address: Option<IpAddr>,
    /// The client's verified certificate, if it presented one.
    pub certificate: Option<&'a ClientCertificate>,
}

impl<'a> Attributes<'a> {
    /// The attributes of `caller` and `request`. Opaque tokens and anonymous callers have no
    /// claims. A username is not an attribute: it is unverified until the exchange, which takes
    /// place after the rules.
    pub(super) fn of(caller: &'a Caller, request: RequestAttributes<'a>) -> Self {
        let unknown = Self {
            claims: None,
            issuer: "",
            subject: "",
            client: "",
            scopes: &[],
            request,
        };
        match caller {
            Caller::Verified(token) => Self {
                claims: Some(token.claims()),
                issuer: token.issuer(),
                subject: token.subject(),
                client: token.client().unwrap_or_default(),
                scopes: token.scopes(),
                request,
            },
            // `token.issuer` is empty: an issuer may have the session's name.
            Caller::Client(client) => Self {
                claims: Some(client.claims()),
                subject: client.client_id(),
                client: client.client_id(),
                ..unknown
            },
            Caller::Delegated { issuer, .. } => Self { issuer, ..unknown },
            Caller::Password { .. } | Caller::Anonymous => unknown,
        }
    }
}

/// The `User-Agent`; empty unless there is exactly one, in visible ASCII.
pub(in crate::gateway) fn user_agent(headers: &dyn HeaderFields) -> &str {
    let found = only(headers, &USER_AGENT).ok().flatten();
    found.and_then(text).unwrap_or_default()
}
