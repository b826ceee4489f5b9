//! `[[rule]]`

use std::sync::Arc;

use toml::de::DeValue;

use super::diagnostic::{Location, quoted};
use super::reader::{Reader, Section, Shape, Table, Value, section};
use super::references::{self, Declaration};
use super::resolved::{self, IssuerKind};
use super::value::{Choice, Item, List, text};
use crate::gateway::login::LABEL;
use crate::gateway::rule::{Effect, Expression, header_name};
use crate::hawk::scope::is_valid as is_scope;

section! {
    /// Which requests are allowed, with which scopes, and which headers are set for the upstream. The first
    /// matching rule in file order decides; if a route has rules and none matches, the request is refused.
    pub(super) struct Rule {
        /// Unique among rules; appears in logs.
        name: Arc<str> = [required],
        /// A CEL expression over claims, token, request and client; the rule matches if it evaluates to
        /// true. At most 1 KiB.
        when: Source = [required],
        /// Whether a matching request is allowed or refused. A deny rule whose expression fails refuses the
        /// request; an allow rule whose expression fails does not match.
        effect: Effect = [default "'allow'"],
        /// Restricts the source's credentials to these scopes; `[]` means none; unrestricted when left out.
        scopes: List<String> = [optional],
        /// Headers to set for the upstream, each with a CEL expression for its value; copies sent by the
        /// caller are removed on every route.
        headers: Headers = [optional],
        /// Names of the routes that the rule applies to, and "login" for `[login]`; every route and
        /// `[login]` when left out.
        routes: List<String> = [optional],
    }
}

impl Choice for Effect {
    const NAMES: &'static [&'static str] = &["allow", "deny"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            _ => None,
        }
    }
}

/// The source of a valid CEL expression, which may span several lines.
#[derive(Debug)]
pub(super) struct Source {
    text: String,
    reads_claims: bool,
    path_text_with_capitals: Option<String>,
}

impl Value for Source {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "a CEL expression in quotes")?;
        if text.trim().is_empty() {
            reader.error(at, "is empty", "write \"true\" to match every request");
            return None;
        }
        match Expression::compile(text) {
            Ok(expression) => Some(Self {
                text: text.to_owned(),
                reads_claims: expression.reads_claims(),
                path_text_with_capitals: expression.path_text_with_capitals().map(Into::into),
            }),
            Err(error) => {
                reader.error(at, error.problem, error.remedy);
                None
            }
        }
    }
}

/// Header names with expressions, sorted by name.
#[derive(Debug)]
pub(super) struct Headers(Vec<(String, Source)>);

impl Value for Headers {
    const SHAPE: Shape = Shape::Map(&Shape::Text);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let DeValue::Table(entries) = value else {
            let problem = "must be a table of header names with expressions";
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
                    "is listed twice, in different case",
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

/// What the checks of a rule depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) routes: &'a [Declaration<resolved::Route>],
    pub(super) issuers: &'a [Declaration<IssuerKind>],
    /// Whether the file has `[login]`.
    pub(super) login: bool,
}

/// Reads one `[[rule]]`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    context: Context<'_>,
) -> Declaration<resolved::Rule> {
    let rule = Rule::read(reader, table);
    reader.refuse_unknown(table, &[Rule::KEYS], |_| None);
    let mut declaration = Declaration::new(&table.at, &rule.name, None);
    declaration.value = rule.resolve(reader, context);
    declaration
}

impl Rule {
    fn resolve(self, reader: &mut Reader<'_>, context: Context<'_>) -> Option<resolved::Rule> {
        self.check_effect(reader);
        self.check_scopes(reader);
        let (routes, login) = self.find_routes(reader, context)?;
        self.check_case(reader, context, routes.as_deref());
        self.warn_about_ineffective_keys(reader, context, routes.as_deref(), login);
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
        let ineffective = [
            (self.scopes.given, &self.scopes.at),
            (self.headers.given, &self.headers.at),
        ];
        for (_, at) in ineffective.into_iter().filter(|(given, _)| *given) {
            let problem = "has no effect in a deny rule";
            reader.error(at, problem, "remove it, or write effect = \"allow\"");
        }
    }

    fn check_scopes(&self, reader: &mut Reader<'_>) {
        for scope in self.scopes.value.iter().flat_map(|list| &list.items) {
            if !is_scope(&scope.value) {
                let problem = format!("{} is not a scope", quoted(&scope.value));
                let remedy = "use printable ASCII, with no * except one at the end";
                reader.error(&scope.at, problem, remedy);
            }
        }
    }

    /// On routes with `case_insensitive_path`, rules see the path in lower case, so a text with
    /// capitals would never match, and a deny rule with one would deny nothing.
    fn check_case(&self, reader: &mut Reader<'_>, context: Context<'_>, routes: Option<&[usize]>) {
        let Some(source) = &self.when.value else {
            return;
        };
        let Some(text) = &source.path_text_with_capitals else {
            return;
        };
        let applies = |index: &usize| routes.is_none_or(|routes| routes.contains(index));
        let mut values = context.routes.iter().enumerate();
        let insensitive = values.find_map(|(index, route)| {
            let route = route.value.as_ref().filter(|_| applies(&index))?;
            route.case_insensitive_path.then_some(&route.name)
        });
        if let Some(route) = insensitive {
            let problem = format!(
                "compares the path with {}, but route {} has case_insensitive_path, so rules see the path in lower case",
                quoted(text),
                quoted(route)
            );
            reader.error(
                &self.when.at,
                problem,
                format!("write {}", quoted(&text.to_lowercase())),
            );
        }
    }

    /// Returns the routes (`None` for all) and whether the rule applies to `[login]`; `None` altogether
    /// if a name is invalid.
    fn find_routes(
        &self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
    ) -> Option<(Option<Vec<usize>>, bool)> {
        let Some(named) = &self.routes.value else {
            return self.routes.is_absent().then_some((None, context.login));
        };
        if named.is_empty() {
            let problem = "is empty: the rule would apply to no request";
            reader.error(
                &self.routes.at,
                problem,
                "list routes, or leave the key out for every route",
            );
            return None;
        }
        // With `[login]`, no route can have this name.
        let login = |item: &&Item<String>| context.login && item.value == LABEL;
        let found: Vec<_> = named
            .items
            .iter()
            .filter(|item| !login(item))
            .map(|item| references::find(reader, "route", context.routes, item))
            .collect();
        let routes = found.into_iter().collect::<Option<_>>()?;
        Some((Some(routes), named.items.iter().any(|item| login(&item))))
    }

    /// Warns about claims that requests lack, and about scopes for credentials that are never issued.
    fn warn_about_ineffective_keys(
        &self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
        routes: Option<&[usize]>,
        login: bool,
    ) {
        let applicable = || {
            let chosen = move |(index, _): &(usize, _)| routes.is_none_or(|r| r.contains(index));
            context
                .routes
                .iter()
                .enumerate()
                .filter(chosen)
                .filter_map(|(_, r)| r.value.as_ref())
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
            && let Some(route) = applicable().find(|route| may_lack_claims(route, context.issuers))
        {
            let problem = format!(
                "reads claims, but requests on route {} may have none: its tokens are opaque or absent",
                quoted(&route.name)
            );
            let remedy = "limit routes to those whose issuers issue JWTs";
            reader.warn(&self.when.at, problem, remedy);
        }
        if self.scopes.given && !login && applicable().all(|route| route.source.is_none()) {
            let problem = "has no effect: no route that the rule applies to has a source";
            reader.warn(&self.scopes.at, problem, "remove it");
        }
    }
}

fn may_lack_claims(route: &resolved::Route, issuers: &[Declaration<IssuerKind>]) -> bool {
    let opaque = |index: &usize| {
        let kind = issuers.get(*index).and_then(|issuer| issuer.value.as_ref());
        matches!(kind, Some(IssuerKind::Delegated))
    };
    route.anonymous || route.issuers.iter().any(opaque)
}

/// Warns about routes that refuse every request.
pub(super) fn warn_about_deny_only_routes(
    reader: &mut Reader<'_>,
    routes: &[Declaration<resolved::Route>],
    rules: &[resolved::Rule],
) {
    for (index, route) in routes.iter().enumerate() {
        let mut applicable = rules
            .iter()
            .filter(|rule| rule.applies_to(index))
            .peekable();
        if applicable.peek().is_some() && applicable.all(|rule| rule.effect == Effect::Deny) {
            let problem = "has rules but no allow rule: every request is refused";
            reader.warn(
                &route.table,
                problem,
                "add a [[rule]] with when = \"true\" below",
            );
        }
    }
}
