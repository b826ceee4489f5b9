//! `request_headers` and `response_headers` of a route.

use http::{HeaderName, HeaderValue};
use toml::de::DeValue;

use super::{Context, Route};
use crate::config::diagnostic::{Location, quoted};
use crate::config::reader::{Field, Reader, Shape, Value, section};
use crate::config::references::Declaration;
use crate::config::resolved;
use crate::config::value::{Item, List, Nested, text};
use crate::gateway::header_edits::{
    Edited, HeaderEdits, ProtectedField, field_value, looks_secret,
};

section! {
    /// Headers that are removed, set and added, in this order.
    pub(in crate::config) struct HeaderEditKeys {
        /// Headers to set, with their values; they replace those of the same name.
        set: Fields = [optional],
        /// Headers to add to those of the same name, unless there is one with that value.
        add: Fields = [optional],
        /// Names of headers to remove.
        remove: List<String> = [default "[]"],
    }
}

/// Header names with values, in the order of the names.
#[derive(Debug)]
pub(in crate::config) struct Fields(Vec<Item<(String, HeaderValue)>>);

impl Value for Fields {
    const SHAPE: Shape = Shape::Map(&Shape::Text);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let DeValue::Table(entries) = value else {
            let problem = "must be a table of header names with values";
            reader.error(at, problem, "write { \"x-api-version\" = \"2\" }");
            return None;
        };
        let mut fields = Vec::new();
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let at = at.key(name, key.span());
            let text = text(reader, &at, value.get_ref(), "\"…\"")?;
            let Some(value) = field_value(text) else {
                let problem = "is not a header value";
                let remedy = "write printable ASCII, without spaces at either end";
                reader.error(&at, problem, remedy);
                return None;
            };
            let value = (name.to_owned(), value);
            fields.push(Item { at, value });
        }
        Some(Self(fields))
    }
}

/// The checks of one of the two keys.
struct Checks<'a> {
    edited: Edited,
    /// The header that carries the source's credential.
    injected: Option<&'a HeaderName>,
    /// Whether the route has `cors`, which sets the CORS fields.
    cors: bool,
    /// Every name so far.
    seen: Vec<HeaderName>,
}

impl Route {
    /// Reads `request_headers`.
    pub(super) fn resolve_request_headers(
        &self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
    ) -> Option<HeaderEdits> {
        let checks = Checks {
            edited: Edited::Request,
            injected: self.injected(context),
            cors: false,
            seen: Vec::new(),
        };
        checks.resolve(reader, &self.request_headers)
    }

    /// Reads `response_headers`.
    pub(super) fn resolve_response_headers(&self, reader: &mut Reader<'_>) -> Option<HeaderEdits> {
        let checks = Checks {
            edited: Edited::Response,
            injected: None,
            cors: self.cors.given,
            seen: Vec::new(),
        };
        checks.resolve(reader, &self.response_headers)
    }

    fn injected<'a>(&self, context: Context<'a>) -> Option<&'a HeaderName> {
        let name = self.source.value.as_deref()?;
        let mut named = context.sources.iter();
        let source = named.find(|source| source.name.as_deref() == Some(name))?;
        Some(source.value.as_ref()?.inject.header())
    }
}

impl Checks<'_> {
    fn resolve(
        mut self,
        reader: &mut Reader<'_>,
        field: &Field<Nested<HeaderEditKeys>>,
    ) -> Option<HeaderEdits> {
        let Some(Nested(keys)) = &field.value else {
            return (!field.given).then(HeaderEdits::default);
        };
        let mut remove = Vec::new();
        for item in &keys.remove.value.as_ref()?.items {
            remove.push(self.name(reader, &item.at, &item.value, true));
        }
        let set = self.fields(reader, &keys.set);
        let add = self.fields(reader, &keys.add);
        Some(HeaderEdits {
            remove: remove.into_iter().collect::<Option<_>>()?,
            set: set?,
            add: add?,
        })
    }

    fn fields(
        &mut self,
        reader: &mut Reader<'_>,
        field: &Field<Fields>,
    ) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let Some(Fields(items)) = &field.value else {
            return (!field.given).then(Vec::new);
        };
        let mut fields = Vec::new();
        let mut complete = true;
        for Item { at, value } in items {
            match self.name(reader, at, &value.0, false) {
                Some(name) => fields.push((name, value.1.clone())),
                None => complete = false,
            }
        }
        complete.then_some(fields)
    }

    /// The field called `written`, unless a route may not change it.
    fn name(
        &mut self,
        reader: &mut Reader<'_>,
        at: &Location,
        written: &str,
        removed: bool,
    ) -> Option<HeaderName> {
        let name = match self.edited.field(written, removed) {
            Ok(name) => name,
            Err(error) => {
                reader.error(at, format!("{} {error}", quoted(written)), remedy(error));
                return None;
            }
        };
        if self.injected == Some(&name) {
            let problem = format!(
                "{} is the header of the source's credential",
                quoted(written)
            );
            reader.error(at, problem, "remove it: the caller's is never forwarded");
            return None;
        }
        if self.cors && name.as_str().starts_with("access-control-") {
            let problem = format!("{} is set by cors", quoted(written));
            reader.error(at, problem, "remove one of the two");
            return None;
        }
        if self.seen.contains(&name) {
            let problem = format!("{} is changed twice", quoted(written));
            reader.error(at, problem, "name each header in one place");
            return None;
        }
        if self.edited == Edited::Request && !removed && looks_secret(name.as_str()) {
            let problem = format!(
                "{} looks like a credential, which must not be in the configuration itself",
                quoted(written)
            );
            let remedy = "use a source of kind static with inject, which reads it from a file";
            reader.warn(at, problem, remedy);
        }
        self.seen.push(name.clone());
        Some(name)
    }
}

fn remedy(error: ProtectedField) -> &'static str {
    match error {
        ProtectedField::Invalid | ProtectedField::Character => "write it like \"x-api-version\"",
        ProtectedField::Credential => "use a source, such as one of kind static",
        ProtectedField::Framing
        | ProtectedField::Own
        | ProtectedField::Authentication
        | ProtectedField::Cookie => "remove it",
    }
}

/// Refuses changes to headers that only rules set: on every route, the rules' replace all others.
pub(in crate::config) fn refuse_headers_of_rules(
    reader: &mut Reader<'_>,
    routes: &[Declaration<resolved::Route>],
    rules: &[Declaration<resolved::Rule>],
) {
    let rules = || rules.iter().filter_map(|rule| rule.value.as_ref());
    for declaration in routes {
        let edits = declaration
            .value
            .iter()
            .flat_map(|r| r.request_headers.names());
        for name in edits {
            let sets = |rule: &&resolved::Rule| {
                let mut headers = rule.headers.iter();
                headers.any(|(own, _)| own == name.as_str())
            };
            if let Some(rule) = rules().find(sets) {
                let problem = format!(
                    "request_headers changes {}, which only rules set because rule {} does",
                    quoted(name.as_str()),
                    quoted(&rule.name)
                );
                let remedy = "use another name, or set it by a rule with routes";
                reader.error(&declaration.table, problem, remedy);
            }
        }
    }
}
