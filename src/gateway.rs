//! The decisions: which route, who calls, with what credential, and what to do about a
//! 401. Knows neither sockets nor pingora; [`crate::proxy`] asks it.

mod admission;
pub mod bewit;
pub mod client;
pub mod fields;
pub mod informational;
pub mod login;
mod observe;
pub mod outcome;
mod path;
pub mod rate;
pub mod reason;
mod recovery;
pub mod rejection;
pub mod route;
pub mod rule;
mod served;
mod shortcut;

pub use crate::token::OTP;
pub use admission::{Admission, Refused};
pub use observe::Observe;
pub use recovery::{Recovery, Replayable, UpstreamAnswer};
pub use served::{Facts, Served};

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use crate::clock::{Now, SharedClock};
use crate::credential::Credential;
use crate::hawk::{self, HawkError, SignedRequest};
use crate::header_fields::HeaderFields;
use admission::{bearer, password};
use client::ClientCertificate;
use reason::Reason;
use rejection::Rejection;
use route::{NoRoute, Route, RouteTable};
use rule::RequestFacts;

/// Everything that one configuration means, ready to decide. Immutable but for caches;
/// swapped whole on reload.
#[derive(Debug)]
pub struct Gateway {
    /// Routes by host and longest prefix.
    pub routes: RouteTable,
    /// The endpoint that gives out credentials, if it is on.
    pub login: Option<login::Login>,
    /// The clock in use.
    pub clock: SharedClock,
    /// Every header that any rule sets: the caller's own copies go on every route, or an
    /// upstream that believes them could be lied to.
    pub rule_headers: Vec<HeaderName>,
    /// What is told of requests.
    pub observe: Observe,
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
    /// For `Authorization`, beside a password `X-OTP`, and `User-Agent` where rules look at it.
    pub headers: &'a dyn HeaderFields,
    /// The client's address; none on Unix sockets.
    pub peer: Option<IpAddr>,
    /// The client's verified certificate, if it presented one.
    pub certificate: Option<&'a ClientCertificate>,
}

impl<'a> Head<'a> {
    /// What rules can know of it; `host` is [`route::host_name`] of this head's.
    pub fn facts(&self, host: &'a str) -> RequestFacts<'a> {
        RequestFacts {
            method: self.method.as_str(),
            host,
            path: path::without_query(self.target),
            user_agent: rule::facts::user_agent(self.headers),
            address: self.peer,
            certificate: self.certificate,
        }
    }

    fn client(&self) -> rate::Client<'a> {
        rate::Client {
            address: self.peer,
            certificate: self.certificate,
        }
    }
}

/// The route of one request.
#[derive(Debug)]
pub struct Found<'a> {
    /// Where it goes.
    pub route: &'a Arc<Route>,
    /// Its target in the long form, where it came in the short one.
    long: Option<String>,
}

impl Gateway {
    /// Routes and authenticates a request and gets its credential.
    ///
    /// # Errors
    /// With the refusal to send, and what was known by then.
    pub async fn admit(&self, head: Head<'_>) -> Result<Admission, Box<Refused>> {
        let now = Now::read(&*self.clock);
        self.admit_to(self.find(head)?, head, now).await
    }

    /// The first step of [`Gateway::admit`], for who has to know the route before the rest.
    ///
    /// # Errors
    /// With the refusal to send.
    pub fn find(&self, head: Head<'_>) -> Result<Found<'_>, Box<Refused>> {
        let (route, long) = self.routed(head)?;
        Ok(Found { route, long })
    }

    /// The rest of [`Gateway::admit`], at `now`.
    ///
    /// # Errors
    /// With the refusal to send, and what was known by then.
    pub async fn admit_to(
        &self,
        found: Found<'_>,
        head: Head<'_>,
        now: Now,
    ) -> Result<Admission, Box<Refused>> {
        let Found { route, long } = found;
        let target = long.as_deref().unwrap_or(head.target);
        let mut admission = self.admit_on(route, Head { target, ..head }, now).await?;
        admission.target = long;
        Ok(admission)
    }

    /// As [`Gateway::admit`], but for the credential, which is not asked for: leave to go
    /// upstream unsigned.
    ///
    /// # Errors
    /// With the refusal to send, and what was known by then.
    pub async fn assess(&self, head: Head<'_>) -> Result<Admission, Box<Refused>> {
        let (route, long) = self.routed(head)?;
        let target = long.as_deref().unwrap_or(head.target);
        let now = Now::read(&*self.clock);
        let mut admission = self.assess_to(route, Head { target, ..head }, now).await?;
        admission.target = long;
        Ok(admission)
    }

    fn routed(&self, head: Head<'_>) -> Result<(&Arc<Route>, Option<String>), Box<Refused>> {
        self.route(head)
            .map_err(|reason| Box::new(Refused::before_routing(reason.into())))
    }

    /// The route, and the target in its long form where it came in the short one. Such a
    /// request goes where it would go in its long form, so that no route can be walked
    /// around.
    fn route(&self, head: Head<'_>) -> Result<(&Arc<Route>, Option<String>), Reason> {
        let find = |target: &str| {
            let found = self.routes.find(head.host, target, head.method);
            found.map_err(|none| match none {
                NoRoute::Unmatched => Reason::NoRoute,
                NoRoute::Ambiguous => Reason::BadRequest,
            })
        };
        let route = find(head.target)?;
        if !route.compat.shortcut {
            return Ok((route, None));
        }
        match shortcut::lengthen(head.target) {
            Some(long) => Ok((find(&long)?, Some(long))),
            None => Ok((route, None)),
        }
    }

    /// What [`Gateway::admit`] does once the route is found and the target a long one.
    async fn admit_on(
        &self,
        route: &Arc<Route>,
        head: Head<'_>,
        now: Now,
    ) -> Result<Admission, Box<Refused>> {
        let mut admission = self.assess_to(route, head, now).await?;
        match Self::lease(&mut admission, head).await {
            Ok(()) => Ok(admission),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    async fn assess_to(
        &self,
        route: &Arc<Route>,
        head: Head<'_>,
        now: Now,
    ) -> Result<Admission, Box<Refused>> {
        let mut admission = Admission::to(Arc::clone(route));
        match Self::authorize(&mut admission, head, now).await {
            Ok(()) => Ok(admission),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    /// Who calls, and whether the rules let them.
    async fn authorize(
        admission: &mut Admission,
        head: Head<'_>,
        now: Now,
    ) -> Result<(), Rejection> {
        let client = head.client();
        admission.route.rates.arrived(client)?;
        if admission.route.takes_password() {
            admission.caller = password(head)?;
        } else if !admission.route.anonymous {
            let bearer = bearer(&admission.route, head.headers)?;
            if let Err(rejection) = admission.authenticate(bearer, now).await {
                admission.route.rates.unidentified(client)?;
                return Err(rejection);
            }
        }
        admission
            .route
            .rates
            .identified(&admission.caller, client)?;
        admission.judge(head)
    }

    async fn lease(admission: &mut Admission, head: Head<'_>) -> Result<(), Rejection> {
        // Two schemes at once are a 401 upstream (taskcluster.md §4): what bears a bewit is
        // not signed, so it needs no credential either. A password is proved by getting one.
        if !admission.route.takes_password() && hawk::bewit::has_bewit(head.target) {
            return Ok(());
        }
        admission.lease().await
    }

    /// The header to put on this attempt, if the route has credentials. Call once per
    /// attempt, with method and target as they go out.
    ///
    /// # Errors
    /// When the header would pass Taskcluster's limit.
    pub fn sign(
        &self,
        admission: &Admission,
        method: &Method,
        target: &str,
    ) -> Result<Option<Proof>, Rejection> {
        let (Some(lease), Some(source)) = (&admission.lease, &admission.route.source) else {
            return Ok(None);
        };
        let unusable = || {
            Rejection::from(Reason::ExchangeFailed)
                .because("the credential has characters that cannot stand in a header")
        };
        let upstream = &admission.route.upstream;
        let (name, value) = match lease.credential() {
            Credential::Taskcluster { signer, .. } => {
                let request = SignedRequest {
                    at: self.clock.now().offset_by(upstream.clock_offset()),
                    nonce: &hawk::nonce(),
                    method: method.as_str(),
                    target,
                    host: &upstream.host,
                    port: upstream.signed_port,
                    payload_hash: None,
                };
                let value = signer
                    .authorization(&request)
                    .map_err(|e| Rejection::from(unsigned(&e)).because(e.to_string()))?;
                let mut value = HeaderValue::try_from(value).map_err(|_| unusable())?;
                value.set_sensitive(true);
                (http::header::AUTHORIZATION, value)
            }
            Credential::Bearer(token) => {
                let inject = source.inject();
                let value = inject.value(token.expose()).ok_or_else(unusable)?;
                (inject.header().clone(), value)
            }
        };
        Ok(Some(Proof { name, value }))
    }
}

/// What proves upstream who sends a request: a header, its value marked sensitive.
#[derive(Clone, Debug)]
pub struct Proof {
    /// `Authorization`, or what the source's `inject` says.
    pub name: HeaderName,
    /// A Hawk signature or a bearer token.
    pub value: HeaderValue,
}

/// Why a request could not be signed, as the caller is told it.
fn unsigned(error: &HawkError) -> Reason {
    match error {
        HawkError::Unsignable(_) => Reason::BadRequest,
        HawkError::TooLong { .. } => Reason::CredentialTooLarge,
        _ => Reason::Internal,
    }
}

#[cfg(test)]
mod tests;
