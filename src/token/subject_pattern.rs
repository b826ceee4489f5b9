//! Subject patterns, in which `*` matches any text, including none.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// The literal pieces between the asterisks; at least one.
    pieces: Vec<String>,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Self {
        Self {
            pieces: pattern.split('*').map(str::to_owned).collect(),
        }
    }

    /// Whether all of `text` matches, byte for byte. Needs no backtracking: if a piece can match at
    /// all, its first match leaves the most text for the rest.
    pub(super) fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = &self.pieces[..] else {
            return self.pieces.first().is_some_and(|whole| whole == text);
        };
        let Some(rest) = text.strip_prefix(first.as_str()) else {
            return false;
        };
        let Some(mut rest) = rest.strip_suffix(last.as_str()) else {
            return false;
        };
        for piece in middle {
            let Some((_, after)) = rest.split_once(piece.as_str()) else {
                return false;
            };
            rest = after;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_matches_any_text() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("abc", "ABC", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("repo:org/app:*", "repo:org/app:ref:refs/heads/main", true),
            ("repo:org/app:*", "repo:org/app2:ref", false),
            ("repo:org/app:*", "xrepo:org/app:ref", false),
            (
                "repo:*:ref:refs/heads/main",
                "repo:org/app:ref:refs/heads/main",
                true,
            ),
            (
                "repo:*:ref:refs/heads/main",
                "repo:org/app:ref:refs/heads/main2",
                false,
            ),
            ("*@example.com", "me@example.com", true),
            ("*@example.com", "me@example.com.evil", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
            ("a?c", "abc", false),
            ("a.c", "abc", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn matching_many_asterisks_takes_linear_time() {
        let pattern = Pattern::new(&"*a".repeat(500));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(1000))));
        assert!(pattern.matches(&"a".repeat(1000)));
    }
}
