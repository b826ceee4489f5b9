//! Prints a configuration with every default filled in. Secrets are printed as the references
//! that the file contains, never as values.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, absolute};

use toml::{Table, Value};

use super::diagnostic::quoted;
use super::keys::{KeyTable, TABLES};
use super::reader::{Key, Presence, Shape};
use super::{ConfigErrors, ParseOptions};

/// Formats the valid file at `path` with every default filled in and with absolute paths, so that
/// the output can be used from any folder. Omitted keys without a default stay omitted.
///
/// # Errors
/// All errors of the file at once.
pub fn print(path: &Path) -> Result<String, ConfigErrors> {
    let text = super::read_text(path)?;
    let options = super::options_for(path, true);
    super::parse(&text, &path.display().to_string(), &options)?;
    Ok(render(&text.parse().unwrap_or_default(), &options))
}

/// Limits the attempts to find the defaults that must be left out.
const MAX_ATTEMPTS: usize = 100;

/// Formats a valid document as described at [`print`].
fn render(document: &Table, options: &ParseOptions) -> String {
    let here = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: options.base_dir.clone(),
    };
    let mut printer = Printer {
        options,
        omitted: HashSet::new(),
        defaults: true,
    };
    for _ in 0..MAX_ATTEMPTS {
        let text = printer.print(document);
        let Err(refused) = super::parse(&text, "", &here) else {
            return text;
        };
        // Some defaults are valid only if implicit, such as the `mode` of a TCP listener.
        let places = refused.errors.into_iter().map(|e| (e.place, e.key));
        let before = printer.omitted.len();
        printer.omitted.extend(places);
        if printer.omitted.len() == before {
            break;
        }
    }
    // No valid set of defaults was found: print only what the file contains.
    printer.defaults = false;
    printer.print(document)
}

struct Printer<'o> {
    options: &'o ParseOptions,
    /// Table and key of each default that must not be written.
    omitted: HashSet<(String, String)>,
    /// Whether defaults are written at all.
    defaults: bool,
}

/// The table and key of a value, as in error messages.
#[derive(Clone)]
struct KeyPath {
    table: String,
    key: String,
}

impl KeyPath {
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
    fn print(&self, document: &Table) -> String {
        let mut text = String::new();
        for (index, table) in TABLES.iter().enumerate() {
            // A kind's entry adds keys to the table that it follows.
            if table.kind.is_some() {
                continue;
            }
            match document.get(table.name) {
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
                // Tables that enable a feature by being present are not added.
                None if self.defaults && !table.repeated && !is_opt_in(table) => {
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
        let at = KeyPath {
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
            if let Some(mut value) = self.value(key, entries, &at) {
                if table.name == "server" {
                    value = with_absolute_sockets(value, self.options);
                }
                let _ = writeln!(text, "{} = {value}", key.name);
            }
        }
    }

    /// The value in the file, or else the default.
    fn value(&self, key: &Key, entries: &Table, table: &KeyPath) -> Option<Value> {
        let at = table.key(key.name);
        let default = || {
            let place = (at.table.clone(), at.key.clone());
            let allowed = self.defaults && !self.omitted.contains(&place);
            default_of(key).filter(|_| allowed)
        };
        let value = entries.get(key.name).cloned().or_else(default)?;
        Some(self.complete(&key.shape, value, &at))
    }

    /// Fills in the defaults of nested tables and makes paths absolute. `value` has `shape`.
    fn complete(&self, shape: &Shape, value: Value, at: &KeyPath) -> Value {
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
                let items = items.map(|(index, v)| self.complete(item, v, &at.item(index)));
                items.collect::<Vec<_>>().into()
            }
            (Shape::Table(keys), Value::Table(entries)) => {
                let known = keys.iter().filter_map(|key| {
                    let value = self.value(key, &entries, at)?;
                    Some((key.name.to_owned(), value))
                });
                known.collect::<Table>().into()
            }
            (Shape::Map(item), Value::Table(entries)) => {
                let completed = entries.into_iter().map(|(key, value)| {
                    let value = self.complete(item, value, &at.key(&key));
                    (key, value)
                });
                completed.collect::<Table>().into()
            }
            (Shape::Either(one, other), value) => {
                let nested = value.is_table() || value.is_array();
                let fits = |shape: &Shape| {
                    matches!(shape, Shape::Table(_) | Shape::Secret | Shape::List(_)) == nested
                };
                self.complete(if fits(one) { one } else { other }, value, at)
            }
            (_, value) => value,
        }
    }
}

/// Whether the table takes effect only if the file contains it.
fn is_opt_in(table: &KeyTable) -> bool {
    let required = |key: &Key| matches!(key.presence, Presence::Required);
    // `[trace]` has no required keys, but its presence switches tracing on.
    table.name == "trace" || table.keys.iter().any(required)
}

/// The kind of `entries`, if the table has a key `kind`.
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

/// Resolves a path from the file against its folder.
fn absolute_path(written: &str, options: &ParseOptions) -> String {
    let path = options.base_dir.join(written);
    let path = absolute(&path).unwrap_or(path);
    path.to_string_lossy().into_owned()
}

/// Makes the paths in addresses of Unix sockets absolute; the schema treats them as plain text.
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
            environment: false,
            base_dir: "/etc/hawkgate".into(),
        }
    }

    fn parsed(text: &str, options: &ParseOptions) -> Config {
        let result = parse(text, "test", options);
        result.unwrap_or_else(|errors| panic!("{errors}\n{text}")).0
    }

    /// Prints `text`, and asserts that the output parses to the same configuration in any folder.
    fn printed(text: &str) -> String {
        let document: Table = text.parse().unwrap();
        let printed = render(&document, &options());
        let elsewhere = ParseOptions {
            base_dir: "/elsewhere".into(),
            ..options()
        };
        assert_eq!(
            parsed(&printed, &elsewhere),
            parsed(text, &options()),
            "{printed}"
        );
        let again = render(&printed.parse().unwrap(), &elsewhere);
        assert_eq!(again, printed);
        printed
    }

    #[test]
    fn every_printed_example_parses_to_the_same_configuration() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/conf");
        let mut examples = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                printed(&std::fs::read_to_string(path).unwrap());
                examples += 1;
            }
        }
        assert!(examples >= 8, "{examples}");
    }

    #[test]
    fn defaults_are_filled_in_at_every_level_of_nesting() {
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
