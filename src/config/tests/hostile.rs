//! Nothing panics, nothing is unbounded, no secret is repeated.

use super::*;
use std::fmt::Write as _;
use toml::de::{DeTable, DeValue};

const REFERENCE: &str = include_str!("../../../conf/reference.toml");

/// Stands for a secret; must never be seen again.
const CANARY: &str = "hunter2";

fn options(base_dir: &Path, read_secrets: bool) -> ParseOptions {
    ParseOptions {
        read_secrets,
        base_dir: base_dir.to_path_buf(),
    }
}

fn unknown_keys(number: usize) -> String {
    let keys: Vec<_> = (0..number).map(|n| format!("k{n} = 1")).collect();
    keys.join("\n")
}

/// Everything that parsing says about `text`, in every form.
fn everything_said(text: &str) -> String {
    let mut said = String::new();
    for read_secrets in [false, true] {
        match parse(
            text,
            "t.toml",
            &options(Path::new("/nowhere"), read_secrets),
        ) {
            Ok((config, warnings)) => write!(said, "{config:?} {warnings:?}").unwrap(),
            Err(errors) => write!(said, "{errors} {errors:?}").unwrap(),
        }
    }
    said
}

#[test]
fn every_prefix_of_the_reference_is_read_or_refused() {
    let mut accepted = 0;
    for (end, _) in REFERENCE.char_indices() {
        match parse_text(&REFERENCE[..end]) {
            Ok(_) => accepted += 1,
            Err(errors) => assert!(!errors.errors.is_empty()),
        }
    }
    // A file may end after any complete route; most prefixes cannot.
    assert!(accepted > 0 && accepted < REFERENCE.len() / 2, "{accepted}");
}

#[test]
fn every_line_may_be_missing_or_doubled() {
    let lines: Vec<_> = REFERENCE.lines().collect();
    for index in 0..lines.len() {
        let mut less = lines.clone();
        let line = less.remove(index);
        let _ = parse_text(&less.join("\n"));
        less.insert(index, line);
        less.insert(index, line);
        let _ = parse_text(&less.join("\n"));
    }
}

/// The byte ranges of all values in `table`, nested ones too.
fn values(table: &DeTable<'_>, found: &mut Vec<std::ops::Range<usize>>) {
    for value in table.values() {
        match value.get_ref() {
            DeValue::Table(nested) => values(nested, found),
            DeValue::Array(items) => {
                for item in items {
                    if let DeValue::Table(nested) = item.get_ref() {
                        values(nested, found);
                    }
                }
            }
            _ => {}
        }
        if REFERENCE[..value.span().start].ends_with("= ") || !value.get_ref().is_table() {
            found.push(value.span());
        }
    }
}

#[test]
fn every_value_may_be_anything() {
    let mut spans = Vec::new();
    values(DeTable::parse(REFERENCE).unwrap().get_ref(), &mut spans);
    assert!(spans.len() > 80, "{}", spans.len());
    let junk = [
        "0",
        "-1",
        "9223372036854775807",
        "99999999999999999999999",
        "0x7f",
        "1.5",
        "inf",
        "nan",
        "true",
        "''",
        "' '",
        "'x'",
        "'ü'",
        "\"\\u0000\"",
        "'//'",
        "'http://'",
        "'https://['",
        "'{'",
        "[]",
        "['']",
        "['x', 'x']",
        "[[1]]",
        "[{}]",
        "{}",
        "{ file = '' }",
        "{ env = '' }",
        "{ a.b.c = 1 }",
        "1979-05-27T07:32:00Z",
    ];
    let long = format!("'{}'", "x".repeat(10_000));
    for span in spans {
        for junk in junk.iter().copied().chain([long.as_str()]) {
            let text = format!(
                "{}{junk}{}",
                &REFERENCE[..span.start],
                &REFERENCE[span.end..]
            );
            if let Err(errors) = parse_text(&text) {
                assert!(
                    errors.errors.iter().all(|e| e.to_string().len() < 1000),
                    "{errors}"
                );
            }
        }
    }
}

#[test]
fn deep_and_wide_files_are_refused_or_read_without_harm() {
    let wide_list = format!("[[issuer]]\naudiences = [{}]", "'a',".repeat(100_000));
    let wide = format!("[server]\n{}", unknown_keys(20_000));
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}{}", "[".repeat(1000), "]".repeat(1000)),
        format!("a = {}1{}", "{ a = ".repeat(1000), " }".repeat(1000)),
        format!("a{} = 1", ".a".repeat(200_000)),
        format!("[a{}]", ".a".repeat(200_000)),
        wide_list,
        wide,
        "[[route]]\n".repeat(2_000),
        "\u{feff}[server]\r\n\r\nlisten = 1\r".into(),
        "\0".into(),
    ] {
        assert!(parse_text(&text).is_err());
    }
}

#[test]
fn errors_and_lists_have_their_limits() {
    let many = unknown_keys(5000);
    let errors = parse_text(&format!("[server]\n{many}")).unwrap_err();
    assert_eq!(errors.errors.len(), 1000);
    let broken = "= 1\n".repeat(5000);
    assert_eq!(parse_text(&broken).unwrap_err().errors.len(), 1000);

    let audiences = |n: usize| {
        (0..n)
            .map(|n| format!("'{n}'"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let text = |n| {
        format!(
            "[[issuer]]\nname = 'i'\nurl = 'https://i.example'\naudiences = [{}]\n\
             [[route]]\nname = 'r'\nupstream = 'https://u.example'\nissuers = ['i']",
            audiences(n)
        )
    };
    parse_text(&text(1000)).unwrap();
    assert_eq!(
        parse_text(&text(1001)).unwrap_err().to_string(),
        "t.toml:4: issuer \"i\": key \"audiences\": has more than 1000 elements; write fewer"
    );
}

#[test]
fn secrets_are_never_repeated() {
    let shapes = [
        format!("\"{CANARY}\""),
        format!("'''\n{CANARY}'''"),
        format!("[\"{CANARY}\"]"),
        format!("{{ value = \"{CANARY}\" }}"),
        format!("{{ {CANARY} = 1 }}"),
        format!("{{ {CANARY}.file = 'x' }}"),
        format!("{{ file = [\"{CANARY}\"] }}"),
        format!("{{ file = {{ {CANARY} = 1 }} }}"),
        format!("{{ env = \"{CANARY}\" }}"),
        format!("{{ env = \"{CANARY}+/\" }}"),
        format!("{{ env = [\"{CANARY}\"], file = 3 }}"),
        format!("{{ file = \"\", env = \"{CANARY}\" }}"),
        // Faults of the syntax.
        CANARY.into(),
        format!("\"{CANARY}"),
        format!("\"{CANARY}\" \"{CANARY}\""),
        format!("{{ value = {CANARY} }}"),
        format!("\"\\q{CANARY}\""),
        format!("\"{CANARY}\"\naccess_token = \"{CANARY}\""),
    ];
    for shape in shapes {
        for key in ["access_token", "acess_token", "certificate"] {
            let file = format!(
                "[[source]]\nname = \"s\"\nkind = \"taskcluster-static\"\nclient_id = \"c\"\n{key} = {shape}\n"
            );
            // In full, and cut off anywhere.
            for end in (0..=file.len()).filter(|end| file.is_char_boundary(*end)) {
                let said = everything_said(&file[..end]);
                assert!(!said.contains(CANARY), "{shape}: {said}");
            }
        }
    }
}

#[test]
fn passwords_in_urls_are_never_repeated() {
    for url in [
        "https://u:hunter2@h/",
        "https://hunter2@h",
        "u:hunter2@h",
        "http://u:hunter2@",
        "//u:hunter2@h",
    ] {
        for key in ["upstream", "url", "root_url", "jwks_url"] {
            let file = format!(
                "[[source]]\nname = \"s\"\nkind = \"taskcluster-login\"\n{key} = \"{url}\"\n\
                 [[issuer]]\nname = \"i\"\naudiences = [\"a\"]\n{key} = \"{url}\"\n\
                 [[route]]\nname = \"r\"\n{key} = \"{url}\"\n"
            );
            let said = everything_said(&file);
            assert!(!said.contains(CANARY), "{url}: {said}");
        }
    }
}

const WITH_FILES: &str = r#"
[server]
listen = [{ address = "127.0.0.1:0", tls = { cert = "cert.pem", key = "key.pem" } }]
[[issuer]]
name = "i"
url = "https://i.example"
audiences = ["a"]
jwks_file = "jwks.json"
[[source]]
name = "m"
kind = "taskcluster-mint"
client_id = "c"
client_name = "x/{sub}"
scopes = ["a"]
access_token = { file = "token" }
[[route]]
name = "r"
upstream = "https://u.example"
issuers = ["i"]
source = "m"
workload_token = { file = "later" }
"#;

#[test]
fn files_are_looked_at_when_the_configuration_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hawkgate.toml");
    std::fs::write(&path, WITH_FILES).unwrap();
    let lines: Vec<_> = check(&path)
        .unwrap_err()
        .errors
        .iter()
        .map(|e| e.line)
        .collect();
    assert_eq!(lines, [3, 3, 8, 15]);

    for (name, content) in [
        ("cert.pem", "-----BEGIN CERTIFICATE-----"),
        ("key.pem", "-----BEGIN PRIVATE KEY-----"),
        ("jwks.json", "{\"keys\":[]}"),
        ("token", CANARY),
    ] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let (config, warnings) = check(&path).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].diagnostic.key, "workload_token.file");
    let SourceKind::TaskclusterMint { access_token, .. } = &config.sources[0].kind else {
        panic!()
    };
    assert_eq!(access_token.read().unwrap().expose(), CANARY);
    assert!(!format!("{config:?}").contains(CANARY));
    load(&path).unwrap();

    std::fs::write(dir.path().join("token"), "\n").unwrap();
    std::fs::write(dir.path().join("key.pem"), "-----BEGIN CERTIFICATE-----").unwrap();
    let errors = check(&path).unwrap_err().to_string();
    assert!(
        errors.contains("token is empty; put the secret there"),
        "{errors}"
    );
    assert!(errors.contains("key.pem is no PEM private key"), "{errors}");
}

#[test]
fn a_missing_variable_is_an_error_without_its_name() {
    let text = WITH_FILES.replace("file = \"token\"", "env = \"HAWKGATE_NO_SUCH_VARIABLE\"");
    let errors = parse(&text, "t.toml", &options(Path::new("/nowhere"), true)).unwrap_err();
    let error = errors.errors.iter().find(|e| e.line == 15).unwrap();
    assert_eq!(
        error.to_string(),
        "source \"m\": key \"access_token\": names a variable that is not set, is empty or is not UTF-8; \
         put the secret there"
    );
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hawkgate.toml");
    let said = |path: &Path| load(path).unwrap_err().to_string();
    assert!(said(&path).contains("hawkgate.toml: cannot be read: "));
    assert!(said(dir.path()).contains("cannot be read: "));
    std::fs::write(&path, [b'#', 0xff]).unwrap();
    assert!(said(&path).ends_with("hawkgate.toml: is not UTF-8"));
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
    std::fs::write(&path, vec![b'#'; limit + 1]).unwrap();
    assert!(said(&path).ends_with("hawkgate.toml: is larger than 1 MiB"));
    std::fs::write(&path, vec![b'#'; limit]).unwrap();
    assert!(said(&path).contains("no [[route]]"));
}
