//! Differences between what callers see and what they should see, by case and by the shape of the
//! request, so that a test reports all of them at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a caller waits before it reports that nothing happens.
const PATIENCE: Duration = Duration::from_secs(15);

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
        let named = |what| (case.to_owned(), shape.to_owned(), what);
        self.found.extend(differences.into_iter().map(named));
    }

    /// Fails if there are any, with one line for each.
    pub(crate) fn assert_none(&self) {
        let found = rows(&self.found);
        assert!(found.is_empty(), "differences:\n{found}");
    }
}

/// Differences, one line for each case and kind.
fn rows(differences: &BTreeSet<Difference>) -> String {
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
