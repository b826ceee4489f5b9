//! `[login]`

use std::time::Duration;

use toml::de::DeValue;
use url::Url;

use super::diagnostic::{Location, quoted};
use super::reader::{Field, Reader, Shape, Value, section};
use super::references::{self, Declared};
use super::resolved::{self, IssuerKind, SourceKind};
use super::route::Known;
use super::units::show_duration;
use super::value::{Item, List, text};
use crate::gateway::login::{ANY_ORIGIN, LABEL, PREFIXES};
use crate::hawk::certificate::MAX_LIFETIME;

section! {
    /// Serves `GET /api/login/v1/oidc-credentials/<issuer>` to callers, and the same below
    /// `/v1/oidc-credentials/`: Taskcluster credentials, minted here, for a bearer token. Off without this
    /// table.
    pub(super) struct Login {
        /// Name of the source that mints them; its kind is taskcluster-mint.
        source: String = [required],
        /// Names of the issuers whose tokens are accepted; each name is the last segment of its URL.
        issuers: List<String> = [required],
        /// Scopes that the token must have, all of them.
        require_scopes: List<String> = [default "['taskcluster-credentials']"],
        /// Origins of the browser applications that may call it, such as "https://tools.example.com",
        /// compared as a whole. "*" alone allows any.
        allowed_origins: List<Origin> = [default "[]"],
        /// How long the credentials are valid, never past the token's `exp`; 1m to 30d.
        lifetime: Duration = [default "'15m'"],
    }
}

/// An origin as browsers write it (RFC 6454 §6.2), or `*`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin(String);

impl Value for Origin {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let written = text(reader, at, value, "\"https://tools.example.com\"")?;
        if written == ANY_ORIGIN {
            return Some(Self(written.into()));
        }
        let url = Url::parse(written)
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let Some(url) = url else {
            let problem = format!("{} is not an origin", quoted(written));
            reader.error(at, problem, "write it like \"https://tools.example.com\"");
            return None;
        };
        let origin = url.origin().ascii_serialization();
        if origin != written {
            let problem = "is not what a browser sends: scheme, host, and the port unless it is the scheme's default";
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
        known: Known<'_>,
    ) -> Option<resolved::Login> {
        // A certificate is valid for at most 31 days, and starts in the past.
        let longest = MAX_LIFETIME.saturating_sub(Duration::from_hours(24));
        reader.within(
            &self.lifetime,
            Duration::from_mins(1),
            longest,
            show_duration,
        );
        self.check_origins(reader);
        let source = find_source(reader, &self.source, known);
        let issuers = find_issuers(reader, &self.issuers, known);
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
            let problem = "means every origin, but others are listed too";
            reader.error(&any.at, problem, "remove it, or the others");
        }
    }
}

fn find_source(reader: &mut Reader<'_>, name: &Field<String>, known: Known<'_>) -> Option<usize> {
    let reference = Item {
        at: name.at.clone(),
        value: name.value.clone()?,
    };
    let index = references::find(reader, "source", known.sources, &reference)?;
    let source = known.sources.get(index)?.meaning.as_ref()?;
    if !matches!(source.kind, SourceKind::TaskclusterMint { .. }) {
        let problem = format!("{} mints no credentials", quoted(&reference.value));
        reader.error(&name.at, problem, "name a source of kind taskcluster-mint");
        return None;
    }
    Some(index)
}

fn find_issuers(
    reader: &mut Reader<'_>,
    names: &Field<List<String>>,
    known: Known<'_>,
) -> Option<Vec<usize>> {
    let list = names.value.as_ref()?;
    if list.is_empty() {
        let problem = "is empty: no token would be accepted";
        reader.error(&names.at, problem, "name issuers, or remove [login]");
    }
    let mut found = Vec::new();
    let mut whole = true;
    for item in &list.items {
        let index = references::find(reader, "issuer", known.issuers, item);
        let kind = index.and_then(|index| known.issuers.get(index)?.meaning.as_ref());
        if let Some(IssuerKind::Delegated) = kind {
            let problem =
                "is delegated: its tokens would not be checked before credentials are minted";
            reader.error(
                &item.at,
                problem,
                "name an issuer whose tokens are verified",
            );
        }
        match index {
            Some(index) => found.push(index),
            None => whole = false,
        }
    }
    whole.then_some(found)
}

/// Refuses routes that `[login]` would shadow, or whose name it has.
pub(super) fn refuse_collisions(reader: &mut Reader<'_>, routes: &[Declared<resolved::Route>]) {
    for declared in routes {
        if declared.name.as_deref() == Some(LABEL) {
            let problem = "is the name that [login] has in metrics and logs";
            reader.error(&declared.at, problem, "give the route another name");
        }
        let Some(route) = &declared.meaning else {
            continue;
        };
        let below =
            |prefix: &&str| format!("{}/", route.path.trim_end_matches('/')).starts_with(*prefix);
        if PREFIXES.iter().any(below) {
            let problem = format!(
                "{} is served by [login]: this route would get no requests",
                quoted(&route.path)
            );
            reader.error(&declared.table, problem, "remove this route, or [login]");
        }
    }
}
