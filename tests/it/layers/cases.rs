//! Tests of the checks themselves, with small crates that each violate one rule.

use super::graph::Sources;
use super::{Layers, MAX_LINES, violations};

const LAYERS: Layers<'_> = &[("low", ""), ("middle", "low"), ("high", "low middle")];

fn sources(files: &[(&str, &str)]) -> Sources {
    let owned = |(file, text): &(&str, &str)| ((*file).to_owned(), (*text).to_owned());
    [("lib.rs", "")].iter().chain(files).map(owned).collect()
}

#[track_caller]
fn assert_found(files: &[(&str, &str)], expected: &str) {
    let found = violations(&sources(files), LAYERS);
    assert_eq!(found, [expected], "{files:?}");
}

#[track_caller]
fn assert_clean(files: &[(&str, &str)]) {
    let found = violations(&sources(files), LAYERS);
    assert_eq!(found, Vec::<String>::new(), "{files:?}");
}

#[test]
fn a_use_that_the_table_does_not_allow_is_reported() {
    let defined = ("middle.rs", "pub struct Item;");
    for (used, path) in [
        ("use crate::middle::Item;", "crate::middle::Item"),
        ("fn f(_: &crate::middle::Item) {}", "crate::middle::Item"),
        ("use super::middle::Item as Other;", "super::middle::Item"),
        ("use crate::{middle::{self, Item}};", "crate::middle"),
        ("use crate::middle::*;", "crate::middle"),
        ("fn f() { use crate::middle; }", "crate::middle"),
    ] {
        let expected = format!("low must not use middle: {path} in low.rs");
        assert_found(&[defined, ("low.rs", used)], &expected);
    }
    assert_clean(&[
        ("low.rs", "pub struct Item;"),
        ("high.rs", "use crate::low::Item;"),
    ]);
}

#[test]
fn a_use_through_a_module_that_is_allowed_is_reported() {
    let layers: Layers<'_> = &[("low", ""), ("middle", "low"), ("high", "middle")];
    let files = sources(&[
        ("low.rs", "pub struct Item;"),
        ("middle.rs", "pub use crate::low::Item as Renamed;"),
        ("high.rs", "use crate::middle::Renamed;"),
    ]);
    let found = violations(&files, layers);
    assert_eq!(
        found,
        ["high must not use low: crate::middle::Renamed in high.rs"]
    );
}

#[test]
fn a_module_without_a_row_in_the_table_is_reported() {
    assert_found(
        &[
            ("new.rs", "use crate::low::Item;"),
            ("low.rs", "pub struct Item;"),
        ],
        "new has no row in the table of layers",
    );
}

#[test]
fn a_cycle_between_top_level_modules_is_reported_with_its_path() {
    let layers: Layers<'_> = &[("low", "middle"), ("middle", "low")];
    let files = sources(&[
        ("low.rs", "mod part; pub struct Low;"),
        ("low/part.rs", "use crate::middle::Middle;"),
        (
            "middle.rs",
            "pub struct Middle; fn f(_: crate::low::Low) {}",
        ),
    ]);
    assert_eq!(
        violations(&files, layers),
        ["cycle:\
          \n    low → middle by crate::middle::Middle in low/part.rs\
          \n    middle → low by crate::low::Low in middle.rs"]
    );
}

/// A cycle between `low/a.rs` and `low/b.rs`, however each names the other.
#[test]
fn a_cycle_between_files_is_reported_however_it_is_written() {
    let defined = "pub struct B;";
    for (parent, from_a, path) in [
        ("mod a; mod b;", "use super::b::B;", "super::b::B"),
        ("mod a; mod b;", "use crate::low::b::B;", "crate::low::b::B"),
        (
            "mod a; mod b;",
            "use super::{b::{B as Other}};",
            "super::b::B",
        ),
        (
            "mod a; mod b;",
            "use super::b; fn f(_: b::B) {}",
            "super::b",
        ),
        ("mod a; mod b;", "fn f() -> super::b::B {}", "super::b::B"),
        (
            "mod a; mod b;",
            "mod inner { use super::super::b::B; }",
            "super::super::b::B",
        ),
        ("mod a; mod b; pub use b::B;", "use super::B;", "super::B"),
        (
            "mod a; mod b; use self::b::B;",
            "use crate::low::B;",
            "crate::low::B",
        ),
        (
            "mod a; mod b; pub use b::{B as C};",
            "use super::C;",
            "super::C",
        ),
        ("mod a; mod b; pub use b::*;", "use super::B;", "super::B"),
        (
            "mod a; mod b; pub use b::B;",
            "use super::*; fn f(_: B) {}",
            "B",
        ),
        (
            "mod a; mod b; pub use b as c;",
            "use super::c::B;",
            "super::c::B",
        ),
    ] {
        let a = format!("{from_a} pub struct A;");
        let b = format!("use super::a::A; {defined}");
        let expected = format!(
            "cycle:\
             \n    low/a.rs → low/b.rs by {path}\
             \n    low/b.rs → low/a.rs by super::a::A"
        );
        assert_found(
            &[("low.rs", parent), ("low/a.rs", &a), ("low/b.rs", &b)],
            &expected,
        );
    }
}

#[test]
fn a_cycle_through_another_modules_child_is_reported() {
    assert_found(
        &[
            ("low.rs", "mod a; mod b;"),
            ("low/a.rs", "use super::b::Item; pub struct A;"),
            ("low/b.rs", "mod deep; pub use deep::Item;"),
            (
                "low/b/deep.rs",
                "pub use crate::low::a::A; pub struct Item;",
            ),
        ],
        "cycle:\
         \n    low/a.rs → low/b/deep.rs by super::b::Item\
         \n    low/b/deep.rs → low/a.rs by crate::low::a::A",
    );
}

#[test]
fn each_group_of_files_that_depend_on_each_other_is_reported_once() {
    let found = violations(
        &sources(&[
            ("low.rs", "mod a; mod b; mod c; mod x; mod y;"),
            (
                "low/a.rs",
                "use super::b::B; use super::c::C; pub struct A;",
            ),
            ("low/b.rs", "use super::a::A; pub struct B;"),
            ("low/c.rs", "use super::a::A; pub struct C;"),
            ("low/x.rs", "use super::y::Y; pub struct X;"),
            ("low/y.rs", "use super::x::X; pub struct Y;"),
        ]),
        LAYERS,
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn parents_and_children_may_use_each_other() {
    assert_clean(&[
        ("lib.rs", "pub mod low; pub const VERSION: u8 = 1;"),
        ("low.rs", "mod a; use a::A; pub struct Low;"),
        (
            "low/a.rs",
            "use super::Low; pub struct A; fn f() { crate::VERSION; }",
        ),
    ]);
}

#[test]
fn test_code_may_use_anything() {
    assert_clean(&[
        ("high.rs", "pub struct High;"),
        (
            "low.rs",
            "#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod testing;\nstruct Low;\n\
             #[cfg(test)]\n#[allow(unused)]\nuse crate::high::{High, self};\n\
             #[cfg(test)]\nimpl Low { fn f(_: crate::high::High) -> [u8; 2] { [0; 2] } }\n\
             #[cfg(test)]\nmod more { use crate::high::High; fn f() { if true {} } }\n",
        ),
        ("low/tests.rs", "use crate::high::High; mod deep;"),
        ("low/tests/deep.rs", "use crate::high::High;"),
        ("low/testing.rs", "use crate::high::High;"),
    ]);
    // Code after such an item is checked again.
    assert_found(
        &[
            ("high.rs", "pub struct High;"),
            (
                "low.rs",
                "#[cfg(test)]\nmod tests {}\nuse crate::high::High;",
            ),
        ],
        "low must not use high: crate::high::High in low.rs",
    );
}

#[test]
fn comments_literals_and_other_crates_are_not_uses() {
    assert_clean(&[
        ("high.rs", "pub struct High;"),
        (
            "low.rs",
            "//! See [`crate::high::High`].\n/* use crate::high; */\n\
             const A: &str = \"crate::high::High\"; const B: char = '\"';\n\
             const C: &str = r#\"\"crate::high::High\"#; fn f<'a>(x: &'a str) -> char { '\\'' }\n\
             use other::high::High; use high::high; fn g() { ::high::g(); x.high::<u8>(); }",
        ),
    ]);
}

#[test]
fn a_restricted_crate_in_another_module_is_reported() {
    for (file, text, name) in [
        ("low.rs", "use pingora::http::RequestHeader;", "pingora"),
        ("low.rs", "fn f(_: pingora_core::Error) {}", "pingora"),
        ("low/part.rs", "use reqwest::Client;", "reqwest"),
        ("proxy/part.rs", "use hyper::body::Incoming;", "hyper"),
        (
            "proxy.rs",
            "static N: prometheus::Counter = x();",
            "prometheus",
        ),
        (
            "low.rs",
            "#[cfg(test)]\nmod tests { use reqwest as r; }",
            "reqwest",
        ),
    ] {
        let found = violations(&sources(&[(file, text)]), LAYERS);
        assert_eq!(found.len(), 1, "{file}: {text}: {found:?}");
        assert!(
            found[0].starts_with(&format!("{file} names {name}; only")),
            "{found:?}"
        );
    }
    assert_clean(&[
        (
            "proxy/part.rs",
            "use pingora::proxy::Session; use pingora_core::Error;",
        ),
        ("remote.rs", "use reqwest::Client; use hyper::Uri;"),
        ("metrics/family.rs", "use prometheus::Counter;"),
        ("proxy/tests/upstream.rs", "use hyper::Uri;"),
        (
            "low.rs",
            "//! pingora calls it.\nfn hyperbolic() {} fn pingoral() {}",
        ),
    ]);
}

#[test]
fn a_long_file_is_reported_not_counting_its_tests() {
    let long = "fn f() {}\n".repeat(MAX_LINES + 1);
    let length = MAX_LINES + 1;
    assert_found(
        &[("low.rs", &long)],
        &format!("low.rs has {length} lines before its tests: split it"),
    );
    let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}");
    assert_clean(&[("low.rs", &tested), ("low/tests.rs", &long)]);
}
