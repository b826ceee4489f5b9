//! `[login]`

use std::time::Duration;

use toml::de::DeValue;
use url::Url;

use super::diagnostic::{Location, quoted};
use super::reader::{Field, Reader, Shape, Value, section};
use super::references::{self, Declaration};
use super::resolved::{self, IssuerKind, SourceKind};
use super::route::Context;
use super::units::show_duration;
use super::value::{Item, List, text};
use crate::gateway::login::{ANY_ORIGIN, LABEL, PREFIXES};
use crate::hawk::certificate::MAX_LIFETIME;

section! {
    /// Serves `GET /api/login/v1/oidc-credentials/<issuer>`, and the same at
    /// `/v1/oidc-credentials/<issuer>`: mints Taskcluster credentials in exchange for a bearer token. Off
    /// without this table.
    pub(super) struct Login {
        /// Name of the source that mints the credentials; it must be of kind taskcluster-mint.
        source: String = [required],
        /// Names of the issuers whose tokens are accepted; the name is the last segment of the request's
        /// path.
        issuers: List<String> = [required],
        /// Scopes that the token must have, all of them.
        require_scopes: List<String> = [default "['taskcluster-credentials']"],
        /// Origins of the browser applications that may call it, such as "https://tools.example.com",
        /// compared exactly. "*" alone allows any.
        allowed_origins: List<Origin> = [default "[]"],
        /// How long the credentials are valid, but never past the token's `exp`; 1m to 30d.
        lifetime: Duration = [default "'15m'"],
    }
}

/// An origin as browsers write it (RFC 6454 §6.2), or `*`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin(String);

impl Value for Origin {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"https://tools.example.com\"")?;
        if text == ANY_ORIGIN {
            return Some(Self(text.into()));
        }
        let url = Url::parse(text)
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let Some(url) = url else {
            let problem = format!("{} is not an origin", quoted(text));
            reader.error(at, problem, "write it like \"https://tools.example.com\"");
            return None;
        };
        let origin = url.origin().ascii_serialization();
        if origin != text {
            let problem = "is not in the form that browsers send: scheme, host, and the port unless it is the scheme's default";
            reader.error(at, problem, format!("write {}", quoted(&origin)));
            return None;
        }
        Some(Self(origin))
    }
}

impl Login {
    pub(super) fn resolve(
        self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
    ) -> Option<resolved::Login> {
        // A certificate's validity of at most 31 days begins in the past, to allow for clock skew.
        let longest = MAX_LIFETIME.saturating_sub(Duration::from_hours(24));
        reader.check_range(
            &self.lifetime,
            Duration::from_mins(1),
            longest,
            show_duration,
        );
        self.check_origins(reader);
        let source = find_source(reader, &self.source, context);
        let issuers = find_issuers(reader, &self.issuers, context);
        Some(resolved::Login {
            source: source?,
            issuers: issuers?,
            require_scopes: self.require_scopes.value?.into_values(),
            allowed_origins: self
                .allowed_origins
                .value?
                .into_values()
                .into_iter()
                .map(|origin| origin.0)
                .collect(),
            lifetime: self.lifetime.value?,
        })
    }

    fn check_origins(&self, reader: &mut Reader<'_>) {
        let Some(origins) = &self.allowed_origins.value else {
            return;
        };
        let any = origins
            .items
            .iter()
            .find(|o| o.value.0 == ANY_ORIGIN)
            .filter(|_| origins.items.len() > 1);
        if let Some(any) = any {
            let problem = "allows every origin, but others are listed too";
            reader.error(&any.at, problem, "keep either \"*\" or the others");
        }
    }
}

fn find_source(
    reader: &mut Reader<'_>,
    name: &Field<String>,
    context: Context<'_>,
) -> Option<usize> {
    let reference = Item {
        at: name.at.clone(),
        value: name.value.clone()?,
    };
    let index = references::find(reader, "source", context.sources, &reference)?;
    let source = context.sources.get(index)?.value.as_ref()?;
    if !matches!(source.kind, SourceKind::TaskclusterMint { .. }) {
        let problem = format!(
            "source {} does not mint credentials",
            quoted(&reference.value)
        );
        reader.error(&name.at, problem, "use a source of kind taskcluster-mint");
        return None;
    }
    Some(index)
}

fn find_issuers(
    reader: &mut Reader<'_>,
    names: &Field<List<String>>,
    context: Context<'_>,
) -> Option<Vec<usize>> {
    let list = names.value.as_ref()?;
    if list.is_empty() {
        let problem = "is empty: no token would be accepted";
        reader.error(&names.at, problem, "list issuers, or remove [login]");
    }
    let mut found = Vec::new();
    let mut complete = true;
    for item in &list.items {
        let index = references::find(reader, "issuer", context.issuers, item);
        let kind = index.and_then(|index| context.issuers.get(index)?.value.as_ref());
        if let Some(IssuerKind::Delegated) = kind {
            let problem = "is a delegated issuer: its tokens would not be verified before credentials are minted";
            reader.error(
                &item.at,
                problem,
                "use an issuer whose tokens hawkgate verifies",
            );
        }
        match index {
            Some(index) => found.push(index),
            None => complete = false,
        }
    }
    complete.then_some(found)
}

/// Refuses routes that `[login]` would shadow, or that have its name.
pub(super) fn refuse_collisions(reader: &mut Reader<'_>, routes: &[Declaration<resolved::Route>]) {
    for declaration in routes {
        if declaration.name.as_deref() == Some(LABEL) {
            let problem = "is reserved for [login] in metrics and logs";
            reader.error(&declaration.at, problem, "give the route another name");
        }
        let Some(route) = &declaration.value else {
            continue;
        };
        let below =
            |prefix: &&str| format!("{}/", route.path.trim_end_matches('/')).starts_with(*prefix);
        if PREFIXES.iter().any(below) {
            let problem = format!(
                "{} is served by [login]: this route would get no requests",
                quoted(&route.path)
            );
            reader.error(&declaration.table, problem, "remove this route, or [login]");
        }
    }
}
