//! `strip_prefix` and `add_prefix` of a route: which path is sent upstream.
//!
//! Only whole segments at the beginning change, and the rest of the target is sent byte for byte.
//! Routes, rules and logs go by the path that the caller sent. No decision can be bypassed by that:
//! for a given route, the path that is sent follows from the caller's, and so does each of its
//! readings, except those that are refused here.

use super::path::{self, Ambiguity};

/// How the path of each request is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRewrite {
    /// Without a slash at its end; may be empty.
    strip: Box<str>,
    /// Without a slash at its end; may be empty.
    add: Box<str>,
}

impl PathRewrite {
    /// Removes the prefix `strip` from paths and puts `add` before the rest. A slash at the end of
    /// either changes nothing. `None` if paths stay as they are.
    pub fn new(strip: Option<&str>, add: Option<&str>) -> Option<Self> {
        let trimmed =
            |prefix: Option<&str>| prefix.unwrap_or_default().trim_end_matches('/').into();
        let (strip, add): (Box<str>, Box<str>) = (trimmed(strip), trimmed(add));
        (!strip.is_empty() || !add.is_empty()).then_some(Self { strip, add })
    }

    /// The target to send for `target`, which the route covers.
    ///
    /// # Errors
    /// If servers may read the new path in a way that is refused, as `//x` is, which names a host.
    pub fn apply(&self, target: &str) -> Result<String, Ambiguity> {
        let path = path::without_query(target);
        let query = target.get(path.len()..).unwrap_or_default();
        let rest = self.rest(path).ok_or(Ambiguity::OtherRoute)?;
        let mut sent = String::with_capacity(self.add.len() + rest.len() + query.len() + 1);
        sent.push_str(&self.add);
        sent.push_str(rest);
        if sent.is_empty() {
            sent.push('/');
        }
        path::readings(&sent)?;
        sent.push_str(query);
        Ok(sent)
    }

    /// What follows the stripped prefix: nothing, or a path. The route may match in any case.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (begin, rest) = path.split_at_checked(self.strip.len())?;
        let whole = rest.is_empty() || rest.starts_with('/');
        (whole && begin.eq_ignore_ascii_case(&self.strip)).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(strip: &str, add: &str) -> PathRewrite {
        let given = |prefix| Some(prefix).filter(|prefix: &&str| !prefix.is_empty());
        PathRewrite::new(given(strip), given(add)).unwrap()
    }

    #[test]
    fn whole_segments_are_replaced_and_the_rest_stays_byte_for_byte() {
        for (strip, add, target, sent) in [
            ("/x", "", "/x", "/"),
            ("/x", "", "/x/", "/"),
            ("/x/", "", "/x/a", "/a"),
            ("/x", "", "/x?y=/x", "/?y=/x"),
            ("/x", "", "/x/x/x", "/x/x"),
            ("/x", "", "/x/a%2Fb%3F//c?d=%20&e", "/a%2Fb%3F//c?d=%20&e"),
            ("/x", "/v1", "/x", "/v1"),
            ("/x", "/v1/", "/x/", "/v1/"),
            ("/x/y", "/v1/z", "/x/y/a?", "/v1/z/a?"),
            ("", "/api/v3", "/repos/a", "/api/v3/repos/a"),
            ("", "/api", "/", "/api/"),
            ("/GitHub", "", "/github/a", "/a"),
        ] {
            let found = rewrite(strip, add).apply(target);
            assert_eq!(found.as_deref(), Ok(sent), "{strip} {add} {target}");
        }
        assert_eq!(PathRewrite::new(None, Some("/")), None);
    }

    #[test]
    fn a_path_that_could_be_read_as_another_is_refused() {
        for (target, expected) in [
            ("/x//y", Ambiguity::NetworkPath),
            ("/x/%2Fy", Ambiguity::NetworkPath),
            ("/x/%2fy", Ambiguity::NetworkPath),
            ("/x/;a/y", Ambiguity::NetworkPath),
            ("/x/\\y", Ambiguity::NetworkPath),
            ("/x/../y", Ambiguity::DotSegment),
            ("/x/%2e%2e/y", Ambiguity::DotSegment),
            ("/xy", Ambiguity::OtherRoute),
            ("/%78/y", Ambiguity::OtherRoute),
            ("*", Ambiguity::OtherRoute),
        ] {
            assert_eq!(rewrite("/x", "").apply(target), Err(expected), "{target}");
        }
        // With a prefix of its own in front, this is a path like any other.
        assert_eq!(rewrite("/x", "/v1").apply("/x//y").as_deref(), Ok("/v1//y"));
    }
}
