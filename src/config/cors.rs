//! `cors` of a route, and the allowed origins of `[login]`.

use std::time::Duration;

use http::HeaderName;
use toml::de::DeValue;

use super::diagnostic::{Location, quoted};
use super::reader::{Field, Reader, Shape, Value, section};
use super::units::show_duration;
use super::value::{List, Nested, text};
use crate::gateway::cors::{
    AllowedOrigins, CorsSettings, FieldNames, InvalidOrigin, OriginPattern, PolicySettings,
};
use crate::suggest::nearest;

/// Stands for every origin, or every header.
const ANY: &str = "*";

/// `cors = "upstream"`.
const UPSTREAM: &str = "upstream";

/// The longest `max_age`; browsers remember nothing for longer.
const MAX_AGE: Duration = Duration::from_hours(24);

section! {
    /// Which web pages of other origins may use a route.
    pub(super) struct CorsTable {
        /// Their origins, as browsers send them: "https://app.example.com"; "https://*.example.com" for every
        /// name below a domain, but not the domain itself; "http://localhost:*" for every port of this machine
        /// (also 127.0.0.1 and [::1]). "*" alone allows any.
        allowed_origins: List<Origin> = [required],
        /// Request headers that pages may set, besides Authorization, which they always may; on a route with
        /// passwords also X-OTP. "*" alone allows any.
        allowed_headers: List<FieldName> = [default "['Content-Type', 'If-Match', 'If-None-Match', 'X-Request-Id', 'X-Requested-With', 'traceparent', 'tracestate']"],
        /// Response headers that pages may read, besides X-Hawkgate-Error, WWW-Authenticate, Retry-After and
        /// X-Request-Id, and those that browsers always show. "*" alone allows any.
        exposed_headers: List<FieldName> = [default "[]"],
        /// Whether pages may send cookies, which a session needs; then nothing of the above can be "*".
        allow_credentials: bool = [default "false"],
        /// How long browsers may remember the answer to a preflight, in whole seconds; at most 24h, and
        /// browsers have limits of their own (Chromium 2h). 0s to be asked every time.
        max_age: Duration = [default "'10m'"],
    }
}

/// An element of `allowed_origins`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    Any,
    Pattern(OriginPattern),
}

impl Value for Origin {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"https://app.example.com\"")?;
        if text == ANY {
            return Some(Self::Any);
        }
        match OriginPattern::parse(text) {
            Ok(pattern) => Some(Self::Pattern(pattern)),
            Err(error) => {
                let (problem, remedy) = explain(&error, text);
                reader.error(at, problem, remedy);
                None
            }
        }
    }
}

/// The problem with an origin, and the remedy.
fn explain(error: &InvalidOrigin, text: &str) -> (String, String) {
    let shown = quoted(text);
    let problem = match error {
        InvalidOrigin::NotAnOrigin => format!("{shown} is not an http or https origin"),
        InvalidOrigin::Null => format!(
            "{shown} is the origin of every sandboxed frame and local file, so that any page could use it"
        ),
        InvalidOrigin::OtherForm(_) => format!(
            "{shown} is not in the form that browsers send: scheme, host, and the port unless it is the scheme's default"
        ),
        InvalidOrigin::EveryHost => format!("{shown} allows every host"),
        InvalidOrigin::TopLevelDomain => {
            format!(
                "{shown} allows every name below a top-level domain, including those that other people own"
            )
        }
        InvalidOrigin::AddressBelowWildcard => {
            format!("{shown} is a wildcard for an address, which has no subdomains")
        }
        InvalidOrigin::AnyPort => format!(
            "{shown} allows every port of another machine; that is for localhost, 127.0.0.1 and [::1]"
        ),
        InvalidOrigin::Wildcard => {
            format!("{shown} has a wildcard that does not stand for the whole names below a domain")
        }
    };
    let remedy = match error {
        InvalidOrigin::NotAnOrigin => "write it like \"https://app.example.com\"".to_owned(),
        InvalidOrigin::Null => "serve the page from an origin of its own, and list that".to_owned(),
        InvalidOrigin::OtherForm(right) => format!("write {}", quoted(right)),
        InvalidOrigin::EveryHost => {
            "list the origins, or write \"*\" alone for any origin".to_owned()
        }
        InvalidOrigin::TopLevelDomain | InvalidOrigin::Wildcard => {
            "write it like \"https://*.example.com\", or list the origins".to_owned()
        }
        InvalidOrigin::AddressBelowWildcard => "list the addresses".to_owned(),
        InvalidOrigin::AnyPort => "write the port, or leave it out if it is the default".to_owned(),
    };
    (problem, remedy)
}

/// Reads the elements of `allowed_origins`. `None` if they are invalid, or if there are none.
pub(super) fn allowed_origins(
    reader: &mut Reader<'_>,
    field: &Field<List<Origin>>,
) -> Option<AllowedOrigins> {
    let list = field.value.as_ref()?;
    let any = list.items.iter().find(|item| item.value == Origin::Any);
    if let Some(any) = any {
        if list.items.len() > 1 {
            let problem = "allows every origin, but others are listed too";
            reader.error(&any.at, problem, "keep either \"*\" or the others");
        }
        return Some(AllowedOrigins::Any);
    }
    let patterns = list.values().filter_map(|origin| match origin {
        Origin::Any => None,
        Origin::Pattern(pattern) => Some(pattern.clone()),
    });
    let patterns: Vec<_> = patterns.collect();
    (!patterns.is_empty()).then_some(AllowedOrigins::Listed(patterns))
}

/// An element of `allowed_headers` or `exposed_headers`: a name, in any case, or `*`.
#[derive(Clone, Debug)]
pub(super) struct FieldName(String);

impl PartialEq for FieldName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Value for FieldName {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "a header name like \"X-Corp-Tenant\"")?;
        if text == ANY || HeaderName::from_bytes(text.as_bytes()).is_ok() && !text.contains('*') {
            return Some(Self(text.to_owned()));
        }
        let problem = format!("{} is not a header name", quoted(text));
        let remedy = "write names like \"X-Corp-Tenant\", or \"*\" alone for any";
        reader.error(at, problem, remedy);
        None
    }
}

/// `cors` as written.
#[derive(Debug)]
pub(super) enum CorsValue {
    Upstream,
    Table(Box<CorsTable>),
}

impl Value for CorsValue {
    const SHAPE: Shape = Shape::Either(&<Nested<CorsTable>>::SHAPE, &Shape::Choice(&[UPSTREAM]));

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        const REMEDY: &str =
            "write { allowed_origins = [\"https://app.example.com\"] }, or \"upstream\"";
        match value {
            DeValue::Table(_) => {
                let table = <Nested<CorsTable>>::read(reader, at, value)?;
                Some(Self::Table(Box::new(table.0)))
            }
            DeValue::String(text) if text == UPSTREAM => Some(Self::Upstream),
            DeValue::String(text) => {
                let problem = format!("{} is not a valid value", quoted(text));
                let remedy = match nearest(text, [UPSTREAM]) {
                    Some(suggestion) => format!("did you mean {suggestion:?}?"),
                    None => REMEDY.to_owned(),
                };
                reader.error(at, problem, remedy);
                None
            }
            _ => {
                reader.error(at, "must be a table or \"upstream\"", REMEDY);
                None
            }
        }
    }
}

/// Reads `cors` of a route. `needs_no_token` tells whether the route serves callers of this machine
/// that present no token, and has to keep web pages out.
#[allow(clippy::option_option)]
pub(super) fn resolve(
    reader: &mut Reader<'_>,
    field: Field<CorsValue>,
    needs_no_token: bool,
) -> Option<Option<CorsSettings>> {
    let at = field.at.clone();
    match field.optional()? {
        None => Some(None),
        Some(CorsValue::Upstream) => {
            if needs_no_token {
                let problem = "leaves the choice of pages to the upstream, but the route serves callers without a token, and must keep out pages that it does not know";
                let remedy = "write { allowed_origins = [\"https://app.example.com\"] }";
                reader.error(&at, problem, remedy);
            }
            Some(Some(CorsSettings::Upstream))
        }
        Some(CorsValue::Table(table)) => {
            let policy = table.resolve(reader, needs_no_token)?;
            Some(Some(CorsSettings::Policy(policy)))
        }
    }
}

impl CorsTable {
    fn resolve(self, reader: &mut Reader<'_>, needs_no_token: bool) -> Option<PolicySettings> {
        self.check_origins(reader, needs_no_token);
        self.check_max_age(reader);
        let credentials = self.allow_credentials.value == Some(true);
        let origins = allowed_origins(reader, &self.allowed_origins);
        let allowed = field_names(reader, &self.allowed_headers, credentials);
        let exposed = field_names(reader, &self.exposed_headers, credentials);
        Some(PolicySettings {
            allowed_origins: origins?,
            allowed_headers: allowed?,
            exposed_headers: exposed?,
            allow_credentials: self.allow_credentials.value?,
            max_age: self.max_age.value?,
        })
    }

    fn check_origins(&self, reader: &mut Reader<'_>, needs_no_token: bool) {
        let Some(list) = &self.allowed_origins.value else {
            return;
        };
        if list.is_empty() {
            let problem = "is empty: no page could use the route";
            reader.error(
                &self.allowed_origins.at,
                problem,
                "list origins, or remove cors",
            );
        }
        let credentials = self.allow_credentials.value == Some(true);
        for item in list.items.iter().filter(|_| credentials || needs_no_token) {
            if let Origin::Pattern(pattern) = &item.value
                && pattern.is_cleartext()
            {
                let problem = "is plain http: anyone on the network path can inject scripts into such a page, and act as its users";
                reader.warn(&item.at, problem, "serve the page with https");
            }
        }
        let Some(any) = list.items.iter().find(|item| item.value == Origin::Any) else {
            return;
        };
        if credentials {
            let problem = "lets every page act with the user's cookies, and conflicts with allow_credentials = true: browsers refuse \"*\" then";
            let remedy = "list the origins, or remove allow_credentials";
            reader.error(&any.at, problem, remedy);
        }
        if needs_no_token {
            let problem = "lets every page use a route that serves callers without a token";
            reader.error(&any.at, problem, "list the origins");
        }
    }

    fn check_max_age(&self, reader: &mut Reader<'_>) {
        reader.check_range(&self.max_age, Duration::ZERO, MAX_AGE, show_duration);
        if let Some(age) = self.max_age.value
            && age.subsec_nanos() > 0
        {
            let problem = format!("{} is not a whole number of seconds", show_duration(age));
            reader.error(&self.max_age.at, problem, "write it like \"10m\"");
        }
    }
}

/// Reads `allowed_headers` or `exposed_headers`. With `credentials`, browsers take `*` for the name of
/// a header.
fn field_names(
    reader: &mut Reader<'_>,
    field: &Field<List<FieldName>>,
    credentials: bool,
) -> Option<FieldNames> {
    let list = field.value.as_ref()?;
    if let Some(any) = list.items.iter().find(|item| item.value.0 == ANY) {
        if list.items.len() > 1 {
            let problem = "stands for every header, but others are listed too";
            reader.error(&any.at, problem, "keep either \"*\" or the others");
        }
        if credentials {
            let problem = "has no effect with allow_credentials = true: browsers take it for the name of a header then";
            let remedy = "list the headers, or remove allow_credentials";
            reader.error(&any.at, problem, remedy);
        }
        return Some(FieldNames::Any);
    }
    let names = list.values().map(|name| name.0.clone());
    Some(FieldNames::Listed(names.collect()))
}
