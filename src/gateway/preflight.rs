//! Preflights of routes with `cors` (`docs/cors.md`). They carry no credentials, so they are matched,
//! limited by address and answered before anybody is asked for a token.

use std::sync::Arc;

use http::Method;

use super::cors::{self, CorsGrant, PreflightAnswer};
use super::local_response::{LocalResponse, RequestDetails};
use super::route::Route;
use super::{Admission, AdmissionError, Gateway, Head, RouteMatch, login};
use crate::clock::Now;

/// How a preflight is served.
#[derive(Debug)]
pub enum Preflight {
    /// hawkgate sends this response.
    Answer(Box<LocalResponse>),
    /// It is sent upstream, without credentials.
    Forward(Box<Admission>),
}

impl Gateway {
    /// Decides about a preflight. `None` if the request is none, or if its route has no `cors`: then it
    /// is a request like any other. `has_body` tells whether content follows, which no preflight has.
    ///
    /// # Errors
    /// If it is refused: on a local route by its `Host` or its sender, or by a limit for its address.
    pub async fn preflight(
        &self,
        head: Head<'_>,
        has_body: bool,
        now: Now,
    ) -> Result<Option<Preflight>, Box<AdmissionError>> {
        if !self.routes.have_cors() || !cors::is_preflight(head.method, head.headers) {
            return Ok(None);
        }
        let requested = cors::requested_method(head.headers);
        let matched = requested
            .as_ref()
            .and_then(|method| self.match_for(head, method));
        let Some(found) = matched else {
            return self.refuse_method(head, now).await;
        };
        let Some(cors) = &found.route.cors else {
            return Ok(None);
        };
        match cors.grant(head.headers) {
            Some(grant) => {
                self.admit_preflight(found.route, head, now).await?;
                let answer = grant.answer_preflight(requested.as_ref(), head.headers);
                Ok(Some(answered(answer, found.route)))
            }
            None if has_body => Ok(None),
            None => {
                let mut admission = self.admit_preflight(found.route, head, now).await?;
                admission.target = found.into_target();
                Ok(Some(Preflight::Forward(Box::new(admission))))
            }
        }
    }

    /// Answers a preflight for a method that no route takes, without permission, if the route for
    /// its path has `cors`. A 401 or 404 would say less.
    async fn refuse_method(
        &self,
        head: Head<'_>,
        now: Now,
    ) -> Result<Option<Preflight>, Box<AdmissionError>> {
        let Ok(route) = self.routes.find_for_any_method(head.host, head.target) else {
            return Ok(None);
        };
        let grant = route
            .cors
            .as_ref()
            .and_then(|cors| cors.grant(head.headers));
        let Some(grant) = grant else {
            return Ok(None);
        };
        self.admit_preflight(route, head, now).await?;
        let answer = grant.answer_preflight(None, head.headers);
        Ok(Some(answered(answer, route)))
    }

    /// Applies what holds for callers that are not known: who may call a local route, and the limits
    /// by address. Neither rules nor the limits of callers do: a preflight is no request of its own.
    async fn admit_preflight(
        &self,
        route: &Arc<Route>,
        head: Head<'_>,
        now: Now,
    ) -> Result<Admission, Box<AdmissionError>> {
        let admission = Admission::new(Arc::clone(route), now);
        let admitted = match self.check_isolation(route, head) {
            Ok(()) => route.rates.check_address(head.client()),
            Err(rejection) => Err(rejection),
        };
        let admitted = match admitted {
            Ok(Some(wait)) => wait.await,
            Ok(None) => Ok(()),
            Err(rejection) => Err(rejection),
        };
        match admitted {
            Ok(()) => Ok(admission),
            Err(rejection) => Err(Box::new(admission.refused(rejection))),
        }
    }

    /// What the page that sent a request may read of its answer, if that is known before the request
    /// is routed. Changes and counts nothing.
    pub fn cors_grant(&self, head: Head<'_>) -> Option<CorsGrant> {
        if let Some(login) = &self.login
            && login::provider(head.target).is_some()
        {
            return login.cors.as_ref().map(|cors| cors.grant(head.headers));
        }
        if !self.routes.have_cors() {
            return None;
        }
        let requested = cors::is_preflight(head.method, head.headers)
            .then(|| cors::requested_method(head.headers))
            .flatten();
        let found = self.match_for(head, requested.as_ref().unwrap_or(head.method))?;
        found.route.cors.as_ref()?.grant(head.headers)
    }

    fn match_for<'a>(&'a self, head: Head<'_>, method: &Method) -> Option<RouteMatch<'a>> {
        self.match_route(Head { method, ..head }).ok()
    }
}

fn answered(answer: PreflightAnswer, route: &Route) -> Preflight {
    let PreflightAnswer {
        mut response,
        refused,
    } = answer;
    response.details = RequestDetails {
        route: Some(Arc::clone(&route.name)),
        cause: refused,
        ..RequestDetails::default()
    };
    Preflight::Answer(Box::new(response))
}

#[cfg(test)]
mod tests;
