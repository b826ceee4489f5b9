//! Checks of `passes_401`: the paths whose 401s are the upstream's own.

use super::{Route, prefix_problem};
use crate::config::diagnostic::quoted;
use crate::config::reader::Reader;

impl Route {
    /// Requires prefixes that can match, and a source whose credentials a 401 could concern.
    pub(super) fn check_passes_401(&self, reader: &mut Reader<'_>) {
        let Some(list) = &self.passes_401.value else {
            return;
        };
        if !list.is_empty() && self.source.is_absent() {
            let problem =
                "has no effect without a source: every 401 of this route is passed on as it is";
            reader.error(&self.passes_401.at, problem, "set source, or remove it");
        }
        let route = self.upstream_path();
        for item in &list.items {
            let path = &item.value;
            if let Some((problem, remedy)) = prefix_problem(path) {
                let problem = format!("{} {problem}", quoted(path));
                reader.error(&item.at, problem, remedy);
            } else if let Some(route) = route.as_deref()
                && !lies_below(path, route)
            {
                let sent = match self.rewrite() {
                    None => "",
                    Some(_) => ", as it is sent upstream",
                };
                let problem = format!(
                    "{} is not below the route's path {}{sent}",
                    quoted(path),
                    quoted(route)
                );
                reader.error(
                    &item.at,
                    problem,
                    "write a path that this route serves, or list it on the route that does",
                );
            }
        }
    }
}

/// Whether a route with the prefix `route` can serve every path that has the prefix `path`.
fn lies_below(path: &str, route: &str) -> bool {
    path.strip_prefix(route)
        .is_some_and(|rest| rest.is_empty() || route.ends_with('/') || rest.starts_with('/'))
}
