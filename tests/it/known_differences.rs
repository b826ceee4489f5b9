//! Differences between what callers see and what they should see, by case and by the shape of the
//! request. Those in the list are known; a test that finds another one, or misses one, fails.

mod list;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use list::KNOWN_DIFFERENCES;

/// How long a caller waits before it reports that nothing happens.
const PATIENCE: Duration = Duration::from_secs(15);

/// Before differences in the list that depend on timing, so that they may be missed.
const SOMETIMES: &str = "sometimes ";

/// The result of `future`, or a difference if it hangs.
pub(crate) async fn patiently<F: Future>(future: F) -> Result<F::Output, String> {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.map_err(|_| "hangs".to_owned())
}

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
        let (mut known, mut always) = (BTreeSet::new(), BTreeSet::new());
        for (case, shapes, what) in KNOWN_DIFFERENCES {
            for shape in shapes.split(", ").filter(|_| self.cases.contains(*case)) {
                let sometimes = what.strip_prefix(SOMETIMES);
                let what = sometimes.unwrap_or(what).to_owned();
                let difference: Difference = ((*case).into(), shape.into(), what);
                if sometimes.is_none() {
                    always.insert(difference.clone());
                }
                known.insert(difference);
            }
        }
        let new = rows(self.found.difference(&known));
        let gone = rows(always.difference(&self.found));
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
