//! The example files in `conf/` are valid, cover every key, and state the actual defaults.

use super::*;
use toml::Value;

fn conf(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("conf")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

fn tables_of<'v>(document: &'v toml::Table, listing: &KeyTable) -> Vec<&'v toml::Table> {
    let tables: Vec<&toml::Table> = match document.get(listing.name) {
        Some(Value::Table(table)) => vec![table],
        Some(Value::Array(tables)) => tables.iter().filter_map(Value::as_table).collect(),
        _ => Vec::new(),
    };
    let of_kind = |table: &&toml::Table| {
        let kind = table.get("kind").map_or(Some("oidc"), Value::as_str);
        listing.kind.is_none() || listing.kind == kind
    };
    tables.into_iter().filter(of_kind).collect()
}

#[test]
fn every_example_is_valid_without_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let (path, text) = conf(&name);
        let options = ParseOptions {
            read_secrets: false,
            environment: false,
            base_dir: path.parent().unwrap().to_path_buf(),
        };
        match parse(&text, &name, &options) {
            Ok((_, warnings)) => assert_eq!(warnings, [], "{name}"),
            Err(errors) => panic!("{errors}"),
        }
        examples += 1;
    }
    assert!(examples >= 10);
}

#[test]
fn the_default_file_needs_no_other_files_and_listens_on_loopback() {
    let (path, _) = conf("hawkgate.toml");
    let (config, warnings) = check(&path).unwrap();
    assert_eq!(warnings, []);
    assert!(config.server.listen.iter().all(|l| l.address.is_local()));
    assert!(
        config
            .routes
            .iter()
            .all(|r| !r.anonymous && !r.issuers.is_empty())
    );
}

#[test]
fn the_reference_has_every_key() {
    let (_, text) = conf("reference.toml");
    let document: toml::Table = text.parse().unwrap();
    for listing in TABLES {
        // One example is enough for keys that several kinds share.
        let same = |other: &&KeyTable| std::ptr::eq(other.keys, listing.keys);
        let tables: Vec<_> = TABLES
            .iter()
            .filter(same)
            .flat_map(|other| tables_of(&document, other))
            .collect();
        for key in listing.keys {
            assert!(
                tables.iter().any(|table| table.contains_key(key.name)),
                "reference.toml lacks {} {:?} {}",
                listing.name,
                listing.kind,
                key.name
            );
        }
    }
    for nested in [
        "cors.allowed_origins",
        "cors.allowed_headers",
        "cors.exposed_headers   = []",
        "cors.allow_credentials = false",
        "cors.max_age           = \"10m\"",
        "request_headers.set",
        "request_headers.add",
        "request_headers.remove",
        "response_headers.set",
        "response_headers.add",
        "response_headers.remove",
        "address",
        "tls",
        "mode = \"0600\"",
        "h2c = false",
        "cert",
        "key",
        "client_ca",
        "allowed_users",
        "allowed_networks",
        "trusted_proxies",
        "proxy_protocol = false",
        "client_auth = \"required\"",
        "[limits.rate]",
        "requests",
        "per      = \"1s\"",
        "burst",
        "by       = \"client\"",
        "clients  = 100000",
    ] {
        assert!(text.contains(nested), "reference.toml lacks {nested}");
    }
}

#[test]
fn the_reference_states_every_actual_default() {
    let (_, text) = conf("reference.toml");
    let document: toml::Table = text.parse().unwrap();
    for listing in TABLES {
        for key in listing.keys {
            let Presence::Default(default) = key.presence else {
                continue;
            };
            let default: toml::Table = format!("it = {default}").parse().unwrap();
            assert!(
                tables_of(&document, listing)
                    .iter()
                    .any(|table| table.get(key.name) == default.get("it")),
                "reference.toml does not state the default of {} {}: {default}",
                listing.name,
                key.name
            );
        }
    }
    // Every default is marked as one.
    let marked = text.lines().filter(|l| l.contains("# default")).count();
    let defaults = TABLES
        .iter()
        .flat_map(|table| table.keys)
        .filter(|key| matches!(key.presence, Presence::Default(_)))
        .count();
    assert!(
        marked >= defaults,
        "{marked} of {defaults} defaults are marked"
    );
}

#[test]
fn every_table_and_key_is_documented_in_sentences() {
    for listing in TABLES {
        assert!(listing.about.trim().ends_with('.'), "{}", listing.name);
        for key in listing.keys {
            assert!(
                key.doc.trim().ends_with('.'),
                "{} {}",
                listing.name,
                key.name
            );
        }
    }
}
