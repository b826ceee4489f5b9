//! `[login]`

use std::time::Duration;

use super::cors::{Origin, allowed_origins};
use super::diagnostic::quoted;
use super::reader::{Field, Reader, section};
use super::references::{self, Declaration};
use super::resolved::{self, IssuerKind, SourceKind};
use super::route::Context;
use super::units::show_duration;
use super::value::{Item, List};
use crate::gateway::login::{LABEL, PREFIXES};
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
        /// Origins of the browser applications that may call it, such as "https://tools.example.com"; written
        /// as in `cors` of a route. "*" alone allows any.
        allowed_origins: List<Origin> = [default "[]"],
        /// How long the credentials are valid, but never past the token's `exp`; 1m to 30d.
        lifetime: Duration = [default "'15m'"],
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
        let source = find_source(reader, &self.source, context);
        let issuers = find_issuers(reader, &self.issuers, context);
        let listed = !self.allowed_origins.value.as_ref()?.is_empty();
        let origins = allowed_origins(reader, &self.allowed_origins);
        Some(resolved::Login {
            source: source?,
            issuers: issuers?,
            require_scopes: self.require_scopes.value?.into_values(),
            allowed_origins: if listed { Some(origins?) } else { None },
            lifetime: self.lifetime.value?,
        })
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
