//! Hostile input: no file makes the parser panic, use unbounded memory or disclose a secret.

use super::*;
use std::fmt::Write as _;
use toml::de::{DeTable, DeValue};

const REFERENCE: &str = include_str!("../../../conf/reference.toml");

/// A placeholder for a secret; no output may contain it.
const CANARY: &str = "hunter2";

fn options(base_dir: &Path, read_secrets: bool) -> ParseOptions {
    ParseOptions {
        read_secrets,
        environment: false,
        base_dir: base_dir.to_path_buf(),
    }
}

fn unknown_keys(number: usize) -> String {
    let keys: Vec<_> = (0..number).map(|n| format!("k{n} = 1")).collect();
    keys.join("\n")
}

/// All output of parsing `text`, through `Display` and `Debug`.
fn all_output(text: &str) -> String {
    let mut output = String::new();
    for read_secrets in [false, true] {
        match parse(
            text,
            "t.toml",
            &options(Path::new("/nowhere"), read_secrets),
        ) {
            Ok((config, warnings)) => write!(output, "{config:?} {warnings:?}").unwrap(),
            Err(errors) => write!(output, "{errors} {errors:?}").unwrap(),
        }
    }
    output
}

/// A pseudorandom generator with a fixed seed (Knuth's MMIX linear congruential generator), so that
/// failures are reproducible.
struct Sampler(u64);

impl Sampler {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Truncates after each line, and at one pseudorandom position within it.
#[test]
fn truncated_files_never_panic() {
    let mut sampler = Sampler(1);
    let (mut start, mut accepted, mut refused) = (0, 0, 0);
    for line in REFERENCE.split_inclusive('\n') {
        let within = (start..start + line.len()).filter(|end| REFERENCE.is_char_boundary(*end));
        let within: Vec<_> = within.collect();
        for end in [within[sampler.below(within.len())], start + line.len()] {
            match parse_text(&REFERENCE[..end]) {
                Ok(_) => accepted += 1,
                Err(errors) => {
                    assert!(!errors.errors.is_empty(), "truncated at byte {end}");
                    refused += 1;
                }
            }
        }
        start += line.len();
    }
    assert_eq!(start, REFERENCE.len());
    // The file is valid if truncated after a complete route, which most positions are not.
    assert!(accepted > 0 && accepted < refused, "{accepted}, {refused}");
}

/// Whether `line` sets a key or opens a table, so that repeating it is an error.
fn defines(line: &str) -> bool {
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_key || (line.starts_with('[') && !line.starts_with("[["))
}

#[test]
fn duplicated_definitions_are_reported_near_their_line() {
    let original = format!("{:?}", parse_text(REFERENCE).unwrap());
    let lines: Vec<_> = REFERENCE.lines().collect();
    let mut doubled_definitions = 0;
    for index in 0..lines.len() {
        let line = lines[index];
        let mut changed = lines.clone();
        changed.remove(index);
        let without = parse_text(&changed.join("\n"));
        changed.insert(index, line);
        changed.insert(index, line);
        let doubled = parse_text(&changed.join("\n"));
        if line.is_empty() || line.starts_with('#') {
            for harmless in [without, doubled] {
                let parsed = harmless.unwrap_or_else(|e| panic!("line {}: {e}", index + 1));
                assert_eq!(format!("{parsed:?}"), original, "line {}", index + 1);
            }
        } else if defines(line) {
            let errors = doubled.expect_err(line);
            let near = |line: usize| (index + 1..=index + 2).contains(&line);
            assert!(
                errors.errors.iter().any(|e| near(e.line)),
                "line {}: {errors}",
                index + 1
            );
            doubled_definitions += 1;
        }
    }
    assert!(doubled_definitions > 80, "{doubled_definitions}");
}

/// Collects the byte ranges of all values in `table`, including nested ones.
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

/// Replaces each value in turn by three of the junk values. That spreads every junk value over the
/// file without trying all pairs.
#[test]
fn junk_values_never_panic_and_errors_stay_short() {
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
    let junk: Vec<_> = junk.iter().copied().chain([long.as_str()]).collect();
    let (mut accepted, mut refused) = (0, 0);
    for (index, span) in spans.into_iter().enumerate() {
        for junk in (0..3).map(|n| junk[(3 * index + n) % junk.len()]) {
            let text = format!(
                "{}{junk}{}",
                &REFERENCE[..span.start],
                &REFERENCE[span.end..]
            );
            match parse_text(&text) {
                Ok(_) => accepted += 1,
                Err(errors) => {
                    assert!(!errors.errors.is_empty(), "{text}");
                    assert!(
                        errors.errors.iter().all(|e| e.to_string().len() < 1000),
                        "{errors}"
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(
        accepted > 0 && accepted < refused,
        "{accepted} and {refused}"
    );
}

#[test]
fn deeply_nested_and_very_large_files_are_refused() {
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
fn the_numbers_of_errors_and_of_list_elements_are_limited() {
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
        "t.toml:4: issuer \"i\": key \"audiences\": has more than 1000 elements; remove some"
    );
}

#[test]
fn errors_never_disclose_a_secret() {
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
        // Syntax errors.
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
            // The complete file, and every truncation of it.
            for end in (0..=file.len()).filter(|end| file.is_char_boundary(*end)) {
                let output = all_output(&file[..end]);
                assert!(!output.contains(CANARY), "{shape}: {output}");
            }
        }
    }
}

#[test]
fn errors_never_disclose_a_password_in_a_url() {
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
            let output = all_output(&file);
            assert!(!output.contains(CANARY), "{url}: {output}");
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

const JWKS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

#[test]
fn referenced_files_are_validated_when_the_configuration_is_loaded() {
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

    let identity = rcgen::generate_simple_self_signed(["h.example".to_owned()]).unwrap();
    for (name, content) in [
        ("cert.pem", identity.cert.pem().as_str()),
        ("key.pem", identity.signing_key.serialize_pem().as_str()),
        ("jwks.json", JWKS),
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
    assert!(
        errors.contains("key.pem holds no PEM private key"),
        "{errors}"
    );
}

#[test]
fn the_error_for_a_missing_environment_variable_omits_its_name() {
    let text = WITH_FILES.replace("file = \"token\"", "env = \"HAWKGATE_NO_SUCH_VARIABLE\"");
    let errors = parse(&text, "t.toml", &options(Path::new("/nowhere"), true)).unwrap_err();
    let error = errors.errors.iter().find(|e| e.line == 15).unwrap();
    assert_eq!(
        error.to_string(),
        "source \"m\": key \"access_token\": names an environment variable that is not set, is empty or is not UTF-8; \
         put the secret there"
    );
}

#[test]
fn unreadable_non_utf8_and_oversized_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hawkgate.toml");
    let error = |path: &Path| load(path).unwrap_err().to_string();
    assert!(error(&path).contains("hawkgate.toml: cannot be read: "));
    assert!(error(dir.path()).contains("cannot be read: "));
    std::fs::write(&path, [b'#', 0xff]).unwrap();
    assert!(error(&path).ends_with("hawkgate.toml: is not UTF-8; save it as UTF-8"));
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
    std::fs::write(&path, vec![b'#'; limit + 1]).unwrap();
    assert!(error(&path).contains("hawkgate.toml: is larger than 1 MiB; "));
    std::fs::write(&path, vec![b'#'; limit]).unwrap();
    assert!(error(&path).contains("no [[route]]"));
}
