//! A configuration written out whole: what the file leaves out stands there with its default.
//! Secrets stay references, for a valid file has nothing else.

use std::fmt::Write as _;
use std::path::{Path, absolute};

use toml::{Table, Value};

use super::keys::{KeyTable, TABLES};
use super::reader::{Key, Presence, Shape};
use super::{ConfigErrors, ParseOptions};

/// The valid file at `path`, every default filled in, paths absolute: a file that means the
/// same wherever it lies. Keys that were left out and have no default stay out.
///
/// # Errors
/// With every error of the file at once.
pub fn print(path: &Path) -> Result<String, ConfigErrors> {
    let text = super::read_text(path)?;
    let options = super::options_for(path, true);
    super::parse(&text, &path.display().to_string(), &options)?;
    let written: Table = text.parse().unwrap_or_default();
    Ok(whole(&written, &options))
}

/// `written`, which is valid, as [`print`] says.
pub(super) fn whole(written: &Table, options: &ParseOptions) -> String {
    let mut text = String::new();
    for (index, table) in TABLES.iter().enumerate() {
        // Those of a kind add keys to the one that they follow.
        if table.kind.is_some() {
            continue;
        }
        let kinds: Vec<_> = TABLES
            .iter()
            .skip(index + 1)
            .take_while(|of_kind| of_kind.kind.is_some())
            .collect();
        match written.get(table.name) {
            Some(Value::Array(all)) if table.repeated => {
                for entries in all.iter().filter_map(Value::as_table) {
                    let of_kind = kind_of(table, &kinds, entries);
                    push(&mut text, table, of_kind, entries, options);
                }
            }
            Some(Value::Table(entries)) => push(&mut text, table, None, entries, options),
            // Sections that are switched on by being there stay away.
            None if !table.repeated && !is_switch(table) => {
                push(&mut text, table, None, &Table::new(), options);
            }
            _ => {}
        }
    }
    text
}

/// Whether the table cannot be there by default, having keys that must be written.
fn is_switch(table: &KeyTable) -> bool {
    let required = |key: &Key| matches!(key.presence, Presence::Required);
    table.keys.iter().any(required)
}

fn kind_of<'k>(table: &KeyTable, kinds: &[&'k KeyTable], entries: &Table) -> Option<&'k KeyTable> {
    let default = table.keys.iter().find(|key| key.name == "kind");
    let default = default.and_then(default_of);
    let kind = entries.get("kind").or(default.as_ref())?.as_str()?;
    kinds.iter().find(|k| k.kind == Some(kind)).copied()
}

fn push(
    text: &mut String,
    table: &KeyTable,
    of_kind: Option<&KeyTable>,
    entries: &Table,
    options: &ParseOptions,
) {
    if !text.is_empty() {
        text.push('\n');
    }
    let (open, close) = if table.repeated {
        ("[[", "]]")
    } else {
        ("[", "]")
    };
    let _ = writeln!(text, "{open}{}{close}", table.name);
    let own = of_kind.map_or(&[][..], |of_kind| of_kind.keys);
    for key in table.keys.iter().chain(own) {
        if let Some(mut value) = value_of(key, entries, options) {
            if table.name == "server" {
                value = with_absolute_sockets(value, options);
            }
            let _ = writeln!(text, "{} = {value}", key.name);
        }
    }
}

fn value_of(key: &Key, entries: &Table, options: &ParseOptions) -> Option<Value> {
    let value = entries.get(key.name).cloned().or_else(|| default_of(key))?;
    Some(complete(&key.shape, value, options))
}

fn default_of(key: &Key) -> Option<Value> {
    let Presence::Default(toml) = key.presence else {
        return None;
    };
    let document: Table = format!("value = {toml}").parse().ok()?;
    document.get("value").cloned()
}

/// `value`, which fits `shape`, with the defaults of the tables in it and absolute paths.
fn complete(shape: &Shape, value: Value, options: &ParseOptions) -> Value {
    match (shape, value) {
        (Shape::File, Value::String(path)) => absolute_path(&path, options).into(),
        (Shape::Secret, Value::Table(mut secret)) => {
            if let Some(Value::String(path)) = secret.get("file") {
                let path = absolute_path(path, options);
                secret.insert("file".into(), path.into());
            }
            secret.into()
        }
        (Shape::List(item), Value::Array(items)) => {
            let items = items.into_iter();
            let items: Vec<_> = items.map(|v| complete(item, v, options)).collect();
            items.into()
        }
        (Shape::Table(keys), Value::Table(entries)) => {
            let whole = keys.iter().filter_map(|key| {
                let value = value_of(key, &entries, options)?;
                Some((key.name.to_owned(), value))
            });
            whole.collect::<Table>().into()
        }
        (Shape::Either(one, other), value) => {
            let tables = value.is_table() || value.is_array();
            let fits = |shape: &Shape| {
                matches!(shape, Shape::Table(_) | Shape::Secret | Shape::List(_)) == tables
            };
            let shape = if fits(one) { one } else { other };
            complete(shape, value, options)
        }
        (_, value) => value,
    }
}

/// As the process can open it from anywhere.
fn absolute_path(written: &str, options: &ParseOptions) -> String {
    let path = options.base_dir.join(written);
    let path = absolute(&path).unwrap_or(path);
    path.to_string_lossy().into_owned()
}

/// Listeners' addresses are texts, of which those of Unix sockets hold a path.
fn with_absolute_sockets(value: Value, options: &ParseOptions) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix("unix:") {
            Some(path) => format!("unix:{}", absolute_path(path, options)).into(),
            None => text.into(),
        },
        Value::Array(items) => {
            let items = items.into_iter();
            let items: Vec<_> = items.map(|v| with_absolute_sockets(v, options)).collect();
            items.into()
        }
        Value::Table(entries) => {
            let entries = entries.into_iter();
            let entries = entries.map(|(key, v)| (key, with_absolute_sockets(v, options)));
            entries.collect::<Table>().into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    fn options() -> ParseOptions {
        ParseOptions {
            read_secrets: false,
            base_dir: "/etc/hawkgate".into(),
        }
    }

    fn meaning(text: &str, options: &ParseOptions) -> Config {
        let parsed = parse(text, "test", options);
        parsed.unwrap_or_else(|errors| panic!("{errors}\n{text}")).0
    }

    /// What is printed from `text`, which must mean the same wherever it lies.
    fn printed(text: &str) -> String {
        let written: Table = text.parse().unwrap();
        let printed = whole(&written, &options());
        let elsewhere = ParseOptions {
            base_dir: "/elsewhere".into(),
            ..options()
        };
        assert_eq!(
            meaning(&printed, &elsewhere),
            meaning(text, &options()),
            "{printed}"
        );
        let again = whole(&printed.parse().unwrap(), &elsewhere);
        assert_eq!(again, printed);
        printed
    }

    #[test]
    fn every_example_means_the_same_when_printed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/conf");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                printed(&std::fs::read_to_string(path).unwrap());
                seen += 1;
            }
        }
        assert!(seen >= 8, "{seen}");
    }

    #[test]
    fn defaults_are_filled_in_also_in_tables_within_tables() {
        let text = printed(
            r#"
[server]
listen = ["unix:own.sock", { address = "127.0.0.1:1", tls = { cert = "c.pem", key = "/k.pem" } }]

[[issuer]]
name = "i"
url = "https://i.example.com/"
audiences = ["a"]

[[source]]
name = "s"
kind = "taskcluster-static"
client_id = "unix:me"
access_token = { file = "token" }

[[route]]
name = "r"
path = "/"
upstream = "https://tc.example.com"
issuers = ["i"]
source = "s"
"#,
        );
        for line in [
            "admin = \"127.0.0.1:9090\"",
            "drain = \"30s\"",
            "kind = \"oidc\"",
            "leeway = \"30s\"",
            "client_id = \"unix:me\"",
            "access_token = { file = \"/etc/hawkgate/token\" }",
            "header_bytes = \"32KiB\"",
            "[cache]",
            "level = \"info\"",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        for part in [
            "\"unix:/etc/hawkgate/own.sock\"",
            "cert = \"/etc/hawkgate/c.pem\"",
            "key = \"/k.pem\"",
            "h2c = false",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("[login]"), "{text}");
    }
}
