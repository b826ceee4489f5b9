//! `hawkgate explain`: reports step by step why a request would pass or be refused. The proxy's own
//! code makes every decision; this module only reports it. The report contains no secret: it
//! shows the header and a few claims of the token, and the clientId, scopes and expiry of
//! credentials.

mod cors;
mod hints;
mod identify;
mod login;
mod password;
mod report;
mod route;
mod rule;
mod session;
mod shown;
mod token;
mod upstream;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, ORIGIN, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};

use crate::app::{self, StartError};
use crate::clock::SharedClock;
use crate::config::{Config, IssuerKind};
use crate::gateway::host::host_name;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::resource_isolation::Transport;
use crate::gateway::route::Route;
use crate::gateway::{Admission, AdmissionError, Gateway, Head};
use crate::label::Label;
use crate::proxy::preview;
use crate::secret::SecretString;
use crate::token::settings::KeyLocation;
use crate::token::{BearerToken, Caller, Issuer, WorkloadTokenError};

use hints::Hints;
pub use identify::{Fact, Identification, Kind, identify};
use report::Report;
pub use report::{Explanation, Stage, Status, Step, Verdict};

/// The request to explain.
#[derive(Debug)]
pub struct Question {
    /// The method.
    pub method: Method,
    /// Whether the client uses https.
    pub https: bool,
    /// The host, with or without a port.
    pub host: String,
    /// The path and query.
    pub target: String,
    /// The bearer token, if one is sent, as read from the file.
    pub token: Option<String>,
    /// The `Cookie` field, or the value of the session's cookie alone, as read from the file.
    pub cookie: Option<SecretString>,
    /// `username:password`, for routes that need them, as read from the file.
    pub user: Option<SecretString>,
    /// The origin of the web page that sends the request, if one does.
    pub origin: Option<String>,
    /// The `User-Agent`, if one is sent.
    pub user_agent: Option<String>,
    /// The address of the client; none on Unix sockets.
    pub client: Option<IpAddr>,
    /// Use no network: contact neither issuers nor exchanges.
    pub offline: bool,
    /// Actually obtain the credentials.
    pub exchange: bool,
}

/// Explains how `config` would treat `question`. Must be called within a Tokio runtime.
///
/// # Errors
/// If something that the configuration refers to is unusable. A refused request is not an
/// error.
pub async fn explain(
    config: &Config,
    question: &Question,
    clock: &SharedClock,
) -> Result<Explanation, StartError> {
    let gateway = app::assemble(config, clock)?;
    let mut explainer = Explainer {
        config,
        question,
        gateway: &gateway,
        clock,
        accepted: None,
        report: Report::default(),
    };
    let verdict = explainer.run().await;
    let hints = explainer.hints(&verdict);
    Ok(explainer.report.finish(question, verdict, hints))
}

struct Explainer<'a> {
    config: &'a Config,
    question: &'a Question,
    gateway: &'a Gateway,
    clock: &'a SharedClock,
    /// The issuers of the route that matches.
    accepted: Option<Vec<Arc<Issuer>>>,
    report: Report,
}

impl Explainer<'_> {
    async fn run(&mut self) -> Verdict {
        let Question { method, target, .. } = self.question;
        if let Err(refusal) = preview::check_target(method, target, &self.config.limits) {
            self.report
                .failed(Stage::Request, "well formed", cause(&refusal));
            return Verdict::refused(&refusal);
        }
        self.report.ok(Stage::Request, "well formed");
        if let Some(problem) = self.clock.now().clock_problem() {
            self.report
                .failed(Stage::Request, "this machine's clock", problem);
        }
        if let Some(verdict) = self.login().await {
            return verdict;
        }
        if let Some(verdict) = self.session_endpoint() {
            return verdict;
        }
        let Some(route) = self.route() else {
            let head = self.question.headers(None);
            return match self.gateway.authorize(self.question.head(&head)).await {
                Ok(_) => Verdict::passes(),
                Err(refused) => Verdict::refused(&refused.rejection),
            };
        };
        self.accepted = Some(route.issuers.clone());
        cors::explain(&mut self.report, route.cors.as_ref(), self.question);
        if route.takes_password() {
            return self.password(&route).await;
        }
        if let Some(session) = &route.session
            && self.question.token.is_none()
        {
            return self.session(&route, session).await;
        }
        let bearer = match self.bearer(&route).await {
            Ok(bearer) => bearer,
            Err(refusal) => return Verdict::refused(&refusal),
        };
        if self.question.offline && self.needs_network(&route.issuers) {
            let why = "verifying it needs the network, which --offline rules out";
            self.report.note(Stage::Token, "verified", why);
            let report = &mut self.report;
            token::explain_unverified(report, self.config, &route.issuers, bearer.as_ref());
            return Verdict::Unknown { why: why.into() };
        }
        let headers = self.question.headers(bearer.as_ref());
        let caller = token::explain(
            &mut self.report,
            self.config,
            &route.issuers,
            bearer.as_ref(),
            self.clock.now(),
        )
        .await;
        self.caller(&route, caller.as_ref(), &headers).await
    }

    /// Reports what the route demands of `caller`, if it is known, and lets the gateway decide.
    async fn caller(
        &mut self,
        route: &Route,
        caller: Option<&Caller>,
        headers: &HeaderMap,
    ) -> Verdict {
        if let Some(caller) = caller {
            token::explain_scopes(&mut self.report, &route.require_scopes, caller);
            let host = host_name(&self.question.host);
            let attributes = self.question.head(headers).attributes(&host);
            rule::explain(&mut self.report, route.rules.as_ref(), caller, attributes);
        }
        self.decide(headers).await
    }

    /// Lets the gateway decide, and reports the credential and the forwarded request.
    async fn decide(&mut self, headers: &HeaderMap) -> Verdict {
        let head = self.question.head(headers);
        let decided: Result<Admission, Box<AdmissionError>> = if self.question.exchange {
            self.gateway.admit(head).await
        } else {
            self.gateway.authorize(head).await
        };
        match decided {
            Ok(admission) => {
                let (gateway, question) = (self.gateway, self.question);
                upstream::explain_source(&mut self.report, self.config, question, &admission);
                upstream::explain(&mut self.report, gateway, question, &admission);
                Verdict::passes()
            }
            Err(refused) => {
                if refused.lookup.is_some() {
                    let why = cause(&refused.rejection);
                    self.report
                        .failed(Stage::Source, "a credential is issued", why);
                }
                Verdict::refused(&refused.rejection)
            }
        }
    }

    /// Advice about the token, if the outcome depends on it.
    fn hints(&self, verdict: &Verdict) -> Hints {
        let concerns_the_token = match verdict {
            Verdict::Passes => false,
            Verdict::Unknown { .. } => true,
            Verdict::Refused { reason, .. } => {
                // The other two are judgements of the party that issued the token.
                let is = |other: Reason| other.label() == *reason;
                (reason.starts_with("token_")
                    && !is(Reason::TokenRefused)
                    && !is(Reason::TokenInactive))
                    || is(Reason::InvalidAuthorization)
                    || is(Reason::NoRoute)
            }
        };
        match &self.question.token {
            Some(token) if concerns_the_token => {
                let accepted = self.accepted.as_deref();
                hints::for_token(self.config, accepted, token, self.clock.now())
            }
            _ => Hints::default(),
        }
    }

    fn route(&mut self) -> Option<Arc<Route>> {
        route::explain(&mut self.report, self.gateway, self.question)
    }

    /// The given token, else the workload's own if the route has one.
    async fn bearer(&mut self, route: &Route) -> Result<Option<BearerToken>, Rejection> {
        if route.anonymous {
            return Ok(None);
        }
        if let Some(text) = &self.question.token {
            return match BearerToken::within(text, self.config.max_token_bytes) {
                Ok(token) => Ok(Some(token)),
                Err(error) => {
                    self.report
                        .failed(Stage::Token, "readable", error.to_string());
                    Err(error.into())
                }
            };
        }
        let Some(workload) = route.workload_token.clone() else {
            self.report
                .failed(Stage::Token, "sent", "no token was given (--token-file)");
            return Err(Reason::MissingToken.into());
        };
        let reader = Arc::clone(&workload);
        let read = tokio::task::spawn_blocking(move || reader.refresh()).await;
        let problem = match read {
            Ok(Ok(())) => {
                let why = format!(
                    "no, so the workload token in {} is used",
                    workload.file().display()
                );
                self.report.note(Stage::Token, "sent", why);
                return Ok(workload.current());
            }
            Ok(Err(error)) => WorkloadTokenError::to_string(&error),
            Err(_) => "it cannot be read".to_owned(),
        };
        self.report.failed(Stage::Token, "workload token", problem);
        Err(Reason::WorkloadTokenUnavailable.into())
    }

    /// Whether verifying a token of one of these issuers needs the network.
    fn needs_network(&self, issuers: &[Arc<Issuer>]) -> bool {
        issuers
            .iter()
            .filter_map(|issuer| {
                self.config
                    .issuers
                    .iter()
                    .find(|c| c.name == *issuer.name())
            })
            .any(|issuer| verifies_remotely(&issuer.kind))
    }
}

/// Whether verifying a token of such an issuer needs the network.
fn verifies_remotely(kind: &IssuerKind) -> bool {
    match kind {
        IssuerKind::Oidc(oidc) => !matches!(oidc.keys, KeyLocation::File(_)),
        IssuerKind::Introspection(_) => true,
        IssuerKind::SharedSecret(_) | IssuerKind::Delegated => false,
    }
}

fn cause(rejection: &Rejection) -> String {
    let message = || rejection.reason.message().to_owned();
    rejection.cause.clone().unwrap_or_else(message)
}

impl Question {
    fn head<'h>(&'h self, headers: &'h HeaderMap) -> Head<'h> {
        Head {
            method: &self.method,
            host: &self.host,
            target: &self.target,
            headers,
            peer: self.client,
            transport: Transport::Tcp,
            https: self.https,
            certificate: None,
        }
    }

    fn headers(&self, bearer: Option<&BearerToken>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut add = |name, text: &str| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        };
        add(HOST, &self.host);
        if let Some(origin) = &self.origin {
            add(ORIGIN, origin);
        }
        if let Some(agent) = &self.user_agent {
            add(USER_AGENT, agent);
        }
        // The caller does not send the workload's token.
        if let Some(bearer) = bearer.filter(|_| self.token.is_some()) {
            add(AUTHORIZATION, &format!("Bearer {}", bearer.expose()));
        }
        headers
    }
}

#[cfg(test)]
mod tests;
