//! The configurations of the guides to identity providers, in the real proxy, with tokens that were
//! imitated from the documentation that each guide links. Also what `hawkgate explain` makes of these
//! tokens without a configuration: the section that it prints is put into the proxy as it is.

mod imitations;

use std::io::Write as _;
use std::process::{Command, Stdio};

use hawkgate::clock::SystemClock;
use hawkgate::config::{self, ParseOptions};
use serde_json::{Value, json};

use self::imitations::{Imitation, Token, all};
use crate::docs::toml_blocks;
use crate::support::client::Request;
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::program::Exited;
use crate::support::tokens::{SHARED, with};
use crate::support::upstream::{FakeUpstream, Reply};

/// The token, signed with the key of [`start`].
fn signed(token: &Token) -> String {
    let key = &SHARED[0];
    let header = with(&json!({ "alg": "RS256", "kid": key.kid }), &token.header);
    let now = SystemClock::shared().now().as_secs();
    let times = json!({ "iat": now - 60, "nbf": now - 60, "exp": now + 3600 });
    key.sign(&header, &with(&times, &token.claims))
}

/// The configuration of the page that has this issuer with this profile.
fn configuration(imitation: &Imitation) -> toml::Table {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(imitation.page);
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = if imitation.page.starts_with("docs/") {
        toml_blocks(&text)
            .into_iter()
            .map(|(_, block)| block)
            .collect()
    } else {
        vec![text]
    };
    let has_issuer = |table: &toml::Table| {
        table
            .get("issuer")
            .and_then(toml::Value::as_array)
            .is_some_and(|issuers| {
                issuers.iter().any(|issuer| {
                    issuer["name"].as_str() == Some(imitation.issuer)
                        && issuer.get("profile").and_then(toml::Value::as_str)
                            == Some(imitation.profile)
                })
            })
    };
    let tables = blocks
        .iter()
        .map(|block| block.parse::<toml::Table>().unwrap());
    tables
        .into_iter()
        .find(has_issuer)
        .unwrap_or_else(|| panic!("{}: no issuer {}", imitation.page, imitation.issuer))
}

/// Starts a gateway with the issuers and routes of `table`, which differ in where the issuers' keys and
/// the upstream are. Returns the path of a request for the first route too.
async fn start(mut table: toml::Table, upstream: &FakeUpstream) -> (TestGateway, String) {
    for section in ["server", "source", "rule", "session", "login"] {
        table.remove(section);
    }
    let sections =
        |table: &mut toml::Table, name: &str, change: &mut dyn FnMut(&mut toml::Table)| {
            for section in table[name].as_array_mut().unwrap() {
                change(section.as_table_mut().unwrap());
            }
        };
    sections(&mut table, "issuer", &mut |issuer| {
        for key in ["jwks_url", "ca", "keys_token"] {
            issuer.remove(key);
        }
        issuer.insert("jwks_file".into(), "jwks.json".into());
    });
    let mut path = None;
    sections(&mut table, "route", &mut |route| {
        for key in ["source", "host", "session"] {
            route.remove(key);
        }
        route.insert("upstream".into(), upstream.url().into());
        let prefix = route
            .get("path")
            .and_then(toml::Value::as_str)
            .unwrap_or("/");
        path.get_or_insert_with(|| format!("{prefix}x"));
    });
    let files = ConfigDir::new();
    files.write(
        "jwks.json",
        json!({ "keys": [SHARED[0].jwk()] }).to_string(),
    );
    let text = format!("{SERVER_CONFIG}{table}");
    let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
    (gateway, path.unwrap())
}

/// Sends every token of `imitation`.
async fn send_all(gateway: &TestGateway, path: &str, imitation: &Imitation) {
    let (page, issuer) = (imitation.page, imitation.issuer);
    for token in &imitation.accepted {
        let response = gateway
            .send(&Request::get(path).bearer(&signed(token)))
            .await;
        let text = response.text();
        assert_eq!(
            response.status, 200,
            "{page}, {issuer}: {}: {text}",
            token.what
        );
    }
    for token in &imitation.refused {
        let response = gateway
            .send(&Request::get(path).bearer(&signed(token)))
            .await;
        assert_eq!(response.status, 401, "{page}, {issuer}: {}", token.what);
        let reason = response.error_reason().map(str::to_owned);
        assert_eq!(
            reason.as_deref(),
            Some(token.reason),
            "{page}, {issuer}: {}",
            token.what
        );
    }
}

#[tokio::test]
async fn the_configuration_of_each_guide_takes_access_tokens_and_refuses_others() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    for imitation in all() {
        let (gateway, path) = start(configuration(&imitation), &upstream).await;
        send_all(&gateway, &path, &imitation).await;
    }
}

/// What `hawkgate explain` says about a token where there is no configuration.
async fn explained(token: &str, format: &str) -> Exited {
    let (token, format) = (token.to_owned(), format.to_owned());
    let run = tokio::task::spawn_blocking(move || {
        let empty = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
            .args(["explain", "--token-file", "-", "--format", &format])
            .current_dir(empty.path())
            .env_remove("HAWKGATE_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(token.as_bytes())
            .unwrap();
        Exited::from(child.wait_with_output().unwrap())
    });
    run.await.unwrap()
}

async fn explained_json(token: &str) -> Value {
    let exited = explained(token, "json").await;
    assert_eq!(exited.code, 0, "{}", exited.stderr);
    serde_json::from_str(&exited.stdout).unwrap()
}

/// The section, with a route that names its issuer.
fn with_route(section: &str) -> toml::Table {
    let mut table: toml::Table = section.parse().unwrap_or_else(|e| panic!("{e}: {section}"));
    let name = table["issuer"][0]["name"].as_str().unwrap().to_owned();
    let route = format!(
        "[[route]]\nname = \"r\"\nupstream = \"http://127.0.0.1:9\"\nissuers = [\"{name}\"]\n"
    );
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: "/".into(),
    };
    config::parse(&format!("{section}{route}"), "section", &options)
        .unwrap_or_else(|errors| panic!("{errors}\n{section}"));
    table.extend(route.parse::<toml::Table>().unwrap());
    table
}

#[tokio::test]
async fn the_section_that_explain_prints_takes_the_token_and_refuses_id_tokens() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    for imitation in all() {
        for token in &imitation.accepted {
            let sent = signed(token);
            let found = explained_json(&sent).await;
            let what = format!("{}: {}\n{found:#}", imitation.provider, token.what);
            assert_eq!(found["kind"], token.kind, "{what}");
            assert_eq!(found["provider"], imitation.provider, "{what}");
            assert_eq!(found["profile"], imitation.profile, "{what}");
            let section = found["issuer_section"].as_str().unwrap();
            let (gateway, path) = start(with_route(section), &upstream).await;
            let response = gateway.send(&Request::get(&path).bearer(&sent)).await;
            assert_eq!(
                response.status,
                200,
                "{what}\n{section}\n{}",
                response.text()
            );
            for other in &imitation.refused {
                let response = gateway
                    .send(&Request::get(&path).bearer(&signed(other)))
                    .await;
                assert_eq!(response.status, 401, "{what}\n{section}\n{}", other.what);
            }
        }
        for token in &imitation.refused {
            let found = explained_json(&signed(token)).await;
            let what = format!("{}: {}\n{found:#}", imitation.provider, token.what);
            assert_eq!(found["kind"], token.kind, "{what}");
            assert_eq!(found["provider"], imitation.provider, "{what}");
            if token.kind != "workload_token" {
                assert!(!found["advice"].as_array().unwrap().is_empty(), "{what}");
                assert_eq!(found.get("profile"), None, "{what}");
            }
            with_route(found["issuer_section"].as_str().unwrap());
        }
    }
}

#[tokio::test]
async fn explain_without_a_configuration_prints_neither_the_token_nor_its_signature() {
    for imitation in all() {
        for token in imitation.accepted.iter().chain(&imitation.refused) {
            let sent = signed(token);
            for format in ["text", "json"] {
                let Exited { stdout, stderr, .. } = explained(&sent, format).await;
                assert!(stdout.contains("verified"), "{stdout}");
                for segment in sent.split('.') {
                    assert!(
                        !stdout.contains(segment) && !stderr.contains(segment),
                        "{stdout}{stderr}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn exit_codes_of_explain_without_a_configuration() {
    for (text, code, expected) in [
        ("an-opaque-token", 0, "This is an opaque token"),
        (
            "ghp_0123456789abcdefghij",
            0,
            "This is a GitHub personal access token",
        ),
        (
            "Hawk id=\"x\", ts=\"1\", mac=\"m\"",
            1,
            "This is a Hawk header",
        ),
        (
            "eyJhbGciOiJSUzI1NiJ9.eyJ",
            1,
            "What to do\n  - it has 2 of the three segments",
        ),
        ("", 1, "the file is empty"),
    ] {
        let exited = explained(text, "text").await;
        assert_eq!(
            exited.code, code,
            "{text}: {}{}",
            exited.stdout, exited.stderr
        );
        assert!(
            exited.stdout.contains(expected),
            "{text}: {}",
            exited.stdout
        );
        assert!(
            exited.stdout.contains("There is no configuration here"),
            "{}",
            exited.stdout
        );
    }
    let empty = tempfile::tempdir().unwrap();
    for (arguments, code, stderr) in [
        (
            &["--token-file", "nowhere"][..],
            2,
            "cannot read --token-file",
        ),
        (
            &["--token-file", "nowhere", "--config", "absent.toml"],
            2,
            "cannot read --token-file",
        ),
        (&["--url", "/x"], 1, "conf/hawkgate.toml"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
            .arg("explain")
            .args(arguments)
            .current_dir(empty.path())
            .env_remove("HAWKGATE_CONFIG")
            .output()
            .unwrap();
        let exited = Exited::from(output);
        assert_eq!(exited.code, code, "{arguments:?}: {}", exited.stderr);
        assert!(
            exited.stderr.contains(stderr),
            "{arguments:?}: {}",
            exited.stderr
        );
    }
}
