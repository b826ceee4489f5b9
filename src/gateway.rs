//! The decisions: which route, who calls, with what credential, and what to do about a
//! 401. Knows neither sockets nor pingora; [`crate::proxy`] asks it.

pub mod outcome;
pub mod rejection;
pub mod route;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use crate::clock::{SharedClock, UnixMillis};
use crate::credential::Lease;
use crate::token::Caller;
use outcome::{Lookup, UnauthorizedReason};
use rejection::Rejection;
use route::{Route, RouteTable};

/// Everything that one configuration means, ready to decide. Immutable but for caches;
/// swapped whole on reload.
#[derive(Debug)]
pub struct Gateway {
    /// Routes by host and longest prefix.
    pub routes: RouteTable,
    /// The clock in use.
    pub clock: SharedClock,
}

/// What of a request's head decides.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// As sent.
    pub method: &'a Method,
    /// Host or :authority, lower case or not, with or without port.
    pub host: &'a str,
    /// Raw path and query.
    pub target: &'a str,
    /// For `Authorization` only.
    pub headers: &'a HeaderMap,
}

/// Leave to go upstream: the route, who calls, and the credential on loan.
#[derive(Debug)]
pub struct Admission {
    /// The matched route.
    pub route: Arc<Route>,
    /// Who calls.
    pub caller: Caller,
    /// "ok", "cached" or nothing where no token was verified.
    pub verification: Option<&'static str>,
    /// How the credential was come by.
    pub lookup: Option<Lookup>,
    lease: Option<Lease>,
}

/// What the upstream said with its 401.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamAnswer {
    /// Its `Date`, if it had a readable one.
    pub date: Option<UnixMillis>,
}

/// Whether the request can be sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayable {
    /// Head and body are all there, or there is no body.
    Yes,
    /// For this reason not.
    No(UnauthorizedReason),
}

/// What to do about a 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Sign anew and send again.
    Replay(UnauthorizedReason),
    /// Give the 401 to the caller.
    PassThrough(UnauthorizedReason),
}

/// A refusal together with how far the request had come, for metrics and logs.
#[derive(Debug)]
pub struct Refused {
    /// What the caller sees.
    pub rejection: Rejection,
    /// The route, if one had matched.
    pub route: Option<Arc<Route>>,
    /// The issuer, if it was known.
    pub issuer: Option<Arc<str>>,
    /// The result of verification, if one took place.
    pub verification: Option<&'static str>,
    /// The result of the credential lookup, if one took place.
    pub lookup: Option<Lookup>,
}

impl Gateway {
    /// Routes and authenticates a request and gets its credential.
    pub async fn admit(&self, _head: Head<'_>) -> Result<Admission, Refused> {
        todo!()
    }

    /// The header to put on this attempt, if the route signs: `(name, value)` is always
    /// `Authorization` for now. Call once per attempt, with the target as it goes out.
    pub fn sign(
        &self,
        _admission: &Admission,
        _method: &Method,
        _target: &str,
    ) -> Result<Option<HeaderValue>, Rejection> {
        todo!()
    }

    /// The upstream answered 401: drops the credential, and when the request is
    /// `replayable` gets another or learns the clock offset.
    pub async fn recover(
        &self,
        _admission: &mut Admission,
        _answer: UpstreamAnswer,
        _replayable: Replayable,
    ) -> Recovery {
        todo!()
    }
}
