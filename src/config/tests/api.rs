//! Sources of kind `static`, and what routes do with hosts, paths and headers.

use http::HeaderName;

use super::*;
use crate::credential::static_secret::{SecretUse, StaticSecretSettings};
use crate::gateway::host::HostPattern;
use crate::secret::SecretRef;

const ISSUER: &str = r#"
[[issuer]]
name = "idp"
url = "https://idp.example.com"
audiences = ["hawkgate"]
"#;

/// A route with these keys, and a source with those, if any.
fn file(route: &str, source: Option<&str>) -> String {
    let named = source.map_or("", |_| "source = \"s\"\n");
    let source = source.map_or_else(String::new, |keys| {
        format!(
            "[[source]]\nname = \"s\"\nkind = \"static\"\nsecret = {{ file = \"key\" }}\n{keys}\n"
        )
    });
    format!(
        "{ISSUER}{source}[[route]]\nname = \"r\"\nupstream = \"https://u.example\"\nissuers = [\"idp\"]\n\
         {named}{route}\n"
    )
}

fn accepted(text: &str) -> (Config, Vec<Warning>) {
    parse_text(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

#[test]
fn a_secret_is_a_token_a_password_or_a_username() {
    let password = SecretUse::Password {
        username: "u@example.com".into(),
    };
    for (keys, used_as, header) in [
        ("", SecretUse::Token, "authorization"),
        (
            "inject = { header = \"X-Api-Key\" }",
            SecretUse::Token,
            "x-api-key",
        ),
        (
            "username = \"u@example.com\"",
            password.clone(),
            "authorization",
        ),
        (
            "secret_as = \"password\"\nusername = \"u@example.com\"",
            password,
            "authorization",
        ),
        (
            "secret_as = \"username\"",
            SecretUse::Username,
            "authorization",
        ),
    ] {
        let (config, warnings) = accepted(&file("", Some(keys)));
        assert_eq!(warnings, [], "{keys}");
        let source = &config.sources[0];
        let secret = SecretRef::File("/etc/hawkgate/key".into());
        let expected = StaticSecretSettings { secret, used_as };
        assert_eq!(source.kind, SourceKind::Static(expected));
        assert_eq!(source.inject.header().as_str(), header);
        assert_eq!(source.kind_name, "static");
    }
}

#[test]
fn a_secret_that_cannot_be_sent_is_found_when_the_file_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let options = ParseOptions {
        read_secrets: true,
        environment: false,
        base_dir: dir.path().to_path_buf(),
    };
    for (content, keys, problem) in [
        ("good\n", "", None),
        ("se\ncret\n", "", Some("line break")),
        ("s\u{fc}cret", "", Some("ASCII")),
        ("s\u{fc}cret", "username = \"u\"", None),
        ("s:cret", "secret_as = \"username\"", Some("colon")),
    ] {
        std::fs::write(dir.path().join("key"), content).unwrap();
        let result = parse(&file("", Some(keys)), "t.toml", &options);
        let text = result.err().map(|errors| errors.to_string());
        match problem {
            None => assert_eq!(text, None, "{content:?}"),
            Some(problem) => {
                let text = text.unwrap();
                assert!(
                    text.contains(problem) && text.contains("\"secret\""),
                    "{text}"
                );
                assert!(
                    !text.contains("cret\"s") && !text.contains("s\u{fc}"),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn a_route_may_have_several_hosts_prefixes_and_header_edits() {
    let keys = r#"
host = ["a.example", "*.example.com", "10.0.0.1", "::1"]
path = "/x/y/"
strip_prefix = "/x/"
add_prefix = "/api/v3/"
passes_401 = ["/api/v3/y/z"]
request_headers = { set = { "X-A" = "1" }, add = { "X-B" = "a, b" }, remove = ["Cookie", "remote-user"] }
response_headers = { remove = ["Set-Cookie"] }
"#;
    let (config, warnings) = accepted(&file(keys, Some("")));
    assert_eq!(warnings, []);
    let route = &config.routes[0];
    let hosts: Vec<_> = route.hosts.iter().map(HostPattern::as_str).collect();
    assert_eq!(hosts, ["a.example", "*.example.com", "10.0.0.1", "::1"]);
    let sent = route.rewrite.as_ref().unwrap().apply("/x/y/z?q");
    assert_eq!(sent.as_deref(), Ok("/api/v3/y/z?q"));
    let names: Vec<_> = route
        .request_headers
        .names()
        .map(HeaderName::as_str)
        .collect();
    assert_eq!(names, ["cookie", "remote-user", "x-a", "x-b"]);
    assert_eq!(route.response_headers.remove, ["set-cookie"]);

    let one = accepted(&file("host = \"*.example.com\"", None)).0;
    assert_eq!(one.routes[0].hosts.len(), 1);
    assert_eq!(one.routes[0].rewrite, None);
}

#[test]
fn a_header_that_looks_like_a_credential_is_a_warning_that_does_not_quote_it() {
    let keys = "request_headers = { set = { \"X-Api-Key\" = \"hunter2\" } }";
    let (_, warnings) = accepted(&file(keys, None));
    let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "t.toml:10: warning: route \"r\": key \"request_headers.set.X-Api-Key\": \"X-Api-Key\" looks like a credential, \
             which must not be in the configuration itself; use a source of kind static with inject, which reads it \
             from a file"
        ]
    );
}
