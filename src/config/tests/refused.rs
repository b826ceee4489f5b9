//! Invalid files, with the exact error messages.

use super::*;

const CASES: &str = concat!(
    include_str!("refused.txt"),
    include_str!("refused_oauth.txt"),
    include_str!("refused_session.txt"),
    include_str!("refused_cors.txt"),
    include_str!("refused_diag.txt"),
    include_str!("refused_api.txt"),
    include_str!("refused_forward_auth.txt"),
    include_str!("refused_network.txt"),
    include_str!("refused_tcproxy.txt"),
    include_str!("refused_idp.txt"),
    include_str!("refused_shared.txt")
);

/// The title, file and errors of each case. `tests/it` validates the same files with the schema.
pub(super) fn cases() -> Vec<(&'static str, String, String)> {
    let mut cases = Vec::new();
    for case in CASES.split("\n##").skip(1) {
        let (title, case) = case.split_once('\n').unwrap();
        let (file, errors) = case.split_once("=>\n").unwrap();
        let errors: Vec<_> = errors
            .lines()
            .map(|line| format!("t.toml:{line}"))
            .collect();
        cases.push((title, expand(file), errors.join("\n")));
    }
    cases
}

/// Replaces each line that begins with @ by the table that it abbreviates.
fn expand(file: &str) -> String {
    let mut expanded = String::new();
    for line in file.lines() {
        let table = match line.split_once(' ').unwrap_or((line, "")) {
            ("@ok", _) => expand("@issuer i\n@route\nissuers = [\"i\"]"),
            ("@route", _) => "[[route]]\nname = \"r\"\nupstream = \"https://u.example\"".into(),
            ("@issuer", name) => format!(
                "[[issuer]]\nname = \"{name}\"\nurl = \"https://{name}.example\"\naudiences = [\"a\"]"
            ),
            ("@delegated", _) => "[[issuer]]\nname = \"d\"\nkind = \"delegated\"".into(),
            ("@oauth", _) => "[[source]]\nname = \"o\"\nkind = \"taskcluster-oauth\"\n\
                              root_url = \"https://u.example\""
                .into(),
            ("@mint", _) => "[[source]]\nname = \"m\"\nkind = \"taskcluster-mint\"\n\
                             client_id = \"issuing\"\naccess_token = { file = \"t\" }\nscopes = [\"a\"]"
                .into(),
            ("@oauth-source", kind) => format!(
                "[[source]]\nname = \"s\"\nkind = \"{kind}\"\ntoken_url = \"https://as.example\"\n\
                 client_id = \"c\""
            ),
            ("@introspection", name) => format!(
                "[[issuer]]\nname = \"{name}\"\nkind = \"introspection\"\nurl = \"https://{name}.example\"\n\
                 introspection_url = \"https://{name}.example/i\"\naudiences = [\"a\"]\nclient_id = \"c\"\n\
                 client_secret = {{ file = \"t\" }}"
            ),
            ("@session", name) => format!(
                "[[session]]\nname = \"{name}\"\nclient_id = \"c\"\ncookie_key = {{ file = \"k\" }}"
            ),
            ("@static", _) => "[[source]]\nname = \"s\"\nkind = \"taskcluster-static\"\n\
                               client_id = \"c\"\naccess_token = { file = \"t\" }"
                .into(),
            _ => line.to_owned(),
        };
        expanded.push_str(table.trim_end());
        expanded.push('\n');
    }
    expanded
}

#[test]
fn every_error_is_reported_with_its_line_problem_and_remedy() {
    let cases = cases();
    assert!(cases.len() >= 100, "{}", cases.len());
    let mut wrong = Vec::new();
    for (title, file, expected) in cases {
        let found = match parse_text(&file) {
            Ok(_) => "accepted".to_owned(),
            Err(errors) => errors.to_string(),
        };
        if found != expected {
            wrong.push(format!(
                "{title}\n{file}\nexpected:\n{expected}\nfound:\n{found}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn columns_are_counted_in_characters_not_bytes() {
    let errors =
        parse_text("[server]\nadmin = \"127.0.0.1:1\" # ü\nlisten = [\"ü\", 5]\n").unwrap_err();
    let positions: Vec<_> = errors.errors.iter().map(|e| (e.line, e.column)).collect();
    assert_eq!(positions, [(1, 1), (3, 11), (3, 16)]);
}
