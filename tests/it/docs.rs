//! The documentation matches the program: configurations and commands in the pages are valid,
//! tables of reasons and metrics are complete, and links and paths resolve.

mod http;
mod links;
mod metrics;
mod reasons;

use std::path::{Path, PathBuf};
use std::process::Command;

use hawkgate::config::{self, ParseOptions};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The cells of every table row of `text`, without the rows that underline a heading.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The content of `cell`, if it is a single code span.
fn code_span(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

/// The contents of the code spans in `cell`.
fn code_spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Every Markdown file of the repository, relative to its root.
fn markdown_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    // Built, fetched or copied; also in .gitignore.
    let ignored = ["target", "node_modules", "charts", "book"];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !ignored.contains(&&*name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "md") {
                files.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    files.sort();
    assert!(files.len() >= 30, "{files:?}");
    files
}

/// The fenced blocks of `text` whose info string is exactly `toml`, with their lines.
pub(crate) fn toml_blocks(text: &str) -> Vec<(usize, String)> {
    blocks(text, "toml")
}

/// The fenced blocks of `text` in one language, with their lines, inside lists as well.
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
    assert!(open.is_none(), "an unclosed block");
    blocks
}

/// Every Markdown file, with its text.
pub(crate) fn pages() -> Vec<(String, String)> {
    markdown_files()
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(root().join(&file)).unwrap();
            (file.display().to_string(), text)
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
                environment: false,
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

/// Splits one line of shell into commands, and these into words without their quotes. Expands nothing.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    // The end of the line ends a word.
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
fn every_hawkgate_command_in_the_docs_is_accepted() {
    let mut seen = 0;
    for (page, text) in pages() {
        for (line, block) in blocks(&text, "sh") {
            let joined = block.replace("\\\n", " ");
            for command in joined.lines().flat_map(commands) {
                if command.first().is_none_or(|program| program != "hawkgate") {
                    continue;
                }
                // clap checks the arguments that precede `--help`.
                let output = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
                    .args(&command[1..])
                    .arg("--help")
                    .output()
                    .unwrap();
                assert!(
                    output.status.success(),
                    "{page}, the block on line {line}: {command:?}\n{}",
                    String::from_utf8_lossy(&output.stderr)
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 15, "{seen}");
}
