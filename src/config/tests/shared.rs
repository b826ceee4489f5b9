//! `[shared]`: what valid files parse to, and files with keys and warnings.

use std::time::Duration;

use super::*;
use crate::secret::SecretRef;

const OPEN: &str = r#"
[[route]]
name = "r"
upstream = "https://u.example"
anonymous = true
"#;

fn accepted(keys: &str) -> (Config, Vec<String>) {
    let text = format!("{OPEN}[shared]\nkey = {{ file = \"k\" }}\n{keys}");
    let (config, warnings) = parse_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    (config, warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn nothing_is_shared_by_default() {
    assert_eq!(parse_text(OPEN).unwrap().0.shared, None);
}

#[test]
fn a_minimal_table_has_every_default() {
    let (config, warnings) = accepted("url = \"rediss://valkey.example.com\"");
    assert_eq!(warnings, [""; 0]);
    let shared = config.shared.unwrap();
    assert_eq!(shared.timeout, Duration::from_millis(50));
    assert_eq!(shared.key, SecretRef::File("/etc/hawkgate/k".into()));
    assert_eq!(shared.previous_key, None);
    let url = "rediss://valkey.example.com:6379/0".parse().unwrap();
    assert_eq!(shared.store.url, url);
    assert_eq!((shared.store.username, shared.store.ca), (None, None));
    assert_eq!(shared.store.password, None);
}

#[test]
fn every_key_is_read_and_the_password_does_not_cause_reloads() {
    let keys = r#"
url = "valkeys-sentinel://a:26379,b:26379/3?sentinelServiceName=mymaster"
username = "hawkgate"
password = { file = "password" }
ca = "ca.pem"
previous_key = { file = "old" }
timeout = "5ms"
"#;
    let (config, warnings) = accepted(keys);
    assert_eq!(warnings, [""; 0]);
    let files: Vec<_> = config.shared_files().collect();
    for (name, watched) in [
        ("k", true),
        ("old", true),
        ("ca.pem", true),
        ("password", false),
    ] {
        let path = Path::new("/etc/hawkgate").join(name);
        assert_eq!(files.contains(&&*path), watched, "{files:?}");
    }
    let shared = config.shared.unwrap();
    assert_eq!(shared.store.username.as_deref(), Some("hawkgate"));
    assert_eq!(
        shared.store.password,
        Some(SecretRef::File("/etc/hawkgate/password".into()))
    );
    assert_eq!(shared.store.ca, Some("/etc/hawkgate/ca.pem".into()));
    assert_eq!(
        shared.previous_key,
        Some(SecretRef::File("/etc/hawkgate/old".into()))
    );
    assert_eq!(shared.timeout, Duration::from_millis(5));
}

#[test]
fn connections_in_clear_to_other_machines_are_warned_about() {
    assert_eq!(accepted("url = \"redis://localhost\"").1, [""; 0]);
    for url in [
        "redis://valkey.example.com",
        "valkey-cluster://10.0.0.1,127.0.0.1",
    ] {
        let (_, warnings) = accepted(&format!("url = {url:?}"));
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        let expected = "t.toml:8: warning: [shared]: key \"url\": is not encrypted: values in the store are, but";
        assert!(warning.starts_with(expected), "{warning}");
    }
}

#[test]
fn keys_are_checked_when_they_are_read() {
    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let folder = tempfile::tempdir().unwrap();
    let options = ParseOptions {
        read_secrets: true,
        environment: false,
        base_dir: folder.path().to_owned(),
    };
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let errors = |previous: &str| {
        let text = format!(
            "{OPEN}[[source]]\nname = \"s\"\nkind = \"static\"\nsecret = {{ file = \"secret\" }}\n\
             [shared]\nurl = \"redis://127.0.0.1\"\nkey = {{ file = \"key\" }}\n{previous}"
        );
        match parse(&text, "t.toml", &options) {
            Ok(_) => String::new(),
            Err(errors) => errors.to_string(),
        }
    };
    let previous = "previous_key = { file = \"old\" }";
    write("secret", "s3cret");
    write("old", &KEY.replace("AAEC", "BAEC"));
    write("key", KEY);
    assert_eq!(errors(previous), "");
    write("old", KEY.trim_end_matches('='));
    assert_eq!(
        errors(previous),
        "t.toml:13: [shared]: key \"previous_key\": is the same key as key; remove it, or write the key that \
         other replicas use"
    );
    let remedy = "; generate one with `openssl rand -base64 32`";
    write("secret", KEY);
    let found = "t.toml:12: [shared]: key \"key\": is also secret of source \"s\"";
    assert_eq!(errors(""), format!("{found}{remedy}"));
    for (key, problem) in [
        ("c2hvcnQ=", "is not 32 bytes long"),
        ("not base64!", "is not base64"),
    ] {
        write("key", key);
        let found = format!("t.toml:12: [shared]: key \"key\": {problem}{remedy}");
        assert_eq!(errors(""), found);
    }
}
