//! `strip_prefix` and `add_prefix` of a route: the path that is sent upstream.

use super::{Route, prefix_problem};
use crate::config::diagnostic::quoted;
use crate::config::reader::{Field, Reader};
use crate::gateway::path_rewrite::PathRewrite;

impl Route {
    /// Requires prefixes that every request of the route can have, and nothing else that depends on the
    /// path being the same on both sides.
    pub(super) fn check_rewrite(&self, reader: &mut Reader<'_>) {
        for (field, what) in [
            (&self.strip_prefix, "stripped"),
            (&self.add_prefix, "added"),
        ] {
            let Some(prefix) = field.value.as_deref() else {
                continue;
            };
            if let Some((problem, remedy)) = prefix_problem(prefix) {
                reader.error(&field.at, problem, remedy);
            } else if prefix.trim_end_matches('/').is_empty() {
                let problem = format!("is the root: nothing would be {what}");
                reader.error(&field.at, problem, "remove it");
            }
            self.refuse_other_rewriting(reader, field);
        }
        self.check_stripped(reader);
    }

    fn check_stripped(&self, reader: &mut Reader<'_>) {
        let (Some(strip), Some(path)) = (&self.strip_prefix.value, &self.path.value) else {
            return;
        };
        if prefix_problem(strip).is_some() || prefix_problem(path).is_some() {
            return;
        }
        let begins = path
            .strip_prefix(strip.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if !begins {
            let problem = format!("is not the beginning of the route's path {}", quoted(path));
            let remedy = format!(
                "write a path that begins with it, like {}, or strip less",
                quoted(&format!("{}/", strip.trim_end_matches('/')))
            );
            reader.error(&self.strip_prefix.at, problem, remedy);
        }
    }

    fn refuse_other_rewriting(&self, reader: &mut Reader<'_>, field: &Field<String>) {
        if self.shortcut.value == Some(true) {
            let problem = "conflicts with shortcut = true, which rewrites paths itself";
            reader.error(&field.at, problem, "remove one of the two");
        }
        if self.bewit.value == Some(true) {
            let problem =
                "conflicts with bewit = true, which signs URLs for the path that callers send";
            reader.error(&field.at, problem, "use a separate route for each");
        }
    }

    /// How paths are rewritten.
    pub(super) fn rewrite(&self) -> Option<PathRewrite> {
        let (strip, add) = (&self.strip_prefix.value, &self.add_prefix.value);
        PathRewrite::new(strip.as_deref(), add.as_deref())
    }

    /// The route's path as it is sent upstream; `None` if it is invalid.
    pub(super) fn upstream_path(&self) -> Option<String> {
        let path = self.path.value.as_deref()?;
        if prefix_problem(path).is_some() {
            return None;
        }
        match self.rewrite() {
            None => Some(path.to_owned()),
            Some(rewrite) => rewrite.apply(path).ok(),
        }
    }
}
