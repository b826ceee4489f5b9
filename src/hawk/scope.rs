//! Taskcluster scopes and sets of them. A scope that ends in `*` matches every scope with
//! that prefix. Roles (`assume:…`) are treated like any other scope, because only the auth
//! service can expand them; the results are therefore never wider than the service's.

/// Whether the auth service accepts `scope`: printable ASCII with at most one trailing `*`.
pub fn is_valid(scope: &str) -> bool {
    scope.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !scope.ends_with("**")
}

/// Whether a holder of `have` also holds `want`.
pub fn satisfies(have: &str, want: &str) -> bool {
    match have.strip_suffix('*') {
        Some(prefix) => want.starts_with(prefix),
        None => have == want,
    }
}

/// Whether a holder of all scopes in `have` also holds `want`.
pub fn any_satisfies<S: AsRef<str>>(have: &[S], want: &str) -> bool {
    have.iter().any(|scope| satisfies(scope.as_ref(), want))
}

/// The scopes that both sets grant, sorted and without redundant ones. Two scopes with a
/// trailing `*` overlap only if one includes the other. With nothing in common the result is
/// an *empty* list, which must be sent as `[]`: leaving it out would grant everything.
pub fn intersect<A: AsRef<str>, B: AsRef<str>>(a: &[A], b: &[B]) -> Vec<String> {
    let mut common: Vec<&str> = Vec::new();
    for left in a {
        for right in b {
            let (left, right) = (left.as_ref(), right.as_ref());
            if satisfies(left, right) {
                common.push(right);
            } else if satisfies(right, left) {
                common.push(left);
            }
        }
    }
    common.sort_unstable();
    common.dedup();
    let covered = |scope: &&str| {
        common
            .iter()
            .any(|other| other != scope && satisfies(other, scope))
    };
    common
        .iter()
        .filter(|scope| !covered(scope))
        .map(|scope| (*scope).to_owned())
        .collect()
}

/// The `authorizedScopes` that narrow a client known to hold `held` to `wanted`. The service
/// answers 401 if the client lacks any of them, so scopes that it certainly lacks are left
/// out. If `held` is unknown or contains a role, only the service can tell, and `wanted` is
/// returned unchanged.
pub fn narrow(held: Option<&[String]>, wanted: &[String]) -> Vec<String> {
    let may_be_role = |scope: &String| {
        scope != "*"
            && (scope.starts_with("assume:")
                || scope
                    .strip_suffix('*')
                    .is_some_and(|prefix| "assume:".starts_with(prefix)))
    };
    match held {
        Some(held) if !held.iter().any(may_be_role) => intersect(held, wanted),
        _ => wanted.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trailing_star_is_a_wildcard() {
        let yes = [
            ("a", "a"),
            ("a*", "a"),
            ("a*", "ab"),
            ("a*", "ab*"),
            ("a*", "a*"),
            ("*", ""),
            ("*", "anything"),
            ("a*b", "a*b"),
            ("", ""),
        ];
        let no = [
            ("a", "ab"),
            ("a", "a*"),
            ("ab*", "a*"),
            ("ab*", "a"),
            ("a*b", "axb"),
            ("A*", "a"),
            ("", "a"),
            ("a:", "a"),
        ];
        for (have, want) in yes {
            assert!(satisfies(have, want), "{have} {want}");
        }
        for (have, want) in no {
            assert!(!satisfies(have, want), "{have} {want}");
        }
        assert!(any_satisfies(&["x", "y:*"], "y:z"));
        assert!(!any_satisfies::<&str>(&[], ""));
    }

    #[test]
    fn an_intersection_keeps_the_narrower_scopes() {
        let table: [(&[&str], &[&str], &[&str]); 12] = [
            (&["a", "b"], &["b", "c"], &["b"]),
            (&["a*"], &["ab", "ac*", "b"], &["ab", "ac*"]),
            (&["ab", "b"], &["a*"], &["ab"]),
            (&["*"], &["x", "y*"], &["x", "y*"]),
            (&["x", "y*"], &["*"], &["x", "y*"]),
            (&["a*"], &["a*"], &["a*"]),
            (&["a*", "ab"], &["a*", "ab"], &["a*"]),
            (&["a*", "abc*"], &["ab*"], &["ab*"]),
            (&["a"], &["b"], &[]),
            (&["a"], &[], &[]),
            (&[], &["*"], &[]),
            (&["ab*"], &["ac*"], &[]),
        ];
        for (a, b, expected) in table {
            assert_eq!(intersect(a, b), expected, "{a:?} {b:?}");
            assert_eq!(intersect(b, a), expected, "{b:?} {a:?}");
        }
    }

    /// Over pairs of small sets, the result grants a scope exactly when both sets do.
    #[test]
    fn an_intersection_grants_exactly_the_common_scopes() {
        let scopes = ["*", "a*", "a", "ab*", "ab", "b*", "b", ""];
        let probes = ["", "a", "ab", "abc", "ac", "b", "bc", "c"];
        let subsets: Vec<Vec<&str>> = (0..1_u32 << scopes.len())
            .map(|mask| {
                let chosen = |i: &usize| mask & (1 << i) != 0;
                (0..scopes.len())
                    .filter(chosen)
                    .map(|i| scopes[i])
                    .collect()
            })
            .collect();
        for a in &subsets {
            for b in subsets.iter().step_by(7) {
                let both = intersect(a, b);
                for probe in probes {
                    assert_eq!(
                        any_satisfies(&both, probe),
                        any_satisfies(a, probe) && any_satisfies(b, probe),
                        "{a:?} {b:?} {both:?} {probe}"
                    );
                }
            }
        }
    }

    #[test]
    fn narrowing_omits_only_scopes_that_are_certainly_not_held() {
        let list = |scopes: &[&str]| scopes.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (held, expected) in [
            (None, &["a:*", "b"][..]),
            (Some(&["a:x", "c"][..]), &["a:x"]),
            (Some(&["*"]), &["a:*", "b"]),
            (Some(&["c"]), &[]),
            (Some(&[]), &[]),
            (Some(&["assume:role"]), &["a:*", "b"]),
            (Some(&["ass*", "c"]), &["a:*", "b"]),
            (Some(&["assume:r*"]), &["a:*", "b"]),
            (Some(&["assumed*"]), &[]),
        ] {
            let held = held.map(list);
            let narrowed = narrow(held.as_deref(), &list(&["a:*", "b"]));
            assert_eq!(narrowed, expected, "{held:?}");
        }
    }

    #[test]
    fn scopes_are_validated() {
        for good in ["a", "a b", "*", "queue:*", "a*b", "~"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["a\nb", "a**", "é", "\0", "a\tb", "\u{7f}"] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }
}
