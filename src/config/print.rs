//! Prints a configuration with every default filled in. Secrets stay references: a valid file
//! contains nothing else.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, absolute};

use toml::{Table, Value};

use super::diagnostic::quoted;
use super::keys::{KeyTable, TABLES};
use super::reader::{Key, Presence, Shape};
use super::{ConfigErrors, ParseOptions};

/// The valid file at `path` with every default filled in and absolute paths, so that it means the
/// same in any folder. Keys without a default stay out if they were left out.
///
/// # Errors
/// All errors of the file at once.
pub fn print(path: &Path) -> Result<String, ConfigErrors> {
    let text = super::read_text(path)?;
    let options = super::options_for(path, true);
    super::parse(&text, &path.display().to_string(), &options)?;
    Ok(whole(&text.parse().unwrap_or_default(), &options))
}

/// Most attempts to find defaults that must not be written.
const ROUNDS: usize = 100;

/// `written`, which is valid, as [`print`] says.
fn whole(written: &Table, options: &ParseOptions) -> String {
    let here = ParseOptions {
        read_secrets: false,
        base_dir: options.base_dir.clone(),
    };
    let mut printer = Printer {
        options,
        left_out: HashSet::new(),
        defaults: true,
    };
    for _ in 0..ROUNDS {
        let text = printer.print(written);
        let Err(refused) = super::parse(&text, "", &here) else {
            return text;
        };
        // Some keys may be left out and yet not be written with their default: a TCP
        // listener's `mode`.
        let places = refused.errors.into_iter().map(|e| (e.place, e.key));
        let before = printer.left_out.len();
        printer.left_out.extend(places);
        if printer.left_out.len() == before {
            break;
        }
    }
    // Then print no more than the file says.
    printer.defaults = false;
    printer.print(written)
}

struct Printer<'o> {
    options: &'o ParseOptions,
    /// Table and key of defaults that must not be written.
    left_out: HashSet<(String, String)>,
    /// Whether any default is written.
    defaults: bool,
}

/// The location of a value: table and key, as in errors.
#[derive(Clone)]
struct Spot {
    table: String,
    key: String,
}

impl Spot {
    fn key(&self, name: &str) -> Self {
        let dot = if self.key.is_empty() { "" } else { "." };
        Self {
            table: self.table.clone(),
            key: format!("{}{dot}{name}", self.key),
        }
    }

    fn item(&self, index: usize) -> Self {
        Self {
            table: self.table.clone(),
            key: format!("{}[{index}]", self.key),
        }
    }
}

impl Printer<'_> {
    fn print(&self, written: &Table) -> String {
        let mut text = String::new();
        for (index, table) in TABLES.iter().enumerate() {
            // Those of a kind add keys to the one that they follow.
            if table.kind.is_some() {
                continue;
            }
            match written.get(table.name) {
                Some(Value::Array(all)) if table.repeated => {
                    for entries in all.iter().filter_map(Value::as_table) {
                        let kind = kind_of(table, entries);
                        let of_kinds = TABLES.iter().skip(index + 1);
                        let of_kinds = of_kinds.take_while(|t| t.kind.is_some());
                        let own = of_kinds.filter(|t| t.kind == kind.as_deref());
                        self.table(&mut text, table, own.flat_map(|t| t.keys), entries);
                    }
                }
                Some(Value::Table(entries)) => self.table(&mut text, table, [], entries),
                // Sections that are switched on by being present are not added.
                None if self.defaults && !table.repeated && !is_switch(table) => {
                    self.table(&mut text, table, [], &Table::new());
                }
                _ => {}
            }
        }
        text
    }

    fn table(
        &self,
        text: &mut String,
        table: &KeyTable,
        of_kind: impl IntoIterator<Item = &'static Key>,
        entries: &Table,
    ) {
        if !text.is_empty() {
            text.push('\n');
        }
        let plain = format!("[{}]", table.name);
        let name = entries.get("name").and_then(Value::as_str);
        let spot = Spot {
            table: match name.filter(|_| table.repeated) {
                Some(name) => format!("{} {}", table.name, quoted(name)),
                None => plain.clone(),
            },
            key: String::new(),
        };
        let heading = if table.repeated {
            format!("[{plain}]")
        } else {
            plain
        };
        let _ = writeln!(text, "{heading}");
        for key in table.keys.iter().chain(of_kind) {
            if let Some(mut value) = self.value(key, entries, &spot) {
                if table.name == "server" {
                    value = with_absolute_sockets(value, self.options);
                }
                let _ = writeln!(text, "{} = {value}", key.name);
            }
        }
    }

    /// What is written, or else the default.
    fn value(&self, key: &Key, entries: &Table, table: &Spot) -> Option<Value> {
        let spot = table.key(key.name);
        let default = || {
            let place = (spot.table.clone(), spot.key.clone());
            let written = self.defaults && !self.left_out.contains(&place);
            default_of(key).filter(|_| written)
        };
        let value = entries.get(key.name).cloned().or_else(default)?;
        Some(self.complete(&key.shape, value, &spot))
    }

    /// `value`, which fits `shape`, with the defaults of the tables in it and absolute paths.
    fn complete(&self, shape: &Shape, value: Value, spot: &Spot) -> Value {
        match (shape, value) {
            (Shape::File, Value::String(path)) => absolute_path(&path, self.options).into(),
            (Shape::Secret, Value::Table(mut secret)) => {
                if let Some(Value::String(path)) = secret.get("file") {
                    let path = absolute_path(path, self.options);
                    secret.insert("file".into(), path.into());
                }
                secret.into()
            }
            (Shape::List(item), Value::Array(items)) => {
                let items = items.into_iter().enumerate();
                let items = items.map(|(index, v)| self.complete(item, v, &spot.item(index)));
                items.collect::<Vec<_>>().into()
            }
            (Shape::Table(keys), Value::Table(entries)) => {
                let known = keys.iter().filter_map(|key| {
                    let value = self.value(key, &entries, spot)?;
                    Some((key.name.to_owned(), value))
                });
                known.collect::<Table>().into()
            }
            (Shape::Map(item), Value::Table(entries)) => {
                let completed = entries.into_iter().map(|(key, value)| {
                    let value = self.complete(item, value, &spot.key(&key));
                    (key, value)
                });
                completed.collect::<Table>().into()
            }
            (Shape::Either(one, other), value) => {
                let nested = value.is_table() || value.is_array();
                let fits = |shape: &Shape| {
                    matches!(shape, Shape::Table(_) | Shape::Secret | Shape::List(_)) == nested
                };
                self.complete(if fits(one) { one } else { other }, value, spot)
            }
            (_, value) => value,
        }
    }
}

/// Whether the table cannot be added by default, because it has required keys.
fn is_switch(table: &KeyTable) -> bool {
    let required = |key: &Key| matches!(key.presence, Presence::Required);
    // `[trace]` has no required keys, but its presence switches tracing on.
    table.name == "trace" || table.keys.iter().any(required)
}

/// The kind that `entries` is of, if the table knows kinds.
fn kind_of(table: &KeyTable, entries: &Table) -> Option<String> {
    let default = table.keys.iter().find(|key| key.name == "kind");
    let default = default.and_then(default_of);
    let kind = entries.get("kind").or(default.as_ref())?;
    kind.as_str().map(str::to_owned)
}

fn default_of(key: &Key) -> Option<Value> {
    let Presence::Default(toml) = key.presence else {
        return None;
    };
    let document: Table = format!("value = {toml}").parse().ok()?;
    document.get("value").cloned()
}

/// As an absolute path.
fn absolute_path(written: &str, options: &ParseOptions) -> String {
    let path = options.base_dir.join(written);
    let path = absolute(&path).unwrap_or(path);
    path.to_string_lossy().into_owned()
}

/// Listeners' addresses are texts; those of Unix sockets contain a path.
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
