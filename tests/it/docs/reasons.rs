//! `docs/errors.md` lists exactly the reasons that exist.

use std::collections::BTreeMap;

use hawkgate::gateway::reason::Reason;
use hawkgate::label::Label;

use super::{code_span, read, rows};

#[test]
fn every_reason_is_in_the_errors_page_with_its_status() {
    let mut documented = BTreeMap::new();
    for row in rows(&read("docs/errors.md")) {
        let [name, status, meaning] = &row[..] else {
            continue;
        };
        let Some(reason) = code_span(name).filter(|name| *name != "X-Hawkgate-Error") else {
            continue;
        };
        assert!(!meaning.is_empty(), "{reason} has no meaning");
        let status: u16 = status.parse().unwrap();
        let twice = documented.insert(reason.to_owned(), status);
        assert_eq!(twice, None, "{reason} is listed twice");
    }
    let actual: BTreeMap<_, _> = Reason::ALL
        .iter()
        .map(|reason| (reason.label().to_owned(), reason.status().as_u16()))
        .collect();
    assert_eq!(documented, actual);
}
