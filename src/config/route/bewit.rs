//! Routes whose URLs are signed on demand.

use http::Method;

use super::{Known, Route};
use crate::config::diagnostic::quoted;
use crate::config::reader::Reader;
use crate::config::references::Declared;
use crate::config::resolved::{self, SourceKind};
use crate::gateway::bewit::PATH;

impl Route {
    /// A bewit is a Taskcluster signature for GET.
    pub(super) fn check_bewit(&self, reader: &mut Reader<'_>, known: Known<'_>) {
        if self.bewit.value != Some(true) {
            return;
        }
        let at = &self.bewit.at;
        if self.source.is_absent() {
            reader.error(at, "signs with a source's credentials", "name a source");
        }
        let source = self.source.value.as_deref().and_then(|name| {
            let mut named = known.sources.iter();
            named
                .find(|s| s.name.as_deref() == Some(name))?
                .meaning
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
            let problem = "signs with Taskcluster credentials, which this source does not provide";
            reader.error(
                at,
                problem,
                "name a source of a taskcluster kind, or remove it",
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
pub(in crate::config) fn refuse_hidden(
    reader: &mut Reader<'_>,
    routes: &[Declared<resolved::Route>],
) {
    let resolved = || routes.iter().filter_map(|r| Some((r, r.meaning.as_ref()?)));
    if !resolved().any(|(_, route)| route.compat.bewit) {
        return;
    }
    for (declared, route) in resolved() {
        if route.path == PATH {
            let problem = format!("{} is the path where bewits are signed", quoted(PATH));
            reader.error(
                &declared.table,
                problem,
                "change its path, or remove bewit from the other routes",
            );
        }
    }
}
