//! Checks of `bewit`: routes that sign URLs on request.

use http::Method;

use super::{Context, Route};
use crate::config::diagnostic::quoted;
use crate::config::reader::Reader;
use crate::config::references::Declaration;
use crate::config::resolved::{self, SourceKind};
use crate::gateway::bewit::PATH;

impl Route {
    /// Requires what a bewit needs: Taskcluster credentials, and a route that accepts GET.
    pub(super) fn check_bewit(&self, reader: &mut Reader<'_>, context: Context<'_>) {
        if self.bewit.value != Some(true) {
            return;
        }
        let at = &self.bewit.at;
        if self.source.is_absent() {
            reader.error(
                at,
                "requires a source to sign with",
                "set source, or remove it",
            );
        }
        let source = self.source.value.as_deref().and_then(|name| {
            let mut named = context.sources.iter();
            named
                .find(|s| s.name.as_deref() == Some(name))?
                .value
                .as_ref()
        });
        let signs = |kind: &SourceKind| {
            matches!(
                kind,
                SourceKind::TaskclusterLogin { .. }
                    | SourceKind::TaskclusterOauth { .. }
                    | SourceKind::TaskclusterMint { .. }
                    | SourceKind::TaskclusterStatic { .. }
            )
        };
        if source.is_some_and(|source| !signs(&source.kind)) {
            let problem =
                "signs with Taskcluster credentials, which the route's source does not provide";
            reader.error(
                at,
                problem,
                "use a source of a taskcluster kind, or remove it",
            );
        }
        let methods = self.methods.value.as_ref();
        if methods.is_some_and(|m| m.items.iter().all(|item| item.value != Method::GET)) {
            let problem = "signs URLs for GET, which this route does not accept";
            reader.error(at, problem, "add GET to methods, or remove it");
        }
    }
}

/// Refuses routes that `POST /bewit` would shadow.
pub(in crate::config) fn refuse_shadowed(
    reader: &mut Reader<'_>,
    routes: &[Declaration<resolved::Route>],
) {
    let resolved = || routes.iter().filter_map(|r| Some((r, r.value.as_ref()?)));
    if !resolved().any(|(_, route)| route.compat.bewit) {
        return;
    }
    for (declaration, route) in resolved() {
        if route.path == PATH {
            let problem = format!(
                "{} is the path that signs URLs on a route with bewit = true",
                quoted(PATH)
            );
            reader.error(
                &declaration.table,
                problem,
                "change its path, or remove bewit from the other routes",
            );
        }
    }
}
