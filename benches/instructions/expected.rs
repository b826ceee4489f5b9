//! The counts that are checked in.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use serde::Deserialize;

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/instructions/expected.toml"
);

#[derive(Deserialize)]
struct Expected {
    /// Accepted excess over a count, as a share of it.
    tolerance: f64,
    instructions: BTreeMap<String, u64>,
}

/// Compares `counts` with those checked in, or writes them if `HAWKGATE_UPDATE` is set.
pub(crate) fn judge(counts: impl Iterator<Item = (&'static str, u64)>) -> ExitCode {
    let text = fs::read_to_string(FILE).expect("the expected counts");
    if std::env::var_os("HAWKGATE_UPDATE").is_some() {
        fs::write(FILE, updated(text, counts)).expect("the expected counts");
        return ExitCode::SUCCESS;
    }
    let expected: Expected = toml::from_str(&text).expect("the expected counts");
    let mut code = ExitCode::SUCCESS;
    for (name, count) in counts {
        let wanted = expected.instructions[name];
        let excess = count as f64 / wanted as f64 - 1.0;
        println!("{name}: {:+.1} % of {wanted}", excess * 100.0);
        if excess > expected.tolerance {
            println!("error: {name} needs more instructions than before: {REMEDY}");
            code = ExitCode::FAILURE;
        } else if excess < -expected.tolerance {
            println!("note: {name} needs fewer instructions than before: {REMEDY}");
        }
    }
    code
}

const REMEDY: &str = "HAWKGATE_UPDATE=1 cargo test --config benches/instructions/debug.toml --bench \
    instructions writes the new counts; cargo bench --bench instructions shows where they are spent";

/// Replaces the counts in `text` and keeps its comments.
fn updated(text: String, counts: impl Iterator<Item = (&'static str, u64)>) -> String {
    counts.fold(text, |text, (name, count)| {
        text.lines()
            .map(|line| match line.split_once(" = ") {
                Some((found, _)) if found == name => format!("{name} = {count}\n"),
                _ => format!("{line}\n"),
            })
            .collect()
    })
}
