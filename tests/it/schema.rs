//! `hawkgate schema`, `conf/schema.json` and `docs/configuration.md` are up to date, and the schema
//! agrees with hawkgate about which files are valid, according to the npm package `ajv`.
//!
//! `HAWKGATE_UPDATE=1 cargo test --test it schema` regenerates both files.

mod refused;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hawkgate::config;
use serde_json::{Value, json};

use crate::docs::{pages, toml_blocks};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn assert_up_to_date(file: &str, generated: &str) {
    let path = root().join(file);
    if std::env::var_os("HAWKGATE_UPDATE").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let existing = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        existing == generated,
        "{file} is stale: run HAWKGATE_UPDATE=1 cargo test --test it schema, and look at the difference"
    );
}

#[test]
fn the_schema_file_is_up_to_date() {
    assert_up_to_date("conf/schema.json", &config::schema());
}

#[test]
fn the_reference_page_is_up_to_date() {
    assert_up_to_date("docs/configuration.md", &config::reference_page());
}

#[test]
fn the_command_prints_the_schema() {
    let output = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
        .arg("schema")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), config::schema());
    assert!(output.stderr.is_empty());
}

fn as_json(toml: &str) -> Value {
    let table: toml::Table = toml.parse().unwrap_or_else(|e| panic!("{e}\n{toml}"));
    serde_json::to_value(table).unwrap()
}

/// The errors that the schema finds in each document.
fn schema_errors(documents: &BTreeMap<String, Value>) -> BTreeMap<String, Vec<String>> {
    let peers = root().join("tests/peers");
    assert!(
        peers.join("node_modules/ajv").is_dir(),
        "run `npm ci` in tests/peers first (./test does)"
    );
    let mut child = Command::new("node")
        .arg("schema-check.js")
        .current_dir(&peers)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    let question = json!({ "schema": schema, "documents": documents });
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(question.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the schema is invalid: see above");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn examples() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(root().join("conf")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "toml"))
}

#[test]
fn the_schema_accepts_every_example_and_every_configuration_in_the_docs() {
    let mut documents = BTreeMap::new();
    for path in examples() {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = Path::new(path.file_name().unwrap()).display().to_string();
        documents.insert(name, as_json(&text));
    }
    assert!(documents.len() >= 8);
    for (page, text) in pages() {
        for (line, block) in toml_blocks(&text) {
            documents.insert(format!("{page}:{line}"), as_json(&block));
        }
    }
    let verdicts = schema_errors(&documents);
    assert_eq!(verdicts.len(), documents.len());
    for (name, errors) in verdicts {
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
}

/// An invalid file, where the schema finds the error, and a word of the message.
const BAD: &[(&str, &str, &str)] = &[
    ("[servr]\n", "/", "servr"),
    (
        "[server]\nlisten = \"127.0.0.1:1\"\n",
        "/server/listen",
        "array",
    ),
    (
        "[server]\nlisten = [{ adress = \"x\" }]\n",
        "/server/listen/0",
        "adress",
    ),
    (
        "[server]\nlisten = [{ address = \"x:1\", tls = { cert = \"c\" } }]\n",
        "/server/listen/0/tls",
        "key",
    ),
    ("[server]\ndrain = 30\n", "/server/drain", "string"),
    ("[server]\ndrain = \"30\"\n", "/server/drain", "pattern"),
    (
        "[server]\ndrain = \"\"\n",
        "/server/drain",
        "minLength|fewer",
    ),
    ("[server]\ndrain = \"5s1m\"\n", "/server/drain", "pattern"),
    ("[server]\nthreads = -1\n", "/server/threads", ">= 0"),
    ("[server]\nthreads = 1.5\n", "/server/threads", "integer"),
    ("[limits]\nbody = \"1 GiB\"\n", "/limits/body", "pattern"),
    ("[log]\nformat = \"xml\"\n", "/log/format", "json"),
    ("[log]\nlevel = \" \"\n", "/log/level", "pattern"),
    ("[[log]]\n", "/log", "object"),
    ("[route]\nname = \"r\"\n", "/route", "array"),
    ("[[route]]\nname = \"r\"\n", "/route/0", "upstream"),
    (
        "[[route]]\nname = \"a b\"\nupstream = \"https://u\"\n",
        "/route/0/name",
        "pattern",
    ),
    (
        "[[route]]\nname = \"r\"\nupstream = \"ftp://u\"\n",
        "/route/0/upstream",
        "pattern",
    ),
    (
        "[[route]]\nname = \"r\"\nupstream = \"https://me:pw@u\"\n",
        "/route/0/upstream",
        "pattern",
    ),
    (
        "[[route]]\nname = \"r\"\nupstream = \"https://u\"\nanonymous = \"yes\"\n",
        "/route/0/anonymous",
        "boolean",
    ),
    (
        "[[route]]\nname = \"r\"\nupstream = \"https://u\"\nissuers = [\"a\", \"a\"]\n",
        "/route/0/issuers",
        "duplicate",
    ),
    (
        "[[route]]\nname = \"r\"\nupstream = \"https://u\"\nmethods = [\"TRACE\"]\n",
        "/route/0/methods/0",
        "GET",
    ),
    (
        "[[issuer]]\nname = \"i\"\nurl = \"https://i\"\n",
        "/issuer/0",
        "audiences",
    ),
    (
        "[[issuer]]\nname = \"i\"\nkind = \"delegated\"\nurl = \"https://i\"\n",
        "/issuer/0",
        "url",
    ),
    (
        "[[issuer]]\nname = \"i\"\nkind = \"oidcc\"\n",
        "/issuer/0/kind",
        "oidc",
    ),
    (
        "[[source]]\nname = \"s\"\nurl = \"https://s\"\n",
        "/source/0",
        "kind",
    ),
    (
        "[[source]]\nname = \"s\"\nkind = \"taskcluster-login\"\n",
        "/source/0",
        "url",
    ),
    (
        "[[source]]\nname = \"s\"\nkind = \"taskcluster-login\"\nurl = \"https://s\"\nscopes = []\n",
        "/source/0",
        "scopes",
    ),
    (
        "[[source]]\nname = \"s\"\nkind = \"taskcluster-static\"\nclient_id = \"c\"\naccess_token = \"s3cret\"\n",
        "/source/0/access_token",
        "object",
    ),
    (
        "[[source]]\nname = \"s\"\nkind = \"taskcluster-static\"\nclient_id = \"c\"\naccess_token = { file = \"f\", env = \"E\" }\n",
        "/source/0/access_token",
        "more than 1",
    ),
    (
        "[[source]]\nname = \"s\"\nkind = \"taskcluster-static\"\nclient_id = \"c\"\naccess_token = { literal = \"x\" }\n",
        "/source/0/access_token",
        "literal",
    ),
    (
        "[[rule]]\nname = \"r\"\nwhen = \"true\"\nheaders = { a = 1 }\n",
        "/rule/0/headers/a",
        "string",
    ),
    (
        "[[rule]]\nname = \"r\"\nwhen = \"true\"\neffect = \"permit\"\n",
        "/rule/0/effect",
        "allow",
    ),
];

#[test]
fn the_schema_rejects_invalid_files_at_the_right_place() {
    let documents: BTreeMap<_, _> = BAD
        .iter()
        .map(|(text, ..)| ((*text).to_owned(), as_json(text)))
        .collect();
    assert_eq!(documents.len(), BAD.len());
    let verdicts = schema_errors(&documents);
    for (text, place, what) in BAD {
        let errors = &verdicts[*text];
        let matches = |e: &String| {
            let (at, problem) = e.split_once(' ').unwrap();
            at == *place && what.split('|').any(|w| problem.contains(w))
        };
        assert!(errors.iter().any(matches), "{text}{errors:#?}");
    }
}

/// The refused files that the schema accepts, by their errors. What refuses them compares tables with each
/// other, or depends on what JSON Schema cannot express, such as ranges of durations.
const ACCEPTED: &str = "tests/it/schema/accepted.txt";

#[test]
fn the_schema_refuses_what_check_refuses_as_far_as_it_can() {
    let files = refused::files();
    let documents: BTreeMap<_, _> = files
        .iter()
        .enumerate()
        .map(|(index, (_, text))| (index.to_string(), as_json(text)))
        .collect();
    let verdicts = schema_errors(&documents);
    let mut accepted: Vec<&str> = files
        .iter()
        .enumerate()
        .filter(|(index, _)| verdicts[&index.to_string()].is_empty())
        .map(|(_, (errors, _))| errors.as_str())
        .collect();
    accepted.sort_unstable();
    println!(
        "the schema refuses {} of {} files that `hawkgate check` refuses",
        files.len() - accepted.len(),
        files.len()
    );
    // A file may have several errors; a blank line separates the files.
    assert_up_to_date(ACCEPTED, &(accepted.join("\n\n") + "\n"));
}

#[test]
fn every_example_names_the_schema() {
    for path in examples() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#:schema ./schema.json\n"), "{path:?}");
    }
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    assert_eq!(schema["$id"], "urn:hawkgate:configuration");
}
