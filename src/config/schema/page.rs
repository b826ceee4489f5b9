//! The configuration reference, in Markdown.

use std::fmt::Write as _;

use super::{Group, Kind, prose};
use crate::config::reader::{Key, Presence, Shape};

const HEAD: &str = "\
# Configuration reference

This page lists every key of the configuration file. Like the JSON Schema
([conf/schema.json](../conf/schema.json), printed by `hawkgate schema`), it is generated from the
definitions in hawkgate's source, and a test fails when it is out of date.
[conf/reference.toml](../conf/reference.toml) has an example of each key.

The tables below use these types:

| type | value |
|---|---|
| duration | a string of whole numbers with units, largest unit first: `\"250ms\"`, `\"30s\"`, `\"1h30m\"`, `\"7d\"` |
| size | a string of a whole number and a unit: `\"512B\"`, `\"64KiB\"`, `\"8MiB\"`, `\"10MB\"` |
| name | a string of 1 to 64 characters from `A-Z a-z 0-9 . _ -` |
| file | a path, relative to the configuration file's folder |
| secret | `{ file = \"…\" }` or `{ env = \"…\" }`, never the secret itself |

Unknown keys and values out of range are errors. `hawkgate check` reports all of them, each with its
line, its key and what to write instead.
";

/// The page, with a newline at its end.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for group in Group::all() {
        // Writing to a String cannot fail.
        let _ = write!(page, "\n## `{}`\n\n{}\n", group.header(), text(group.about));
        rows(&mut page, group.keys);
        for kind in group.kinds.iter().filter(|kind| !kind.keys.is_empty()) {
            of_kind(&mut page, &group, kind);
        }
    }
    page
}

fn of_kind(page: &mut String, group: &Group, kind: &Kind) {
    let _ = write!(
        page,
        "\n### `{}` of kind `{}`\n\n{}\n",
        group.header(),
        kind.name,
        text(kind.about)
    );
    let keys: Vec<&Key> = kind.keys.iter().flat_map(|keys| keys.iter()).collect();
    rows(page, keys);
}

fn rows<'k>(page: &mut String, keys: impl IntoIterator<Item = &'k Key>) {
    page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        row(page, "", key);
    }
}

/// Appends the key's row, followed by those of the keys in its table.
pub(super) fn row(page: &mut String, above: &str, key: &Key) {
    let name = format!("{above}{}", key.name);
    let default = match key.presence {
        Presence::Required => "required".to_owned(),
        Presence::Optional => String::new(),
        Presence::Default(toml) => format!("`{}`", toml.replace('\'', "\"")),
    };
    let _ = writeln!(
        page,
        "| `{name}` | {} | {default} | {} |",
        type_name(&key.shape),
        text(key.doc)
    );
    inner(page, &name, &key.shape);
}

fn inner(page: &mut String, name: &str, shape: &Shape) {
    match shape {
        Shape::Table(keys) => {
            for key in *keys {
                row(page, &format!("{name}."), key);
            }
        }
        Shape::List(item) => inner(page, &format!("{name}[]"), item),
        Shape::Either(one, other) => {
            inner(page, name, one);
            inner(page, name, other);
        }
        _ => {}
    }
}

fn type_name(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".into(),
        Shape::TokenType => "value of `typ`".into(),
        Shape::Name => "name".into(),
        Shape::Flag => "`true` or `false`".into(),
        Shape::Count => "whole number".into(),
        Shape::Fraction => "number from 0 to 1".into(),
        Shape::Duration => "duration".into(),
        Shape::Size => "size".into(),
        Shape::Url => "URL".into(),
        Shape::File => "file".into(),
        Shape::Secret => "secret".into(),
        Shape::Choice(names) => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        }
        Shape::List(item) => format!("list: {}", type_name(item)),
        Shape::Table(_) => "table".into(),
        Shape::Map(value) => format!("table of any keys: {}", type_name(value)),
        Shape::Either(one, other) => format!("{} or {}", type_name(one), type_name(other)),
    }
}

/// Documentation as a table cell: escapes `|`, which would end the cell, and `<` outside code, which
/// would begin a tag.
fn text(doc: &str) -> String {
    let mut out = String::new();
    let mut code = false;
    for c in prose(doc).chars() {
        match c {
            '`' => {
                code = !code;
                out.push(c);
            }
            '|' => out.push_str("\\|"),
            '<' if !code => out.push_str("&lt;"),
            _ => out.push(c),
        }
    }
    out
}
