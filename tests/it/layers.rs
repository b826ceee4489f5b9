//! The house's layers hold: who may know whom, which crates stay behind which wall, and
//! how long a file may be. Reads `src/` as text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates that may be named only below these paths of `src/`.
const WALLS: &[(&str, &[&str])] = &[
    ("pingora", &["proxy"]),
    ("reqwest", &["remote"]),
    // The demo serves HTTP; it never is a client but of hawkgate itself.
    ("hyper", &["remote", "demo"]),
    ("hyper_util", &["remote", "demo"]),
    ("prometheus", &["metrics"]),
];

/// Plain data that the configuration fills in directly, and the pure rules for names,
/// templates, scopes and lifetimes that it checks: leaves, wherever they stand.
const LEAVES: &[&str] = &[
    "gateway::route::Compat",
    "gateway::route::UpstreamTimeouts",
    "gateway::rule::Effect",
    "gateway::rule::Expression",
    "gateway::rule::header_name",
    "gateway::rate::Rate",
    "gateway::rate::RateBy",
    "gateway::bewit::PATH",
    "gateway::login::ANY_ORIGIN",
    "gateway::login::LABEL",
    "gateway::login::PREFIXES",
    "credential::CacheLimits",
    "credential::Inject",
    "credential::taskcluster_mint::NameTemplate",
    "credential::taskcluster_mint::TemplateError",
    "hawk::certificate::MAX_LIFETIME",
    "hawk::certificate::is_client_id",
    "hawk::scope::is_valid",
    "token::BearerToken",
    "token::SigningKey",
    "token::decode_shared_secret",
];

/// What anybody may name.
const EVERYBODYS: &[&str] = &["clock", "secret", "header_fields", "singleflight"];

/// Which parts of the crate each top-level module may name, by path, beside
/// [`EVERYBODYS`]. A part named with `::` opens just that part.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("secret", &[]),
    ("header_fields", &[]),
    ("singleflight", &[]),
    ("hawk", &[]),
    // Plain data: what a file means.
    ("config", LEAVES),
    ("trace", &["config"]),
    ("token", &["config"]),
    // The closed enums that metrics and logs speak are below everything that uses them.
    ("gateway::outcome", &["gateway::rejection", "trace"]),
    ("gateway::rejection", &["gateway::outcome", "token"]),
    (
        "credential",
        &["hawk", "token", "trace", "gateway::outcome"],
    ),
    (
        "gateway",
        &[
            "token",
            "trace",
            "credential",
            "hawk",
            "gateway::outcome",
            "gateway::rejection",
        ],
    ),
    ("log", &["config", "gateway"]),
    ("private_file", &[]),
    ("serde_url", &[]),
    ("registration", &["private_file", "serde_url"]),
    ("signin", &["private_file", "registration", "serde_url"]),
    (
        "remote",
        &[
            "token",
            "trace",
            "credential",
            "hawk",
            "config",
            "registration",
            "signin",
            "serde_url",
        ],
    ),
    ("metrics", &["gateway", "credential", "token", "trace"]),
    ("proxy", &["gateway", "metrics", "log", "config", "trace"]),
    ("reload", &["config", "gateway"]),
    (
        "app",
        &[
            "config",
            "credential",
            "gateway",
            "hawk",
            "log",
            "metrics",
            "proxy",
            "reload",
            "remote",
            "token",
            "trace",
        ],
    ),
    (
        "explain",
        &[
            "app",
            "config",
            "credential",
            "gateway",
            "hawk",
            "proxy::preview",
            "token",
        ],
    ),
    (
        "demo",
        &[
            "app",
            "config",
            "credential",
            "gateway",
            "hawk",
            "log",
            "remote::http_client",
            "token",
        ],
    ),
];

/// Files longer than this, before their tests, have two subjects.
const LONGEST: usize = 600;

/// One source file, named by its path below `src/`.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// `gateway/route.rs` → `gateway::route`.
    fn module(&self) -> String {
        let stem = self.path.with_extension("");
        let parts: Vec<_> = stem.iter().map(|p| p.to_string_lossy()).collect();
        parts.join("::")
    }

    fn is_test(&self) -> bool {
        self.module().split("::").any(|part| part == "tests")
    }

    /// What stands above the unit tests.
    fn own(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\nmod tests {");
        &self.text[..end.unwrap_or(self.text.len())]
    }
}

/// Blanks out comments, string and character literals, so that only code is left.
fn without_comments_and_texts(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..]
                .find(&end)
                .map_or(rest.len(), |at| start + at + end.len())
        } else if first == '"' {
            literal_end(rest, '"')
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            literal_end(rest, '\'')
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// How many `#` a raw string that begins here has.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Where a literal that begins here ends.
fn literal_end(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `code` names `word` as a whole.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// Every path after `crate::` (or `hawkgate::`), with `{…}` groups expanded.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, root) in code.match_indices("crate::") {
        if !code[..at].chars().next_back().is_some_and(is_name) {
            expand(&code[at + root.len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one use tree; returns how much of `code` it took.
fn expand(code: &str, prefix: &str, paths: &mut BTreeSet<String>) -> usize {
    let mut path = prefix.to_owned();
    let mut at = 0;
    loop {
        at += blank(&code[at..]);
        if code[at..].starts_with('{') {
            return at + group(&code[at..], &path, paths);
        }
        let name: String = code[at..].chars().take_while(|&c| is_name(c)).collect();
        at += name.len();
        if !name.is_empty() && name != "self" {
            if !path.is_empty() {
                path += "::";
            }
            path += &name;
        }
        let gap = blank(&code[at..]);
        if name.is_empty() || !code[at + gap..].starts_with("::") {
            paths.insert(path);
            return at;
        }
        at += gap + 2;
    }
}

fn group(code: &str, prefix: &str, paths: &mut BTreeSet<String>) -> usize {
    let mut at = 1;
    loop {
        at += blank(&code[at..]);
        match code[at..].chars().next() {
            None => return at,
            Some('}') => return at + 1,
            Some(',') => at += 1,
            Some(c) if is_name(c) || c == '{' => at += expand(&code[at..], prefix, paths),
            Some(c) => at += c.len_utf8(),
        }
    }
}

fn blank(code: &str) -> usize {
    code.len() - code.trim_start().len()
}

fn is_below(path: &str, part: &str) -> bool {
    path == part || path.strip_prefix(part).is_some_and(|r| r.starts_with("::"))
}

/// The rule for a module: the longest part that it belongs to.
fn rule(module: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let rules = MAY_KNOW.iter().filter(|(part, _)| is_below(module, part));
    rules.max_by_key(|(part, _)| part.len())
}

/// What is wrong with these sources.
fn faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        let module = source.module();
        let code = without_comments_and_texts(&source.text);
        for (name, homes) in WALLS {
            // A unit test may have an upstream of its own.
            let tests_own = source.is_test() && name.starts_with("hyper");
            let inside = tests_own || homes.iter().any(|home| is_below(&module, home));
            let prefixed = *name == "pingora" && names_prefix(&code, "pingora_");
            if !inside && (names(&code, name) || prefixed) {
                faults.push(format!("{module} names {name}; only {homes:?} may"));
            }
        }
        if !source.is_test() {
            let own = without_comments_and_texts(source.own());
            faults.extend(wrong_acquaintances(&module, &own));
            let length = source.own().lines().count();
            if length > LONGEST {
                faults.push(format!(
                    "{module} has {length} lines before its tests; split it"
                ));
            }
        }
    }
    faults
}

fn names_prefix(code: &str, prefix: &str) -> bool {
    code.match_indices(prefix)
        .any(|(at, _)| !code[..at].chars().next_back().is_some_and(is_name))
}

fn wrong_acquaintances(module: &str, code: &str) -> Vec<String> {
    // The crate's root only declares; the program stands above everything.
    if matches!(module, "lib" | "main") || is_below(module, "cli") {
        return Vec::new();
    }
    let Some((part, allowed)) = rule(module) else {
        return vec![format!("{module} has no place in the layers: add it here")];
    };
    let own = part.split("::").next().unwrap_or(part);
    let strangers = crate_paths(code).into_iter().filter(|path| {
        let constant = path.chars().all(|c| c == '_' || c.is_uppercase());
        let below = |module: &&str| is_below(path, module);
        let everybodys = constant || EVERYBODYS.iter().any(below);
        let known = allowed.iter().any(|part| is_below(path, part));
        // `gateway::outcome` and its like may not look back up into their own house.
        let family = is_below(path, part) || (own == *part && is_below(path, own));
        !(path.is_empty() || everybodys || known || family)
    });
    strangers
        .map(|path| format!("{module} names crate::{path}; {part} may know {allowed:?}"))
        .collect()
}

/// A cycle among the rules, if there is one, leaving out the mutual pair that is one part.
fn cycle() -> Option<String> {
    let canonical = |part: &str| match part {
        "gateway::outcome" | "gateway::rejection" => "vocabulary".to_owned(),
        leaf if LEAVES.contains(&leaf) => "leaves".to_owned(),
        other => other.to_owned(),
    };
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (part, allowed) in MAY_KNOW {
        let from = canonical(part);
        let known = allowed.iter().map(|a| canonical(a));
        let known: BTreeSet<_> = known
            .map(|a| {
                a.replace("remote::http_client", "remote")
                    .replace("proxy::preview", "proxy")
            })
            .collect();
        edges
            .entry(from.clone())
            .or_default()
            .extend(known.into_iter().filter(|to| *to != from));
    }
    let mut settled = BTreeSet::from(["leaves".to_owned()]);
    loop {
        let next: Vec<String> = edges
            .iter()
            .filter(|(part, to)| !settled.contains(*part) && to.is_subset(&settled))
            .map(|(part, _)| part.clone())
            .collect();
        if next.is_empty() {
            let stuck: Vec<_> = edges.keys().filter(|p| !settled.contains(*p)).collect();
            return (!stuck.is_empty()).then(|| format!("{stuck:?}"));
        }
        settled.extend(next);
    }
}

fn sources() -> Vec<Source> {
    fn walk(directory: &Path, root: &Path, into: &mut Vec<Source>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(Source {
                    text: std::fs::read_to_string(&path).unwrap(),
                    path: path.strip_prefix(root).unwrap().to_owned(),
                });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found
}

#[test]
fn the_layers_hold() {
    let sources = sources();
    assert!(sources.len() > 20, "src/ was not found whole");
    let faults = faults(&sources);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_rules_have_no_cycle() {
    assert_eq!(cycle(), None);
}

fn faults_of(path: &str, text: &str) -> Vec<String> {
    faults(&[Source {
        path: path.into(),
        text: text.into(),
    }])
}

#[test]
fn a_crate_outside_its_wall_is_a_fault() {
    for (path, text) in [
        ("gateway/route.rs", "use pingora::http::RequestHeader;"),
        ("gateway.rs", "fn f(_: pingora_core::Error) {}"),
        ("token/keys.rs", "use reqwest::Client;"),
        ("proxy/filter.rs", "use hyper::body::Incoming;"),
        ("proxy.rs", "static N: prometheus::Counter = x();"),
        ("gateway.rs", "#[cfg(test)]\nmod tests;\nuse reqwest as r;"),
    ] {
        assert_eq!(faults_of(path, text).len(), 1, "{path}: {text}");
    }
}

#[test]
fn a_wrong_acquaintance_is_a_fault() {
    for (path, text) in [
        ("hawk/header.rs", "use crate::credential::Lease;"),
        (
            "token/issuer.rs",
            "use crate::{clock::Clock, gateway::{self, route}};",
        ),
        ("credential/cache.rs", "fn f(_: crate::gateway::Gateway) {}"),
        ("config.rs", "use crate::gateway::route::Route;"),
        ("gateway/outcome.rs", "use crate::gateway::route::Route;"),
        ("remote/jwks.rs", "use crate::proxy::Service;"),
        ("app.rs", "use crate::demo;"),
        ("brandnew.rs", ""),
    ] {
        assert!(!faults_of(path, text).is_empty(), "{path}: {text}");
    }
}

#[test]
fn a_long_file_is_a_fault() {
    let long = "fn f() {}\n".repeat(LONGEST + 1);
    assert_eq!(faults_of("hawk.rs", &long).len(), 1);
    let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}");
    assert!(faults_of("hawk.rs", &tested).is_empty());
}

#[test]
fn what_is_allowed_is_no_fault() {
    for (path, text) in [
        ("proxy.rs", "use pingora::proxy::Session;"),
        (
            "proxy/guard.rs",
            "use crate::gateway::{Head, reason::Reason};",
        ),
        ("remote.rs", "use reqwest::Client; use hyper::Uri;"),
        ("metrics/family.rs", "use prometheus::Counter;"),
        (
            "config.rs",
            "use crate::gateway::route::UpstreamTimeouts; use crate::secret::SecretRef;",
        ),
        (
            "gateway.rs",
            "//! pingora asks it.\n/* reqwest */ const A: &str = \"prometheus\"; const B: char = '\"'; const C: &str = r#\"hyper\"#;",
        ),
        ("gateway.rs", "fn hyperbolic() {} fn pingoral() {}"),
        (
            "hawk.rs",
            "fn f() {}\n#[cfg(test)]\nmod tests {\n use crate::credential::Lease;\n}",
        ),
    ] {
        assert_eq!(
            faults_of(path, text),
            Vec::<String>::new(),
            "{path}: {text}"
        );
    }
}
