//! What a reload keeps and what it makes anew, over whole configurations.

use crate::app::build::Builder;
use crate::clock::{ManualClock, SharedClock, UnixMillis};
use crate::config::{Config, ParseOptions, parse};
use crate::metrics::Metrics;

use super::*;

const TEXT: &str = r#"
[[issuer]]
name = "idp"
url = "https://idp.example.com/"
jwks_file = "keys.json"
audiences = ["a"]

[[issuer]]
name = "opaque"
kind = "delegated"

[[source]]
name = "mint"
kind = "taskcluster-mint"
client_id = "root"
access_token = { file = "root-token" }
client_name = "sso/{sub}"
scopes = ["a:*"]

[[source]]
name = "fixed"
kind = "taskcluster-static"
client_id = "me"
access_token = { file = "my-token" }
credentials_update = true

[[route]]
name = "one"
path = "/one/"
upstream = "https://one.example.com"
issuers = ["idp"]
source = "mint"

[[route]]
name = "two"
path = "/two/"
upstream = "https://two.example.com"
issuers = ["idp"]
source = "fixed"
workload_token = { file = "workload-token" }
rate = { requests = 5, per = "1s" }

[cache]
max_entries = 100
"#;

struct House {
    folder: tempfile::TempDir,
    clock: SharedClock,
    metrics: Metrics,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["keys.json", "root-token", "my-token", "workload-token"] {
            std::fs::write(folder.path().join(name), "first").unwrap();
        }
        Self {
            folder,
            clock: ManualClock::at(UnixMillis(0)),
            metrics: Metrics::new("1", "r").unwrap(),
        }
    }

    fn config(&self, text: &str) -> Config {
        let options = ParseOptions {
            read_secrets: false,
            base_dir: self.folder.path().to_owned(),
        };
        let parsed = parse(text, "test", &options);
        parsed.unwrap_or_else(|errors| panic!("{errors}")).0
    }

    fn build(&self, text: &str, previous: &Parts) -> Parts {
        let config = self.config(text);
        let stamps = Stamps::of(config.files.iter().map(|file| file.path.as_path()));
        let builder = Builder {
            clock: &self.clock,
            metrics: &self.metrics,
        };
        builder.build_on(&config, &stamps, previous).unwrap().parts
    }
}

/// What is made anew when `change` is made to the text.
fn made(change: impl Fn(&str) -> String) -> Vec<String> {
    let house = House::new();
    let before = house.build(TEXT, &Parts::default());
    house.build(&change(TEXT), &before).made()
}

#[test]
fn the_same_configuration_keeps_every_part() {
    let house = House::new();
    let first = house.build(TEXT, &Parts::default());
    assert_eq!(
        first.made(),
        [
            "issuer idp",
            "issuer opaque",
            "source mint",
            "source fixed",
            "upstream one.example.com",
            "upstream two.example.com"
        ]
    );
    let second = house.build(TEXT, &first);
    assert!(second.made().is_empty());
    for (one, other) in first.sources().zip(second.sources()) {
        assert!(Arc::ptr_eq(one, other));
    }
    assert!(Arc::ptr_eq(&first.updatable[0].1, &second.updatable[0].1));
    assert!(Arc::ptr_eq(&first.rates[0].made, &second.rates[0].made));
    assert!(Arc::ptr_eq(
        &first.workload_tokens[0],
        &second.workload_tokens[0]
    ));
}

#[test]
fn a_change_rebuilds_only_what_it_changes() {
    let none: [&str; 0] = [];
    let replaced = |from: &'static str, to: &'static str| {
        made(move |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
    };
    assert_eq!(replaced("path = \"/one/\"", "path = \"/three/\""), none);
    assert_eq!(replaced("[\"a:*\"]", "[\"b:*\"]"), ["source mint"]);
    assert_eq!(
        replaced("audiences = [\"a\"]", "audiences = [\"b\"]"),
        ["issuer idp"]
    );
    assert_eq!(
        replaced("name = \"idp\"", "name = \"idp\"\nleeway = \"1s\""),
        ["issuer idp"]
    );
    let slower = "upstream = \"https://one.example.com\"\nread_timeout = \"1m\"";
    let slower = replaced("upstream = \"https://one.example.com\"", slower);
    assert_eq!(slower, ["upstream one.example.com"]);
    let shorter = replaced("max_entries = 100", "max_entries = 100\nmax_age = \"5m\"");
    assert_eq!(shorter, ["source mint", "source fixed"]);
    // How many tokens issuers remember goes by it too.
    assert_eq!(replaced("max_entries = 100", "max_entries = 99").len(), 4);
}

#[test]
fn the_order_in_the_file_is_irrelevant() {
    let moved = made(|text| {
        let at = text.find("[[source]]\nname = \"fixed\"").unwrap();
        let end = text.find("[[route]]").unwrap();
        format!("{}{}{}", &text[at..end], &text[..at], &text[end..])
    });
    assert!(moved.is_empty(), "{moved:?}");
}

#[test]
fn a_changed_file_rebuilds_only_the_parts_that_use_it() {
    let none: [&str; 0] = [];
    for (file, expected) in [
        ("keys.json", &["issuer idp"][..]),
        ("root-token", &["source mint"]),
        ("my-token", &["source fixed"]),
        // Read again all the time.
        ("workload-token", &none),
    ] {
        let house = House::new();
        let before = house.build(TEXT, &Parts::default());
        std::fs::write(house.folder.path().join(file), "second").unwrap();
        assert_eq!(house.build(TEXT, &before).made(), expected, "{file}");
    }
}
