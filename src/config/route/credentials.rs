//! Checks of `credentials`: the route whose source gets what callers `PUT` to `/credentials`.

use super::{Context, Route};
use crate::config::diagnostic::quoted;
use crate::config::reader::Reader;
use crate::config::references::Declaration;
use crate::config::resolved::{self, SourceKind};
use crate::gateway::credentials_endpoint::PATH;

impl Route {
    /// Requires a source whose credentials may be replaced, and listeners that only this machine and
    /// its containers can reach.
    pub(super) fn check_credentials(&self, reader: &mut Reader<'_>, context: Context<'_>) {
        if self.credentials.value != Some(true) {
            return;
        }
        let at = &self.credentials.at;
        let named = self.source.value.as_deref().and_then(|name| {
            let mut sources = context.sources.iter();
            sources.find(|source| source.name.as_deref() == Some(name))
        });
        let source = named.and_then(|source| source.value.as_ref());
        let updates = |source: &resolved::Source| {
            matches!(
                source.kind,
                SourceKind::TaskclusterStatic {
                    credentials_update: true,
                    ..
                }
            )
        };
        if self.source.is_absent() || source.is_some_and(|source| !updates(source)) {
            let problem = "replaces the credentials of the route's source, which does not allow it";
            let remedy = "use a source of kind taskcluster-static with credentials_update = true, or remove it";
            reader.error(at, problem, remedy);
        }
        if !context.is_confined() {
            let problem = "would let other machines replace the source's credentials";
            let remedy = "make every listener loopback or a Unix socket, without trusted_proxies, or remove it";
            reader.error(at, problem, remedy);
        }
    }
}

/// Refuses routes that `PUT /credentials` would shadow, and a second source for what is sent there.
pub(in crate::config) fn refuse_ambiguous(
    reader: &mut Reader<'_>,
    routes: &[Declaration<resolved::Route>],
) {
    let resolved = || routes.iter().filter_map(|r| Some((r, r.value.as_ref()?)));
    let mut taking = resolved().filter(|(_, route)| route.compat.credentials);
    let Some((first, route)) = taking.next() else {
        return;
    };
    for (declaration, _) in taking.filter(|(_, other)| other.source != route.source) {
        let name = quoted(first.name.as_deref().unwrap_or_default());
        let problem = format!(
            "has credentials = true and another source than route {name}: new credentials would be ambiguous"
        );
        let remedy = "remove credentials from one of the two";
        reader.error(&declaration.table, problem, remedy);
    }
    for (declaration, _) in resolved().filter(|(_, route)| route.path == PATH) {
        let problem = format!(
            "{} is the path that replaces credentials on a route with credentials = true",
            quoted(PATH)
        );
        let remedy = "change its path, or remove credentials from the other routes";
        reader.error(&declaration.table, problem, remedy);
    }
}
