//! Links between documents resolve, including those to headings; paths in this repository that
//! documents name exist; the book has every page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::{code_spans, markdown_files, read, root};

/// The lines of `text` outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// `line` without its code spans.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The targets of the links in `text`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text).map(without_code).collect::<Vec<_>>().join("\n");
    let mut links = Vec::new();
    for rest in prose.split("](").skip(1) {
        links.push(rest.split(')').next().unwrap().to_owned());
    }
    links
}

/// A heading's anchor, as GitHub and mdBook generate it.
fn anchor(heading: &str) -> String {
    // Only the text of a link counts.
    let mut text = String::new();
    let mut target = false;
    for part in heading.split_inclusive(&['[', ']', '(', ')']) {
        match part {
            _ if target => target = !part.ends_with(')'),
            _ if part == "(" && text.ends_with(']') => target = true,
            _ => text.push_str(part),
        }
    }
    text.to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            _ if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let anchor = anchor(heading.trim_start_matches('#').trim());
            let count = counts.entry(anchor.clone()).or_default();
            *count += 1;
            match *count {
                1 => anchor,
                again => format!("{anchor}-{}", again - 1),
            }
        })
        .collect()
}

/// `file` without `.` and `..`.
fn normalized(file: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for component in file.components() {
        match component {
            Component::ParentDir => assert!(path.pop(), "{} leaves the repository", file.display()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

#[test]
fn anchors_are_those_of_github() {
    let anchors = anchors("# `POST /bewit`\n## A, b\n```sh\n# no heading\n```\n## A, b\n");
    let expected = ["a-b", "a-b-1", "post-bewit"].map(str::to_owned);
    assert_eq!(anchors, expected.into());
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for page in markdown_files() {
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                normalized(&page.parent().unwrap().join(file))
            };
            let found = if fragment.is_empty() {
                root().join(&target).exists()
            } else {
                std::fs::read_to_string(root().join(&target))
                    .is_ok_and(|text| anchors(&text).contains(fragment))
            };
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked >= 100, "{checked}");
}

#[test]
fn the_book_has_every_page_once() {
    let summary = links(&read("docs/SUMMARY.md"));
    let listed: BTreeSet<_> = summary.iter().cloned().collect();
    assert_eq!(listed.len(), summary.len(), "a page is listed twice");
    let pages = markdown_files();
    let in_docs = pages
        .iter()
        .filter_map(|page| page.strip_prefix("docs").ok());
    let pages: BTreeSet<_> = in_docs
        .map(|page| page.display().to_string())
        .filter(|page| page != "SUMMARY.md")
        .collect();
    assert_eq!(listed, pages);
}

/// `src/{a,b}.rs` as `src/a.rs` and `src/b.rs`.
fn expand(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else {
        return vec![path.to_owned()];
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return vec![path.to_owned()];
    };
    inside
        .split(',')
        .flat_map(|part| expand(&format!("{before}{}{after}", part.trim())))
        .collect()
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == extension)
}

fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/{},".contains(c);
    word.chars().all(plain)
}

/// The source files that ARCHITECTURE.md names, relative to `src/`.
fn described_sources() -> BTreeSet<String> {
    let text = read("ARCHITECTURE.md");
    let spans = prose(&text).flat_map(code_spans);
    let words = spans.flat_map(|span| span.split(", "));
    let paths = words.filter(|word| is_path(word) && has_extension(word, "rs"));
    paths.flat_map(expand).collect()
}

#[test]
fn the_architecture_page_lists_every_source_file() {
    let described = described_sources();
    let sources = rust_files("src").into_iter().map(|file| {
        let file = file.strip_prefix(root().join("src")).unwrap();
        file.display().to_string()
    });
    let is_test = |file: &str| {
        let mut parts = file.trim_end_matches(".rs").split('/');
        parts.any(|part| ["tests", "testing"].contains(&part))
    };
    let missing: Vec<_> = sources
        .filter(|file| !is_test(file) && !described.contains(file))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_path_of_this_repository_that_a_document_names_exists() {
    const FOLDERS: &[&str] = &[
        "src/", "tests/", "benches/", "conf/", "helm/", "docs/", ".ci/",
    ];
    // In pages about the code, paths may omit `src/`.
    const CODE: &[&str] = &["ARCHITECTURE.md", "CONTRIBUTING.md"];
    let mut missing = Vec::new();
    for page in markdown_files() {
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        let code = CODE.iter().any(|name| page == Path::new(name));
        let spans = prose(&text).flat_map(code_spans);
        for word in spans
            .flat_map(|span| span.split(", "))
            .filter(|w| is_path(w))
        {
            let from_root = FOLDERS.iter().any(|folder| word.starts_with(folder));
            if !(from_root || code && has_extension(word, "rs")) {
                continue;
            }
            for path in expand(word) {
                let exists = |base: &str| root().join(base).join(&path).exists();
                if !(exists("") || code && exists("src")) {
                    missing.push(format!("{}: {path}", page.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Every Rust file below `folder`.
pub(super) fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The pages of `docs/` that the comments of `source` cite, each with the section if one is named:
/// `docs/design/replay.md`, "The kept body".
fn citations(source: &str) -> Vec<(String, Option<String>)> {
    let comment = |line: &str| line.trim().trim_start_matches(['/', '!']).trim().to_owned();
    let text = source.lines().map(comment).collect::<Vec<_>>().join(" ");
    let cited = text.split("`docs/").skip(1).filter_map(|rest| {
        let (page, rest) = rest.split_once('`')?;
        let section = rest
            .strip_prefix(", \"")
            .and_then(|rest| rest.split_once('"'));
        let section = section.map(|(section, _)| section.to_owned());
        has_extension(page, "md").then(|| (page.to_owned(), section))
    });
    cited.collect()
}

#[test]
fn every_section_of_the_documents_that_a_comment_cites_exists() {
    let mut missing = Vec::new();
    let mut checked = 0;
    for file in ["src", "tests", "benches"].into_iter().flat_map(rust_files) {
        for (page, section) in citations(&std::fs::read_to_string(&file).unwrap()) {
            checked += 1;
            let page_text = std::fs::read_to_string(root().join("docs").join(&page));
            let found = page_text.is_ok_and(|text| match &section {
                None => true,
                Some(section) => prose(&text)
                    .filter(|line| line.starts_with('#'))
                    .any(|line| line.trim_start_matches('#').trim().starts_with(section)),
            });
            if !found {
                missing.push(format!("{}: {page} {section:?}", file.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(checked >= 5, "{checked}");
}
