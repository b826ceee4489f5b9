//! The name that was probably meant.

/// The candidate nearest to `name`: equal but for case and `-`/`_`, or with at most a third
/// of its letters wrong. The first of equally near ones.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Quadratic in its length, and nobody means a key of this length.
    if name.len() > 100 {
        return None;
    }
    let folded = fold(name);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&folded, &fold(candidate)),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= name.len().max(candidate.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const KEYS: [&str; 5] = ["upstream", "path", "taskcluster-login", "issuers", "a"];

    #[test]
    fn finds_what_was_meant() {
        for (typed, meant) in [
            ("upstrem", "upstream"),
            ("UPSTREAM", "upstream"),
            ("issuer", "issuers"),
            ("paht", "path"),
            ("Taskcluster_Login", "taskcluster-login"),
        ] {
            assert_eq!(nearest(typed, KEYS), Some(meant), "{typed}");
        }
    }

    #[test]
    fn suggests_nothing_far_fetched() {
        let long = "upstream".repeat(20);
        for typed in ["", "b", "xyz", "methods", long.as_str()] {
            assert_eq!(nearest(typed, KEYS), None, "{typed}");
        }
    }
}
