//! Which web pages of other origins may use a route, and the fields that tell browsers so: the CORS
//! protocol (<https://fetch.spec.whatwg.org/#http-cors-protocol>, `docs/cors.md`). It protects the
//! users of browsers from foreign pages; it is no access control of the route.

mod origin;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, header};

use super::local_response::{LocalResponse, STANDARD_METHODS};
use super::rejection::RECOVERY_CODE;
use crate::header_fields::{HeaderFields, only};
pub use origin::{AllowedOrigins, InvalidOrigin, OriginPattern};

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");

/// Request fields that pages may always set. Browsers do not take `*` for `Authorization`.
const AUTHORIZATION: &str = "Authorization";

/// The request field with a second factor, on routes with passwords.
const OTP: &str = "X-OTP";

/// Response fields that pages may always read: those without which a refusal says nothing.
const EXPOSED: [&str; 4] = [
    "X-Hawkgate-Error",
    "WWW-Authenticate",
    "Retry-After",
    "X-Request-Id",
];

/// How long browsers may remember the answer to a preflight, unless configured.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_mins(10);

/// `cors` of a route, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsSettings {
    /// The upstream decides.
    Upstream,
    /// hawkgate decides.
    Policy(PolicySettings),
}

/// What hawkgate allows to pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// The pages, by origin.
    pub allowed_origins: AllowedOrigins,
    /// The request fields that they may set.
    pub allowed_headers: FieldNames,
    /// The response fields that they may read, beside those that every page may.
    pub exposed_headers: FieldNames,
    /// Whether requests may have cookies, client certificates and stored passwords. If so, nothing
    /// of the above is `Any`.
    pub allow_credentials: bool,
    /// How long browsers may remember the answer to a preflight, in whole seconds.
    pub max_age: Duration,
}

/// Names of header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldNames {
    /// Every name.
    Any,
    /// These, as written in the configuration.
    Listed(Vec<String>),
}

/// `cors` of a route.
#[derive(Clone, Debug)]
pub enum Cors {
    /// Preflights are forwarded without credentials, and the upstream's CORS fields are passed on.
    Upstream,
    /// hawkgate answers preflights, and replaces the upstream's CORS fields.
    Policy(Arc<CorsPolicy>),
}

impl Cors {
    /// Prepares the answers of a route for these `methods`, or for any.
    pub fn new(settings: &CorsSettings, methods: Option<&[Method]>, takes_password: bool) -> Self {
        match settings {
            CorsSettings::Upstream => Self::Upstream,
            CorsSettings::Policy(policy) => {
                Self::Policy(Arc::new(CorsPolicy::new(policy, methods, takes_password)))
            }
        }
    }

    /// What the page that sent a request with these fields may do; `None` if the upstream decides.
    pub fn grant(&self, headers: &dyn HeaderFields) -> Option<CorsGrant> {
        match self {
            Self::Upstream => None,
            Self::Policy(policy) => Some(policy.grant(headers)),
        }
    }

    /// Whether the request comes from a page whose origin the configuration lists. `*` does not
    /// count: it lists none.
    pub fn lists_origin(&self, headers: &dyn HeaderFields) -> bool {
        self.grant(headers)
            .is_some_and(|grant| grant.origin.is_listed())
    }

    /// Whether the page that sent a request with these fields may send the user's cookies along: its
    /// origin is listed, and `allow_credentials` is set.
    pub fn allows_credentials(&self, headers: &dyn HeaderFields) -> bool {
        match self {
            Self::Upstream => false,
            Self::Policy(policy) => policy.credentials && self.lists_origin(headers),
        }
    }
}

/// The answers of one route, or of `[login]`, assembled in advance.
#[derive(Debug)]
pub struct CorsPolicy {
    origins: AllowedOrigins,
    credentials: bool,
    /// The methods that preflights may ask for; standard ones if `None`.
    methods: Option<Vec<Method>>,
    allow_methods: String,
    allow_headers: String,
    expose_headers: String,
    max_age: String,
}

impl CorsPolicy {
    /// Prepares the answers of a route for these `methods`, or for any.
    pub fn new(
        settings: &PolicySettings,
        methods: Option<&[Method]>,
        takes_password: bool,
    ) -> Self {
        let standard: Vec<_> = STANDARD_METHODS.to_vec();
        let names = methods.map_or(standard, |own| own.iter().map(Method::as_str).collect());
        let (mut allowed, mut exposed) = (vec![AUTHORIZATION], EXPOSED.to_vec());
        if takes_password {
            allowed.push(OTP);
            exposed.push(RECOVERY_CODE);
        }
        Self {
            origins: settings.allowed_origins.clone(),
            // Browsers refuse it together with `*`.
            credentials: settings.allow_credentials
                && settings.allowed_origins != AllowedOrigins::Any,
            methods: methods.map(<[_]>::to_vec),
            allow_methods: names.join(", "),
            allow_headers: joined(&allowed, &settings.allowed_headers),
            expose_headers: joined(&exposed, &settings.exposed_headers),
            max_age: settings.max_age.as_secs().to_string(),
        }
    }

    /// The policy of `[login]`, which is read with a bearer token and nothing else.
    pub fn for_login(origins: AllowedOrigins) -> Self {
        let settings = PolicySettings {
            allowed_origins: origins,
            allowed_headers: FieldNames::Listed(Vec::new()),
            exposed_headers: FieldNames::Listed(Vec::new()),
            allow_credentials: false,
            max_age: DEFAULT_MAX_AGE,
        };
        Self::new(&settings, Some(&[Method::GET]), false)
    }

    /// What the page that sent a request with these fields may do.
    pub fn grant(self: &Arc<Self>, headers: &dyn HeaderFields) -> CorsGrant {
        CorsGrant {
            policy: Arc::clone(self),
            origin: self.granted_origin(headers),
        }
    }

    fn granted_origin(&self, headers: &dyn HeaderFields) -> GrantedOrigin {
        let AllowedOrigins::Listed(list) = &self.origins else {
            return GrantedOrigin::Any;
        };
        // Several fields are no origin of a browser.
        let Ok(Some(origin)) = only(headers, &header::ORIGIN) else {
            return GrantedOrigin::None;
        };
        let Some(at) = list.iter().position(|pattern| pattern.matches(origin)) else {
            return GrantedOrigin::None;
        };
        match std::str::from_utf8(origin) {
            _ if list.get(at).is_some_and(|own| own.as_origin().is_some()) => {
                GrantedOrigin::Configured(at)
            }
            Ok(origin) => GrantedOrigin::Matched(origin.into()),
            Err(_) => GrantedOrigin::None,
        }
    }

    /// Whether a preflight may ask for this method. The names are compared as browsers do.
    fn takes_method(&self, method: &Method) -> bool {
        match &self.methods {
            Some(own) => own.contains(method),
            None => STANDARD_METHODS.contains(&method.as_str()),
        }
    }
}

/// A list of names for a field, each once.
fn joined(always: &[&str], also: &FieldNames) -> String {
    let mut names = always.to_vec();
    match also {
        FieldNames::Any => names.push("*"),
        FieldNames::Listed(also) => {
            for name in also {
                if !names.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                    names.push(name);
                }
            }
        }
    }
    names.join(", ")
}

/// What one page may do.
#[derive(Clone, Debug)]
pub struct CorsGrant {
    policy: Arc<CorsPolicy>,
    origin: GrantedOrigin,
}

/// The value of `Access-Control-Allow-Origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GrantedOrigin {
    /// None: the origin is not allowed, or the request has none.
    None,
    /// `*`.
    Any,
    /// The configured origin at this index, which saves a copy.
    Configured(usize),
    /// This origin, which matches a pattern.
    Matched(Box<str>),
}

impl GrantedOrigin {
    fn is_listed(&self) -> bool {
        matches!(self, Self::Configured(_) | Self::Matched(_))
    }
}

/// The answer to a preflight, and why it allows nothing if it does not.
#[derive(Debug)]
pub(super) struct PreflightAnswer {
    pub(super) response: LocalResponse,
    pub(super) refused: Option<&'static str>,
}

impl CorsGrant {
    /// Whether the page may read the answer.
    pub fn is_allowed(&self) -> bool {
        self.origin != GrantedOrigin::None
    }

    /// The fields of every answer that the page may read; none for a foreign origin. `Vary: Origin`
    /// belongs to all answers, and is not among them.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.allow_fields().chain(self.exposed_field())
    }

    /// The fields of the answer to a preflight, except the one for private networks.
    pub fn preflight_fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let policy = &self.policy;
        let fields = [
            ("access-control-allow-methods", &*policy.allow_methods),
            ("access-control-allow-headers", &*policy.allow_headers),
            ("access-control-max-age", &*policy.max_age),
        ];
        let fields = Some(fields).filter(|_| self.is_allowed());
        self.allow_fields().chain(fields.into_iter().flatten())
    }

    /// The names of the response fields that the page may read.
    pub fn exposed_field(&self) -> Option<(&'static str, &str)> {
        let names = &*self.policy.expose_headers;
        self.is_allowed()
            .then_some(("access-control-expose-headers", names))
    }

    fn allow_fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let origin = match &self.origin {
            GrantedOrigin::None => None,
            GrantedOrigin::Any => Some("*"),
            GrantedOrigin::Configured(at) => self.policy.origins.get(*at),
            GrantedOrigin::Matched(origin) => Some(&**origin),
        };
        let credentials = origin.is_some() && self.policy.credentials;
        let credentials = credentials.then_some(("access-control-allow-credentials", "true"));
        origin
            .map(|origin| ("access-control-allow-origin", origin))
            .into_iter()
            .chain(credentials)
    }

    /// Answers a preflight that asks for `method`, which is `None` if no browser would ask so, or if
    /// the route does not take it.
    pub(super) fn answer_preflight(
        &self,
        method: Option<&Method>,
        headers: &dyn HeaderFields,
    ) -> PreflightAnswer {
        let mut response = LocalResponse {
            headers: Vec::with_capacity(7),
            ..LocalResponse::new(StatusCode::NO_CONTENT)
        };
        response = response.header(
            "vary",
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        );
        let refused = if !self.is_allowed() {
            Some("the preflight's origin is not in allowed_origins of cors")
        } else if !method.is_some_and(|method| self.policy.takes_method(method)) {
            Some("the route does not take the method that the preflight asks for")
        } else {
            response = self.add_preflight_fields(response, headers);
            None
        };
        PreflightAnswer { response, refused }
    }

    /// Adds what the page may do, regardless of the method that it asks for.
    pub(super) fn add_preflight_fields(
        &self,
        mut response: LocalResponse,
        headers: &dyn HeaderFields,
    ) -> LocalResponse {
        for (name, value) in self.preflight_fields() {
            response = response.header(name, value);
        }
        let asks = only(headers, &REQUEST_PRIVATE_NETWORK) == Ok(Some(b"true"));
        if asks && self.is_allowed() {
            response = response.header("access-control-allow-private-network", "true");
        }
        response
    }
}

/// Whether a request is a preflight (Fetch, "CORS-preflight request"): it asks whether another may be
/// sent. A preflight with fields that no browser sends twice is one too, and gets no permission.
pub fn is_preflight(method: &Method, headers: &dyn HeaderFields) -> bool {
    *method == Method::OPTIONS
        && headers.first(&header::ORIGIN).is_some()
        && headers
            .first(&header::ACCESS_CONTROL_REQUEST_METHOD)
            .is_some()
}

/// The method that a preflight asks for; `None` if it is not one method.
pub(super) fn requested_method(headers: &dyn HeaderFields) -> Option<Method> {
    let method = only(headers, &header::ACCESS_CONTROL_REQUEST_METHOD);
    Method::from_bytes(method.ok()??).ok()
}
