//! Rules for the sources, most of them for the tests.

use std::path::{Path, PathBuf};

/// A sleep in a test is either too short on a loaded machine or too long on any other: tests wait
/// for the event, or poll through `support/wait.rs`. Where time is virtual, sleeping takes none,
/// so a test with `start_paused = true` may sleep.
#[test]
fn tests_do_not_sleep() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut found) = (0, Vec::new());
    for (path, tests_only) in [(root.join("tests/it"), true), (root.join("src"), false)] {
        for file in rust_files(&path) {
            let name = file.strip_prefix(root).unwrap().display().to_string();
            if name == "tests/it/support/wait.rs" || name == "tests/it/hygiene.rs" {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let tests_only = tests_only || name.ends_with("tests.rs") || name.contains("/tests/");
            files += 1;
            for line in sleeps(&text, tests_only) {
                found.push(format!("{name}:{line}"));
            }
        }
    }
    assert!(files > 300, "only {files} files were read");
    assert!(found.is_empty(), "use support/wait.rs: {found:#?}");
}

/// What comes through the crate `log` is a library's message, which is withheld
/// (`src/log/facade.rs`). hawkgate's own are events of `tracing`.
#[test]
fn own_messages_are_not_logged_as_those_of_libraries() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let macros = ["error", "warn", "info", "debug", "trace"].map(|level| format!("log::{level}!("));
    let mut found = Vec::new();
    for file in rust_files(&root.join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            if macros.iter().any(|call| line.contains(call)) {
                found.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "use tracing: {found:#?}");
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The lines of `text` on which test code sleeps in real time. Test code is all of it, or the
/// module after `#[cfg(test)]`. A timer that is only queried for its deadline does not sleep.
fn sleeps(text: &str, tests_only: bool) -> Vec<usize> {
    let (mut in_tests, mut paused, mut before) = (tests_only, false, "");
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        in_tests |= before == "#[cfg(test)]" && line.starts_with("mod ") && line.ends_with('{');
        before = line;
        if line.starts_with("#[tokio::test") || line == "#[test]" {
            paused = line.contains("start_paused = true");
        }
        let sleeps = line.contains("sleep(") && !line.contains(".deadline()");
        if in_tests && !paused && sleeps && !line.starts_with("//") {
            lines.push(number + 1);
        }
    }
    lines
}

/// The fuzz targets are built with the dependencies that the tests have compiled, as long as their
/// features are the same. Otherwise `./test` compiles everything twice.
#[test]
fn the_fuzz_targets_have_the_dev_dependencies_of_the_crate() {
    let manifest = |path: &str| -> toml::Table {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(path).unwrap().parse().unwrap()
    };
    let (crate_, fuzz) = (manifest("Cargo.toml"), manifest("fuzz/Cargo.toml"));
    let expected = crate_["dev-dependencies"].as_table().unwrap();
    for (name, dependency) in expected {
        assert_eq!(fuzz["dependencies"].get(name), Some(dependency), "{name}");
    }
    let profile = |manifest: &toml::Table| manifest["profile"]["dev"]["package"]["*"].clone();
    assert_eq!(profile(&crate_), profile(&fuzz));
}

#[test]
fn every_fuzz_target_is_built_and_has_a_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let targets = rust_files(&root.join("fuzz_targets"));
    assert!(targets.len() > 20, "{targets:?}");
    for target in targets {
        let name = target.file_stem().unwrap().to_str().unwrap();
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&path), "{name} is not in fuzz/Cargo.toml");
        let corpus = std::fs::read_dir(root.join("corpus").join(name));
        assert!(corpus.unwrap().count() > 0, "{name} has no corpus");
    }
}

#[test]
fn a_sleep_is_found_in_test_code_with_real_time_only() {
    let real =
        "#[cfg(test)]\nmod tests {\n#[tokio::test]\nasync fn t() {\n    sleep(A).await;\n}\n";
    assert_eq!(sleeps(real, false), [5]);
    let paused = real.replace("test]\nasync", "test(start_paused = true)]\nasync");
    assert!(sleeps(&paused, false).is_empty());
    let product = "async fn f() {\n    sleep(A).await;\n}\n";
    assert!(sleeps(product, false).is_empty());
    assert_eq!(sleeps(product, true), [2]);
}
