//! The layers of the crate: which module may use which, which modules may name certain crates,
//! and how long a file may be. Reads `src/` as text; see [`graph`] for what counts as a use.

mod cases;
mod graph;
mod parse;

use std::path::Path;

use graph::{Graph, Sources, top_level};
use parse::Token;

/// Rows of a module and the modules that it may use, separated by spaces.
type Layers<'a> = &'a [(&'a str, &'a str)];

/// Each top-level module with those that it may use, all of them above it in this table.
#[rustfmt::skip]
const LAYERS: Layers<'_> = &[
    ("bounded_cache", ""),
    ("bounded_file", ""),
    ("clock", ""),
    ("header_fields", ""),
    ("html", ""),
    ("label", ""),
    ("peer_text", ""),
    ("serde_url", ""),
    ("singleflight", ""),
    ("suggest", ""),
    ("sync", ""),
    ("circuit_breaker", "clock sync"),
    ("pem", "bounded_file"),
    ("secret", "bounded_file"),
    ("codec", "secret"),
    ("network", "secret"),
    ("private_file", "secret"),
    ("hawk", "bounded_cache clock codec secret"),
    ("trace", "clock secret"),
    ("token", "bounded_cache circuit_breaker clock header_fields peer_text secret singleflight"),
    ("shared_store", "clock label secret sync"),
    ("credential", "bounded_cache circuit_breaker clock codec shared_store label secret singleflight sync hawk trace token"),
    ("registration", "clock secret serde_url private_file"),
    ("signin", "clock secret serde_url private_file registration"),
("session", "bounded_cache circuit_breaker clock codec header_fields secret shared_store singleflight hawk trace token credential signin"),
    ("gateway", "bounded_cache circuit_breaker clock header_fields html label network secret suggest hawk trace token shared_store credential session"),
    ("log", "clock label gateway"),
    ("metrics", "clock label secret shared_store trace token credential session gateway"),
    ("remote", "bounded_file circuit_breaker clock network pem secret serde_url hawk trace token shared_store credential registration signin session singleflight peer_text"),
    ("proxy", "clock header_fields label network pem secret trace token session gateway peer_text"),
    ("config", "network pem secret suggest hawk trace token credential session gateway log remote proxy"),
    ("fuzzing", "peer_text token credential session gateway remote proxy config"),
    ("reload", "log proxy config"),
    ("app", "bounded_cache clock label network pem secret shared_store trace token credential signin session gateway log metrics remote proxy config reload"),
    ("explain", "clock label secret hawk token credential session gateway proxy config app"),
    ("demo", "clock html log network remote proxy config app"),
    ("cli", "clock network secret private_file token log registration signin remote proxy config reload app explain demo"),
];

/// Crates that only these modules may name.
const RESTRICTED_CRATES: &[(&str, &[&str])] = &[
    ("pingora", &["proxy"]),
    ("reqwest", &["remote"]),
    ("redis", &["remote"]),
    // The demo serves HTTP itself; its only client is hawkgate.
    ("hyper", &["remote", "demo"]),
    ("hyper_util", &["remote", "demo"]),
    ("prometheus", &["metrics"]),
];

/// The maximum length of a file, in lines, not counting unit tests at its end.
const MAX_LINES: usize = 600;

/// The rules that these sources violate.
fn violations(sources: &Sources, layers: Layers<'_>) -> Vec<String> {
    let files = graph::of_files(sources);
    let modules = graph::of_top_level(&files);
    let mut found = forbidden_uses(&modules, layers);
    found.extend(graph::cycles(&modules));
    found.extend(graph::cycles(&graph::without_ancestors(files)));
    found.extend(forbidden_crates(sources));
    found.extend(long_files(sources));
    found
}

/// Uses that `layers` does not allow.
fn forbidden_uses(modules: &Graph, layers: Layers<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for (module, edges) in modules {
        let allowed = layers.iter().find(|(name, _)| name == module);
        for (used, path) in edges {
            match allowed {
                None => found.push(format!("{module} has no row in the table of layers")),
                Some((_, allowed)) if !allowed.split(' ').any(|name| name == used) => {
                    found.push(format!("{module} must not use {used}: {path}"));
                }
                Some(_) => {}
            }
        }
    }
    found
}

/// Rows that allow a module below them, or one that is not used.
fn invalid_rows(modules: &Graph, layers: Layers<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for (at, (module, allowed)) in layers.iter().enumerate() {
        for other in allowed.split_whitespace() {
            if !layers[..at].iter().any(|(above, _)| *above == other) {
                found.push(format!("{other} is not above {module} in the table"));
            }
            if !modules
                .get(*module)
                .is_some_and(|used| used.contains_key(other))
            {
                found.push(format!("{module} may use {other} but does not: remove it"));
            }
        }
    }
    found
}

/// Restricted crates that are named by other modules, including unit tests.
fn forbidden_crates(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources {
        let tokens = parse::tokens(text);
        for (name, modules) in RESTRICTED_CRATES {
            // Unit tests may run their own upstream.
            let allowed =
                modules.contains(&top_level(file)) || (name.starts_with("hyper") && is_test(file));
            let part = format!("{name}_");
            let names = |token: &Token| match token {
                Token::Name(word) if *name == "pingora" && word.starts_with(&part) => true,
                Token::Name(word) => word == name,
                _ => false,
            };
            if !allowed && tokens.iter().any(names) {
                found.push(format!("{file} names {name}; only {modules:?} may"));
            }
        }
    }
    found
}

fn long_files(sources: &Sources) -> Vec<String> {
    let files = sources.iter().filter(|(file, _)| !is_test(file));
    let lengths = files.map(|(file, text)| {
        let end = text.find("#[cfg(test)]\nmod tests {");
        (file, text[..end.unwrap_or(text.len())].lines().count())
    });
    lengths
        .filter(|(_, length)| *length > MAX_LINES)
        .map(|(file, length)| format!("{file} has {length} lines before its tests: split it"))
        .collect()
}

fn is_test(file: &str) -> bool {
    file.trim_end_matches(".rs")
        .split('/')
        .any(|part| part == "tests")
}

/// Everything below `src/`, except the program's entry point.
fn sources() -> Sources {
    fn read(directory: &Path, root: &Path, into: &mut Sources) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, root, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                into.insert(name.to_owned(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Sources::new();
    read(&root, &root, &mut sources);
    sources.remove("main.rs");
    sources
}

#[test]
fn modules_use_only_what_their_layer_allows() {
    let sources = sources();
    assert!(sources.len() > 100, "only {} files in src/", sources.len());
    let found = violations(&sources, LAYERS);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_table_of_layers_is_ordered_and_has_no_unused_entries() {
    let modules = graph::of_top_level(&graph::of_files(&sources()));
    let found = invalid_rows(&modules, LAYERS);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}
