//! Explains requests to `[login]`, the endpoint that hawkgate serves itself.

use http::Method;

use super::report::{Stage, Verdict};
use super::{Explainer, cors, rule, token};
use crate::gateway::host::host_name;
use crate::gateway::login::{self, Login, LoginRequest};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::token::BearerToken;

impl Explainer<'_> {
    /// `None` if the request is for something else.
    pub(super) async fn login(&mut self) -> Option<Verdict> {
        let gateway = self.gateway;
        let login = gateway.login.as_ref()?;
        let provider = login::provider(&self.question.target)?;
        let why = "hawkgate answers this itself ([login]), ahead of any route";
        self.report.note(Stage::Route, login::LABEL, why);
        if let (Some(origin), Some(policy)) = (&self.question.origin, &login.cors) {
            let grant = policy.grant(&self.question.headers(None));
            cors::explain_grant(&mut self.report, &grant, origin);
        }
        Some(self.login_verdict(login, provider).await)
    }

    async fn login_verdict(&mut self, login: &Login, provider: &str) -> Verdict {
        if self.question.method != Method::GET {
            let why = "the endpoint accepts only GET, and OPTIONS for preflights";
            self.report.failed(Stage::Route, "method", why);
            return Verdict::refused(&Reason::MethodRefused.into());
        }
        let Some(issuer) = login.issuers.iter().find(|i| **i.name() == *provider) else {
            let why = format!("[login] has no issuer called {provider:?}");
            self.report.failed(Stage::Token, "provider", why);
            return Verdict::refused(&Reason::LoginUnknownProvider.into());
        };
        let refused = Rejection::from(Reason::LoginRefused);
        let Some(text) = &self.question.token else {
            let why = "no token was given (--token-file)";
            self.report.failed(Stage::Token, "sent", why);
            return Verdict::refused(&refused);
        };
        let bearer = match BearerToken::new(text) {
            Ok(bearer) => bearer,
            Err(error) => {
                self.report
                    .failed(Stage::Token, "readable", error.to_string());
                return Verdict::refused(&refused);
            }
        };
        let issuers = std::slice::from_ref(issuer);
        if self.question.offline && self.needs_network(issuers) {
            let why = "verifying it needs the network, which --offline rules out";
            token::explain_unverified(&mut self.report, self.config, issuers, Some(&bearer));
            return Verdict::Unknown { why: why.into() };
        }
        let now = self.clock.now();
        let report = &mut self.report;
        let caller = token::explain(report, self.config, issuers, Some(&bearer), now).await;
        let headers = self.question.headers(Some(&bearer));
        let head = self.question.head(&headers);
        if let Some(caller) = &caller {
            token::explain_scopes(report, &login.require_scopes, caller);
            let host = host_name(&self.question.host);
            rule::explain(report, login.rules.as_ref(), caller, head.attributes(&host));
        }
        if !self.question.exchange {
            let source = &login.source;
            let why = "not minted (--exchange mints one without showing it)";
            report.note(Stage::Source, format!("{source}: credential"), why);
            return match login.authorize(LoginRequest { provider, head }).await {
                Ok(()) => Verdict::passes(),
                Err(rejection) => Verdict::refused(&rejection),
            };
        }
        let served = login.respond(LoginRequest { provider, head }).await;
        match &served.rejection {
            None => Verdict::passes(),
            Some(rejection) => Verdict::refused(rejection),
        }
    }
}
