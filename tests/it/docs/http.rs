//! `docs/design/http.md` names tests, and cases of tests, that exist.

use super::links::rust_files;
use super::{code_spans, read, root, rows};

/// Whether `file` has a test of this name.
fn has_test(file: &str, name: &str) -> bool {
    let Ok(source) = std::fs::read_to_string(root().join(file)) else {
        return false;
    };
    let mut attributes = false;
    source.lines().map(str::trim).any(|line| {
        let declaration = line.trim_start_matches("async ");
        let found = declaration.strip_prefix("fn ").is_some_and(|rest| {
            let declared = rest.split('(').next().unwrap_or_default();
            attributes && declared == name
        });
        // Attributes are the lines before a function.
        attributes = line.starts_with("#[test]")
            || line.starts_with("#[tokio::test")
            || attributes && line.starts_with("#[");
        found
    })
}

#[test]
fn every_rule_of_the_http_page_names_tests_that_exist() {
    let sources: Vec<String> = rust_files("tests/it")
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for row in rows(&read("docs/design/http.md")) {
        let [section, rule, behaviour, tests] = &row[..] else {
            wrong.push(format!("a row with {} cells: {row:?}", row.len()));
            continue;
        };
        if section == "RFC" || section == "---" {
            continue;
        }
        let complete = section.contains('§') && !rule.is_empty() && !behaviour.is_empty();
        if !complete || !tests.contains("::") {
            wrong.push(format!("{section}: an incomplete row"));
        }
        for span in code_spans(tests) {
            checked += 1;
            let exists = match span.split_once("::") {
                Some((file, name)) => has_test(file, name),
                // The case of a test.
                None => sources
                    .iter()
                    .any(|source| source.contains(&format!("\"{span}\""))),
            };
            if !exists {
                wrong.push(format!("{section}: {span}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked >= 100, "{checked}");
}

#[test]
fn only_functions_that_are_tests_count() {
    assert!(has_test(
        "tests/it/docs/http.rs",
        "only_functions_that_are_tests_count"
    ));
    assert!(!has_test("tests/it/docs/http.rs", "has_test"));
    assert!(!has_test("tests/it/docs/missing.rs", "has_test"));
}
