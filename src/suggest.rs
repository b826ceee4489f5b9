//! Suggestions for misspelt names.

/// The candidate with the smallest edit distance to `name`, ignoring case and treating `-` as `_`;
/// the first one if several are equally close. `None` if none is near: a name of 3 to 7 characters
/// may differ in one, a longer one in a quarter of them.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // The distance takes quadratic time, and no candidate is this long.
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
        .filter(|(distance, candidate)| *distance <= tolerance(name.len().max(candidate.len())))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn tolerance(length: usize) -> usize {
    match length {
        0..=2 => 0,
        3..=7 => 1,
        _ => length / 4,
    }
}

fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const KEYS: [&str; 5] = ["upstream", "path", "taskcluster-login", "issuers", "a"];

    #[test]
    fn a_misspelt_name_gets_the_nearest_suggestion() {
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
    fn a_dissimilar_or_overlong_name_gets_no_suggestion() {
        let long = "upstream".repeat(20);
        for typed in ["", "b", "xyz", "methods", long.as_str()] {
            assert_eq!(nearest(typed, KEYS), None, "{typed}");
        }
    }
}
