//! Explains requests with a username and password, which only the source's exchange can
//! verify.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::report::{Stage, Verdict};
use super::{Explainer, cause, rule};
use crate::gateway::host::host_name;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::route::Route;
use crate::secret::SecretString;
use crate::token::{BasicCredentials, Caller};

impl Explainer<'_> {
    pub(super) async fn password(&mut self, route: &Route) -> Verdict {
        let Some(user) = &self.question.user else {
            let why = "this route needs a username and password, and none were given (--user-file)";
            self.report.failed(Stage::Token, "sent", why);
            return Verdict::refused(&Reason::MissingPassword.into());
        };
        let headers = with_user(self.question.headers(None), user);
        let credentials = match BasicCredentials::from_headers(&headers) {
            Ok(Some(credentials)) => Arc::new(credentials),
            Ok(None) => return self.unreadable(&Reason::MissingPassword.into()),
            Err(error) => return self.unreadable(&error.into()),
        };
        let why = "well-formed; only the source's exchange can verify them";
        self.report.note(Stage::Token, "username and password", why);
        let caller = Caller::Password {
            credentials,
            peer: self.question.client,
        };
        let host = host_name(&self.question.host);
        let attributes = self.question.head(&headers).attributes(&host);
        rule::explain(&mut self.report, route.rules.as_ref(), &caller, attributes);
        match self.decide(&headers).await {
            Verdict::Passes if !self.question.exchange => Verdict::Unknown {
                why: "the password was not tried (--exchange tries it)".into(),
            },
            verdict => verdict,
        }
    }

    fn unreadable(&mut self, refusal: &Rejection) -> Verdict {
        self.report.failed(Stage::Token, "readable", cause(refusal));
        Verdict::refused(refusal)
    }
}

fn with_user(mut headers: HeaderMap, user: &SecretString) -> HeaderMap {
    let encoded = Zeroizing::new(STANDARD.encode(user.expose()));
    let value = Zeroizing::new(format!("Basic {}", *encoded));
    if let Ok(mut value) = HeaderValue::try_from(value.as_str()) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers
}
