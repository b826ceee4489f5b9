//! `[[rule]]`

use std::sync::Arc;

use toml::de::DeValue;

use super::diagnostic::{Location, quoted};
use super::reader::{Reader, Section, Shape, Table, Value, section};
use super::references::{self, Declared};
use super::resolved::{self, IssuerKind};
use super::value::{Choice, Item, List, text};
use crate::gateway::login::LABEL;
use crate::gateway::rule::{Effect, Expression, header_name};
use crate::hawk::scope::is_valid as is_scope;

section! {
    /// Which requests are allowed, with what scopes, and which headers are set for the upstream. The first
    /// matching rule in file order decides; if a route has rules and none matches, the request is refused.
    pub(super) struct Rule {
        /// Unique among rules; appears in logs.
        name: Arc<str> = [required],
        /// A CEL expression over claims, token, request and client; matches if its value is true.
        /// At most 1 KiB.
        when: Source = [required],
        /// What happens if it matches. A deny rule that fails to evaluate refuses the request; an allow
        /// rule that fails does not match.
        effect: Effect = [default "'allow'"],
        /// Restricts the source's credentials to these scopes; `[]` is none; unrestricted when left out.
        scopes: List<String> = [optional],
        /// Headers to set for the upstream, each with a CEL expression for its value; the caller's own
        /// copies are removed on every route.
        headers: Headers = [optional],
        /// Names of the routes that it applies to, "login" for `[login]`; every route and `[login]` when
        /// left out.
        routes: List<String> = [optional],
    }
}

impl Choice for Effect {
    const NAMES: &'static [&'static str] = &["allow", "deny"];

    fn named(name: &str) -> Option<Self> {
        match name {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            _ => None,
        }
    }
}

/// An expression that compiles. May span several lines.
#[derive(Debug)]
pub(super) struct Source {
    text: String,
    reads_claims: bool,
}

impl Value for Source {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "a CEL expression in quotes")?;
        if text.trim().is_empty() {
            reader.error(at, "is empty", "write true to match always");
            return None;
        }
        match Expression::compile(text) {
            Ok(expression) => Some(Self {
                text: text.to_owned(),
                reads_claims: expression.reads_claims(),
            }),
            Err(error) => {
                reader.error(at, error.problem, error.remedy);
                None
            }
        }
    }
}

/// Names with expressions, in the order of their names.
#[derive(Debug)]
pub(super) struct Headers(Vec<(String, Source)>);

impl Value for Headers {
    const SHAPE: Shape = Shape::Map(&Shape::Text);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let DeValue::Table(entries) = value else {
            let problem = "must be a table of names with expressions";
            reader.error(at, problem, "write { \"x-auth-subject\" = \"claims.sub\" }");
            return None;
        };
        let mut headers: Vec<(String, Source)> = Vec::new();
        let mut complete = true;
        for (key, value) in entries {
            let written = key.get_ref().as_ref();
            let at = at.key(written, key.span());
            let name = match header_name(written) {
                Ok(name) => name.as_str().to_owned(),
                Err(error) => {
                    let remedy = "choose another name, like \"x-auth-subject\"";
                    reader.error(&at, error.to_string(), remedy);
                    complete = false;
                    continue;
                }
            };
            if headers.iter().any(|(other, _)| *other == name) {
                reader.error(
                    &at,
                    "is there twice, differing only in case",
                    "remove one of the two",
                );
                complete = false;
            } else if let Some(source) = Source::read(reader, &at, value.get_ref()) {
                headers.push((name, source));
            } else {
                complete = false;
            }
        }
        complete.then_some(Self(headers))
    }
}

/// What a rule refers to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) routes: &'a [Declared<resolved::Route>],
    pub(super) issuers: &'a [Declared<IssuerKind>],
    /// Whether there is a `[login]`.
    pub(super) login: bool,
}

/// Reads one `[[rule]]`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    known: Known<'_>,
) -> Declared<resolved::Rule> {
    let rule = Rule::read(reader, table);
    reader.refuse_unknown(table, &[Rule::KEYS], |_| None);
    let mut declared = Declared::new(&table.at, &rule.name, None);
    declared.meaning = rule.resolve(reader, known);
    declared
}

impl Rule {
    fn resolve(self, reader: &mut Reader<'_>, known: Known<'_>) -> Option<resolved::Rule> {
        self.check_effect(reader);
        self.check_scopes(reader);
        let (routes, login) = self.find_routes(reader, known)?;
        self.warn_of_what_is_missing(reader, known, routes.as_deref(), login);
        let headers = self.headers.optional()?;
        Some(resolved::Rule {
            name: self.name.value?,
            when: self.when.value?.text,
            effect: self.effect.value?,
            scopes: self.scopes.optional()?.map(List::into_values),
            headers: headers.map_or_else(Vec::new, |Headers(headers)| {
                let plain = |(name, source): (String, Source)| (name, source.text);
                headers.into_iter().map(plain).collect()
            }),
            routes,
            login,
        })
    }

    fn check_effect(&self, reader: &mut Reader<'_>) {
        if self.effect.value != Some(Effect::Deny) {
            return;
        }
        let pointless = [
            (self.scopes.given, &self.scopes.at),
            (self.headers.given, &self.headers.at),
        ];
        for (_, at) in pointless.into_iter().filter(|(given, _)| *given) {
            let problem = "has no effect in a deny rule";
            reader.error(at, problem, "remove it, or write effect = \"allow\"");
        }
    }

    fn check_scopes(&self, reader: &mut Reader<'_>) {
        for scope in self.scopes.value.iter().flat_map(|list| &list.items) {
            if !is_scope(&scope.value) {
                let problem = format!("{} is not a scope", quoted(&scope.value));
                let remedy = "write printable ASCII with at most one * at its end";
                reader.error(&scope.at, problem, remedy);
            }
        }
    }

    /// The routes, `None` for all, and whether it applies to `[login]`; nothing if a name is
    /// wrong.
    fn find_routes(
        &self,
        reader: &mut Reader<'_>,
        known: Known<'_>,
    ) -> Option<(Option<Vec<usize>>, bool)> {
        let Some(named) = &self.routes.value else {
            return self.routes.is_absent().then_some((None, known.login));
        };
        if named.is_empty() {
            let problem = "is empty: the rule would apply to no request";
            reader.error(
                &self.routes.at,
                problem,
                "leave the key out for every route",
            );
            return None;
        }
        // No route can have this name beside a `[login]`.
        let login = |item: &&Item<String>| known.login && item.value == LABEL;
        let found: Vec<_> = named
            .items
            .iter()
            .filter(|item| !login(item))
            .map(|item| references::find(reader, "route", known.routes, item))
            .collect();
        let routes = found.into_iter().collect::<Option<_>>()?;
        Some((Some(routes), named.items.iter().any(|item| login(&item))))
    }

    /// Warns of claims that no request has, and of scopes for credentials that are never issued.
    fn warn_of_what_is_missing(
        &self,
        reader: &mut Reader<'_>,
        known: Known<'_>,
        routes: Option<&[usize]>,
        login: bool,
    ) {
        let concerned = || {
            let chosen = move |(index, _): &(usize, _)| routes.is_none_or(|r| r.contains(index));
            known
                .routes
                .iter()
                .enumerate()
                .filter(chosen)
                .filter_map(|(_, r)| r.meaning.as_ref())
        };
        let headers = self
            .headers
            .value
            .iter()
            .flat_map(|Headers(headers)| headers);
        let sources = self
            .when
            .value
            .iter()
            .chain(headers.map(|(_, source)| source));
        if sources.into_iter().any(|source| source.reads_claims)
            && let Some(route) = concerned().find(|route| without_claims(route, known.issuers))
        {
            let problem = format!(
                "reads claims, and requests on route {} may have none: its tokens are opaque or absent",
                quoted(&route.name)
            );
            let remedy = "list in routes only those whose issuers issue JWTs";
            reader.warn(&self.when.at, problem, remedy);
        }
        if self.scopes.given && !login && concerned().all(|route| route.source.is_none()) {
            let problem = "has no effect: no route that the rule applies to has a source";
            reader.warn(&self.scopes.at, problem, "remove it");
        }
    }
}

fn without_claims(route: &resolved::Route, issuers: &[Declared<IssuerKind>]) -> bool {
    let opaque = |index: &usize| {
        let kind = issuers
            .get(*index)
            .and_then(|issuer| issuer.meaning.as_ref());
        matches!(kind, Some(IssuerKind::Delegated))
    };
    route.anonymous || route.issuers.iter().any(opaque)
}

/// Warns of routes that refuse every request.
pub(super) fn warn_of_closed_routes(
    reader: &mut Reader<'_>,
    routes: &[Declared<resolved::Route>],
    rules: &[resolved::Rule],
) {
    for (index, route) in routes.iter().enumerate() {
        let mut concerned = rules.iter().filter(|rule| rule.concerns(index)).peekable();
        if concerned.peek().is_some() && concerned.all(|rule| rule.effect == Effect::Deny) {
            let problem = "has rules but no allow rule: every request is refused";
            reader.warn(
                &route.table,
                problem,
                "add a [[rule]] with when = \"true\" below",
            );
        }
    }
}
