//! `[[session]]`: what valid files parse to, and files with keys and warnings.

use std::time::Duration;

use super::*;
use crate::remote::settings::ClientProof;
use crate::session::settings::{SessionKind, SessionStore, Unauthenticated};

const ISSUER: &str = r#"
[[issuer]]
name = "idp"
url = "https://idp.example.com"
audiences = ["hawkgate"]
"#;

const ROUTE: &str = r#"
[[route]]
name = "app"
upstream = "https://app.example.com"
session = "web"
"#;

const SESSION: &str = r#"
[[session]]
name = "web"
issuer = "idp"
client_id = "c"
cookie_key = { file = "key" }
"#;

fn accepted(text: &str) -> (Config, Vec<Warning>) {
    parse_text(text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_minimal_session_has_every_default() {
    let (config, warnings) = accepted(&format!("{ISSUER}{SESSION}{ROUTE}"));
    assert_eq!(warnings, []);
    let [session] = &config.sessions[..] else {
        panic!("{:?}", config.sessions)
    };
    let settings = &session.settings;
    assert_eq!(&*settings.name, "web");
    assert_eq!(settings.kind, SessionKind::Oidc);
    assert_eq!(settings.provider, "https://idp.example.com");
    assert_eq!((&*settings.client_id, &*settings.prefix), ("c", "/oauth2/"));
    assert_eq!(settings.scopes, ["openid"]);
    assert_eq!(settings.idle, Duration::from_hours(8));
    assert_eq!(settings.lifetime, Duration::from_hours(7 * 24));
    assert_eq!(settings.timeout, Duration::from_secs(5));
    assert_eq!(settings.unauthenticated, Unauthenticated::Login);
    assert_eq!(settings.store, SessionStore::Cookie);
    let optional = [&settings.origin, &settings.audience, &settings.resource];
    assert_eq!(optional, [&None; 3]);
    assert_eq!(settings.previous_cookie_key, None);
    let SessionProvider::Oidc { issuer, settings } = &session.provider else {
        panic!("{:?}", session.provider)
    };
    assert_eq!((*issuer, &*settings.issuer), (0, "https://idp.example.com"));
    assert_eq!(settings.client.proof, ClientProof::Public);
    let [route] = &config.routes[..] else {
        panic!("{:?}", config.routes)
    };
    assert_eq!((route.session, route.source), (Some(0), None));
    assert_eq!(config.issuers_of(route).collect::<Vec<_>>(), [0]);
}

#[test]
fn the_idle_limit_is_the_lifetime_if_that_is_shorter() {
    let (config, _) = accepted(&format!("{ISSUER}{SESSION}lifetime = \"1h\"\n{ROUTE}"));
    let settings = &config.sessions[0].settings;
    let hour = Duration::from_hours(1);
    assert_eq!((settings.idle, settings.lifetime), (hour, hour));
}

#[test]
fn assertions_of_the_client_are_for_the_issuer() {
    let key = "private_key = { file = \"pem\" }\nresource = \"urn:api\"\n";
    let (config, _) = accepted(&format!("{ISSUER}{SESSION}{key}{ROUTE}"));
    let SessionProvider::Oidc { settings, .. } = &config.sessions[0].provider else {
        panic!("{:?}", config.sessions)
    };
    let ClientProof::PrivateKeyJwt(key) = &settings.client.proof else {
        panic!("{:?}", settings.client)
    };
    assert_eq!(key.audience, "https://idp.example.com");
    assert_eq!(settings.resources, ["urn:api"]);
}

#[test]
fn a_taskcluster_session_needs_no_issuer() {
    let session = r#"
[[session]]
name = "web"
kind = "taskcluster"
root_url = "https://tc.example.com"
client_id = "c"
scopes = ["assume:x", "queue:*"]
cookie_key = { env = "KEY" }
origin = "http://localhost:8080"
unauthenticated = "refuse"
"#;
    let (config, warnings) = accepted(&format!("{session}{ROUTE}"));
    assert_eq!(warnings, []);
    let session = &config.sessions[0];
    assert_eq!(session.issuer(), None);
    assert_eq!(session.settings.provider, "https://tc.example.com");
    assert_eq!(session.settings.scopes, ["assume:x", "queue:*"]);
    assert_eq!(session.settings.unauthenticated, Unauthenticated::Refuse);
    let origin = session.settings.origin.as_deref();
    assert_eq!(origin, Some("http://localhost:8080"));
}

#[test]
fn sessions_in_the_shared_store_need_one() {
    let shared = "[shared]\nurl = \"rediss://valkey.example\"\nkey = { file = \"fleet\" }\n";
    let text = format!("{ISSUER}{SESSION}store = \"shared\"\n{ROUTE}");
    let (config, warnings) = accepted(&format!("{text}{shared}"));
    assert_eq!(warnings, []);
    assert_eq!(config.sessions[0].settings.store, SessionStore::Shared);
    let errors = parse_text(&text).unwrap_err().to_string();
    assert_eq!(
        errors,
        "t.toml:12: session \"web\": key \"store\": is \"shared\", but there is no [shared]; \
         add [shared] with url and key, or write store = \"cookie\""
    );
}

#[test]
fn a_session_that_no_route_names_is_a_warning() {
    let route = ROUTE.replace("session = \"web\"", "issuers = [\"idp\"]");
    let (_, warnings) = accepted(&format!("{ISSUER}{SESSION}{route}"));
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "t.toml:7: warning: session \"web\": is not used by any route; use it in a route, or remove it"
        ]
    );
}

#[test]
fn cookie_keys_are_checked_when_they_are_read() {
    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let folder = tempfile::tempdir().unwrap();
    let options = ParseOptions {
        read_secrets: true,
        environment: false,
        base_dir: folder.path().to_owned(),
    };
    let previous = SESSION.replace("cookie_key", "previous_cookie_key");
    let previous = previous.lines().last().unwrap();
    let text = format!(
        "{ISSUER}{SESSION}{}\n{ROUTE}",
        previous.replace("key\" }", "old\" }")
    );
    let problem = |key: &str, old: &str| {
        std::fs::write(folder.path().join("key"), key).unwrap();
        std::fs::write(folder.path().join("old"), old).unwrap();
        let errors = parse(&text, "t.toml", &options).err()?;
        Some(errors.errors[0].to_string())
    };
    let other = KEY.replace("AAEC", "BAEC");
    let url_safe = "__ECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    for key in [KEY, url_safe, KEY.trim_end_matches('=')] {
        assert_eq!(problem(key, &other), None, "{key}");
    }
    let zeros = "A".repeat(43);
    for (key, expected) in [
        ("c2hvcnQ=", "is not 32 bytes long"),
        ("0123456789abcdef0123456789abcdef", "is not 32 bytes long"),
        ("not base64!", "is not base64"),
        (&zeros, "is the same byte 32 times"),
    ] {
        let problem = problem(key, &other).unwrap();
        let remedy = "generate one with `openssl rand -base64 32`";
        assert!(
            problem.contains(expected) && problem.contains(remedy),
            "{problem}"
        );
        assert!(
            problem.contains("\"cookie_key\"") && !problem.contains(key),
            "{problem}"
        );
    }
    for same in [KEY, KEY.trim_end_matches('=')] {
        let problem = problem(KEY, same).unwrap();
        assert!(
            problem.contains("\"previous_cookie_key\": is the same key"),
            "{problem}"
        );
    }
}
