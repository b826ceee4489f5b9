//! Answers to requests for endpoints of hawkgate's own.

use std::fmt;
use std::sync::Arc;

use http::{Method, StatusCode};
use zeroize::Zeroizing;

use super::rejection::{Answer, Rejection};
use crate::clock::UnixMillis;
use crate::token::Caller;

/// An answer that hawkgate gives itself. May hold credentials: `Debug` shows its status.
pub struct Served {
    /// Status.
    pub status: StatusCode,
    /// Headers by name, without `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// Wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
    /// The refusal, if it is one.
    pub rejection: Option<Rejection>,
    /// What metrics and the access log say.
    pub facts: Facts,
}

/// What is known of such a request besides its answer.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The name that it is counted under.
    pub route: Option<Arc<str>>,
    /// The issuer, once known.
    pub issuer: Option<Arc<str>>,
    /// The result of verification, if one took place.
    pub verification: Option<&'static str>,
    /// The rule that decided, if one did.
    pub rule: Option<Arc<str>>,
    /// The source that gave the credentials.
    pub source: Option<Arc<str>>,
    /// Who asked, once proved.
    pub caller: Option<Caller>,
    /// Upstream's name of the credentials given out.
    pub credential: Option<String>,
    /// What a rule narrowed them to.
    pub scopes: Option<Arc<[String]>>,
}

impl Served {
    /// An answer without content.
    pub(super) fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: vec![("cache-control", "no-store".into())],
            body: Zeroizing::default(),
            rejection: None,
            facts: Facts::default(),
        }
    }

    /// `303 See Other` to `url`, which is the content too, as taskcluster-proxy does.
    pub fn see_other(url: &str) -> Self {
        let mut served = Self::new(StatusCode::SEE_OTHER)
            .header("location", url)
            .header("content-type", "text/plain; charset=utf-8");
        served.body = Zeroizing::new(url.as_bytes().to_vec());
        served
    }

    /// `rejection` as an answer that more can be added to.
    pub fn refusal(rejection: Rejection, method: &Method, now: UnixMillis) -> Self {
        let Answer {
            status,
            headers,
            body,
        } = rejection.answer(method, now);
        Self {
            status,
            headers,
            body: Zeroizing::new(body.into_bytes()),
            rejection: Some(rejection),
            facts: Facts::default(),
        }
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("status", &self.status)
            .field("rejection", &self.rejection)
            .finish_non_exhaustive()
    }
}
