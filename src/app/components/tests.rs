//! Which components a reload keeps and which it rebuilds, for complete configurations.

use crate::app::build::{Builder, Purpose};
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

struct Fixture {
    folder: tempfile::TempDir,
    clock: SharedClock,
    metrics: Metrics,
}

impl Fixture {
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
            environment: false,
            base_dir: self.folder.path().to_owned(),
        };
        let parsed = parse(text, "test", &options);
        parsed.unwrap_or_else(|errors| panic!("{errors}")).0
    }

    fn build(&self, text: &str, previous: &Components) -> Components {
        let config = self.config(text);
        let fingerprints = Fingerprints::of(config.files.iter().map(|file| file.path.as_path()));
        let builder = Builder {
            clock: &self.clock,
            metrics: &self.metrics,
            purpose: Purpose::Serve,
        };
        builder
            .build_on(&config, &fingerprints, previous)
            .unwrap()
            .components
    }
}

/// The components that are rebuilt after `change` is applied to the configuration.
fn rebuilt_after(change: impl Fn(&str) -> String) -> Vec<String> {
    let fixture = Fixture::new();
    let before = fixture.build(TEXT, &Components::default());
    fixture.build(&change(TEXT), &before).built()
}

#[test]
fn the_same_configuration_keeps_every_part() {
    let fixture = Fixture::new();
    let first = fixture.build(TEXT, &Components::default());
    assert_eq!(
        first.built(),
        [
            "issuer idp",
            "issuer opaque",
            "source mint",
            "source fixed",
            "upstream one.example.com",
            "upstream two.example.com"
        ]
    );
    let second = fixture.build(TEXT, &first);
    assert!(second.built().is_empty());
    for (one, other) in first.sources().zip(second.sources()) {
        assert!(Arc::ptr_eq(one, other));
    }
    assert!(Arc::ptr_eq(&first.updatable[0].1, &second.updatable[0].1));
    assert!(Arc::ptr_eq(&first.rates[0].value, &second.rates[0].value));
    assert!(Arc::ptr_eq(
        &first.workload_tokens[0],
        &second.workload_tokens[0]
    ));
}

#[test]
fn a_change_rebuilds_only_what_it_changes() {
    let none: [&str; 0] = [];
    let replaced = |from: &'static str, to: &'static str| {
        rebuilt_after(move |text| {
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
    // It also bounds the token caches of the issuers.
    assert_eq!(replaced("max_entries = 100", "max_entries = 99").len(), 4);
}

#[test]
fn the_order_in_the_file_is_irrelevant() {
    let moved = rebuilt_after(|text| {
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
        // Read again periodically, without a reload.
        ("workload-token", &none),
    ] {
        let fixture = Fixture::new();
        let before = fixture.build(TEXT, &Components::default());
        std::fs::write(fixture.folder.path().join(file), "second").unwrap();
        assert_eq!(fixture.build(TEXT, &before).built(), expected, "{file}");
    }
}

const SHARED: &str = r#"
[shared]
url = "redis://127.0.0.1:1"
password = { file = "store-password" }
key = { file = "fleet-key" }
"#;

const SHARING: &str = r#"
[[source]]
name = "login"
kind = "taskcluster-login"
url = "https://login.example.com/v1/oidc-credentials/idp"

[[route]]
name = "three"
path = "/three/"
upstream = "https://two.example.com"
issuers = ["idp"]
source = "login"
"#;

#[test]
fn a_change_of_the_shared_store_rebuilds_only_what_uses_it() {
    let fixture = Fixture::new();
    let write = |name: &str, text: &str| {
        std::fs::write(fixture.folder.path().join(name), text).unwrap();
    };
    write("fleet-key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    write("store-password", "first");
    let text = format!("{TEXT}{SHARING}{SHARED}");
    let before = fixture.build(&text, &Components::default());
    assert_eq!(fixture.build(&text, &before).built(), Vec::<String>::new());
    // It is read for each connection.
    write("store-password", "second");
    assert_eq!(fixture.build(&text, &before).built(), Vec::<String>::new());
    let users = ["the shared store", "source login"];
    let changed = format!("{text}timeout = \"20ms\"\n");
    let after = fixture.build(&changed, &before);
    assert_eq!(after.built(), users);
    assert!(!Arc::ptr_eq(&after.rates[0].value, &before.rates[0].value));
    write("fleet-key", "BAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    assert_eq!(fixture.build(&text, &before).built(), users);
    let without = fixture.build(&format!("{TEXT}{SHARING}"), &before);
    assert_eq!(without.built(), ["source login"]);
    assert!(without.shared().is_none());
}
