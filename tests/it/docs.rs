//! The README tells the truth about the closed sets that users build on; configurations and
//! commands in the pages are ones that hawkgate takes.

use std::process::Command;

use hawkgate::clock::UnixMillis;
use hawkgate::config::{self, ParseOptions};
use hawkgate::credential::Lookup;
use hawkgate::gateway::outcome::{Ending, UnauthorizedAction};
use hawkgate::gateway::reason::Reason;
use hawkgate::label::Label;
use hawkgate::metrics::{LabelValues, Metrics, ScrapeCallbacks};

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_reason_is_in_the_readme_with_its_status() {
    let readme = readme();
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} |", reason.label(), reason.status().as_u16());
        assert!(readme.contains(&row), "README lacks {row}");
    }
    let rows = readme.lines().filter(|l| {
        l.starts_with("| `")
            && l.split('|')
                .nth(2)
                .is_some_and(|s| s.trim().parse::<u16>().is_ok())
    });
    assert_eq!(
        rows.count(),
        Reason::ALL.len(),
        "README has a reason too many"
    );
}

/// The fenced blocks of `text` whose info string is exactly `toml`, with their lines.
pub(crate) fn toml_blocks(text: &str) -> Vec<(usize, String)> {
    blocks(text, "toml")
}

/// The fenced blocks of `text` in one language, with their lines; those in lists, too.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, bool)> = None;
    for (index, line) in text.lines().enumerate() {
        open = match (open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => Some((index + 1, String::new(), info == language)),
            (None, None) => None,
            (Some((start, block, wanted)), Some(_)) => {
                if wanted {
                    blocks.push((start, block));
                }
                None
            }
            (Some((start, block, wanted)), None) => {
                Some((start, format!("{block}{line}\n"), wanted))
            }
        };
    }
    assert!(open.is_none(), "a block is never closed");
    blocks
}

/// Every page that users read.
pub(crate) fn pages() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = |name: &str| {
        let entries = std::fs::read_dir(root.join(name)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    folder("docs")
        .chain(folder("docs/guides"))
        .chain(
            ["README.md", "conf/README.md", "helm/hawkgate/README.md"].map(|page| root.join(page)),
        )
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.display().to_string(), text)
        })
        .collect()
}

#[test]
fn every_configuration_in_the_docs_is_valid() {
    let mut seen = 0;
    for (page, text) in pages() {
        for (line, block) in toml_blocks(&text) {
            let options = ParseOptions {
                read_secrets: false,
                base_dir: "/etc/hawkgate".into(),
            };
            if let Err(errors) = config::parse(&block, "block", &options) {
                panic!("{page}, the block on line {line}:\n{errors}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
}

/// The commands of one line of shell, as words without their quotes; nothing is expanded.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    // The line's end ends a word, too.
    for c in line.chars().chain(['\n']) {
        match quote {
            Some(end) if c == end => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word = Some(word.unwrap_or_default());
            }
            None if c == '#' && word.is_none() => break,
            None if c.is_whitespace() || "|&;<>()".contains(c) => {
                commands.last_mut().unwrap().extend(word.take());
                if !c.is_whitespace() {
                    commands.push(Vec::new());
                }
            }
            Some(_) | None => word.get_or_insert_default().push(c),
        }
    }
    commands
}

#[test]
fn every_hawkgate_command_in_the_docs_is_one_that_it_takes() {
    let mut seen = 0;
    for (page, text) in pages() {
        for (line, block) in blocks(&text, "sh") {
            let joined = block.replace("\\\n", " ");
            for command in joined.lines().flat_map(commands) {
                if command.first().is_none_or(|program| program != "hawkgate") {
                    continue;
                }
                // What stands before `--help` is judged before the help is shown.
                let ended = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
                    .args(&command[1..])
                    .arg("--help")
                    .output()
                    .unwrap();
                assert!(
                    ended.status.success(),
                    "{page}, the block on line {line}: {command:?}\n{}",
                    String::from_utf8_lossy(&ended.stderr)
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 15, "{seen}");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for (page, text) in pages() {
        let folder = std::path::Path::new(&page).parent().unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{page} links to {target}");
        }
    }
}

#[test]
fn every_metric_is_in_the_readme_and_none_is_invented() {
    let metrics = Metrics::new("1", "r").unwrap();
    let names = LabelValues {
        routes: vec!["r".into()],
        issuers: vec!["i".into()],
        sources: vec!["s".into()],
    };
    let mut watched = ScrapeCallbacks::default();
    watched.cache_entries(&"s".into(), || 1);
    watched.jwks_age(&"i".into(), || Some(std::time::Duration::ZERO));
    metrics.configure(&names, watched, UnixMillis(0));
    let text = metrics.render().unwrap();
    let exported: std::collections::BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE hawkgate_"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let readme = readme();
    for name in &exported {
        assert!(
            readme.contains(&format!("| `hawkgate_{name}` |")),
            "README lacks hawkgate_{name}"
        );
    }
    for line in readme.lines() {
        if let Some(rest) = line.strip_prefix("| `hawkgate_") {
            let name = rest.split('`').next().unwrap();
            // Exported once there is something to count.
            let lazy = [
                "requests_total",
                "jwks_refreshes_total",
                "introspections_total",
                "upstream_unauthorized_total",
                "exchanges_total",
                "exchange_duration_seconds",
                "trace_spans_total",
            ];
            assert!(
                exported.contains(name) || lazy.contains(&name),
                "nothing exports hawkgate_{name}"
            );
        }
    }
}

#[test]
fn label_values_in_the_readme_are_those_of_the_code() {
    let readme = readme();
    let row = |metric: &str| {
        let start = format!("| `{metric}` |");
        readme
            .lines()
            .find(|l| l.starts_with(&start))
            .unwrap()
            .to_owned()
    };
    let said = |metric: &str, labels: Vec<&str>| {
        for label in labels {
            assert!(row(metric).contains(label), "{metric} lacks {label}");
        }
    };
    said(
        "hawkgate_requests_total",
        Ending::ALL.iter().map(|l| l.label()).collect(),
    );
    said(
        "hawkgate_credential_cache_lookups_total",
        Lookup::ALL.iter().map(|l| l.label()).collect(),
    );
    said(
        "hawkgate_upstream_unauthorized_total",
        UnauthorizedAction::ALL.iter().map(|l| l.label()).collect(),
    );
}
