//! Differences between what callers see and what they should see, by case and by the shape of the
//! request. Those in the list are known; a test that finds another one, or misses one, fails.

mod list;

use std::collections::{BTreeMap, BTreeSet};

use list::KNOWN_DIFFERENCES;

/// A case, a shape, and what differs.
type Difference = (String, String, String);

/// The differences that a test has found.
#[derive(Default)]
pub(crate) struct Differences {
    cases: BTreeSet<String>,
    found: BTreeSet<Difference>,
}

impl Differences {
    /// Records what differs in this case, which may be nothing.
    pub(crate) fn record(
        &mut self,
        case: &str,
        shape: &str,
        differences: impl IntoIterator<Item = String>,
    ) {
        self.cases.insert(case.to_owned());
        let named = |what| (case.to_owned(), shape.to_owned(), what);
        self.found.extend(differences.into_iter().map(named));
    }

    /// Fails if the list misses a difference that was found, or has one that is gone. Only the
    /// rows of cases that were recorded count.
    pub(crate) fn assert_known(&self) {
        let mut known = BTreeSet::new();
        for (case, shapes, what) in KNOWN_DIFFERENCES {
            for shape in shapes.split(", ").filter(|_| self.cases.contains(*case)) {
                known.insert(((*case).into(), shape.into(), (*what).into()));
            }
        }
        let new = rows(self.found.difference(&known));
        let gone = rows(known.difference(&self.found));
        assert!(
            new.is_empty() && gone.is_empty(),
            "differences that are not in tests/it/known_differences/list.rs:\n{new}\
             differences in tests/it/known_differences/list.rs that are gone:\n{gone}"
        );
    }
}

/// Differences as rows of the list.
fn rows<'a>(differences: impl Iterator<Item = &'a Difference>) -> String {
    let mut rows: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (case, shape, what) in differences {
        rows.entry((case, what)).or_default().push(shape);
    }
    rows.iter()
        .map(|((case, what), shapes)| {
            format!("    ({case:?}, {:?}, {what:?}),\n", shapes.join(", "))
        })
        .collect()
}
