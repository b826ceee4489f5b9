//! The reference page, in Markdown.

use std::fmt::Write as _;

use super::{Group, Kind, prose};
use crate::config::reader::{Key, Presence, Shape};

const HEAD: &str = "\
# Every key of the configuration

Generated from the program's own tables, from which `hawkgate schema` makes the JSON Schema too
([conf/schema.json](../conf/schema.json)); a test fails when either is stale. Each key with an
example: [conf/reference.toml](../conf/reference.toml).

| written as | is |
|---|---|
| duration | a string of whole numbers with units, the largest first: `\"250ms\"`, `\"30s\"`, `\"1h30m\"`, `\"7d\"` |
| size | a string of a whole number with its unit: `\"512B\"`, `\"64KiB\"`, `\"8MiB\"`, `\"10MB\"` |
| name | 1 to 64 of `A-Z a-z 0-9 . _ -` |
| file | a path, relative to the configuration file's own folder |
| secret | `{ file = \"…\" }` or `{ env = \"…\" }`, never the secret itself |

An unknown key is an error, and so is a value out of its bounds: `hawkgate check` names line, key and remedy of each.
";

/// The page, with a newline at its end.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for group in Group::all() {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## `{}`\n\n{}\n",
            group.written(),
            text(group.about)
        );
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
        group.written(),
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

/// The key's row, and below it those of the tables in it.
pub(super) fn row(page: &mut String, above: &str, key: &Key) {
    let name = format!("{above}{}", key.name);
    let default = match key.presence {
        Presence::Required => "required".to_owned(),
        Presence::Optional => String::new(),
        Presence::Default(written) => format!("`{}`", written.replace('\'', "\"")),
    };
    let _ = writeln!(
        page,
        "| `{name}` | {} | {default} | {} |",
        kind_of_value(&key.shape),
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

fn kind_of_value(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".into(),
        Shape::Name => "name".into(),
        Shape::Flag => "`true` or `false`".into(),
        Shape::Count => "whole number".into(),
        Shape::Share => "number from 0 to 1".into(),
        Shape::Duration => "duration".into(),
        Shape::Size => "size".into(),
        Shape::Url => "URL".into(),
        Shape::File => "file".into(),
        Shape::Secret => "secret".into(),
        Shape::Choice(names) => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        }
        Shape::List(item) => format!("list: {}", kind_of_value(item)),
        Shape::Table(_) => "table".into(),
        Shape::Map(value) => format!("table of any keys: {}", kind_of_value(value)),
        Shape::Either(one, other) => format!("{} or {}", kind_of_value(one), kind_of_value(other)),
    }
}

/// Documentation as a table cell: no bar ends the cell, and no word in angle brackets outside of
/// code is taken for a tag.
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
