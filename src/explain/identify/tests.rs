use serde_json::json;

use super::*;
use crate::config::{self, ParseOptions};
use crate::token::testing::{self, ED25519, b64};

const NOW: UnixMillis = UnixMillis::from_secs(testing::NOW);

fn token(header: &Value, claims: &Value) -> String {
    ED25519.token(header, claims)
}

fn jwt(claims: &Value) -> Identification {
    identify(token(&json!({ "typ": "JWT" }), claims).as_bytes(), NOW)
}

/// The section together with a route.
fn parsed(found: &Identification) -> config::Config {
    let section = found.issuer_section.as_deref().unwrap();
    let name = section.split('"').nth(1).unwrap();
    let text = format!(
        "{section}\n[[route]]\nname = \"r\"\nupstream = \"http://127.0.0.1:9\"\nissuers = [\"{name}\"]\n"
    );
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: "/".into(),
    };
    config::parse(&text, "t", &options)
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
        .0
}

fn advises(found: &Identification, words: &str) -> bool {
    found.advice.iter().any(|line| line.contains(words))
}

#[test]
fn an_access_token_of_an_unknown_provider_gets_a_section_for_its_type() {
    for (header, profile, types) in [
        (json!({ "typ": "at+jwt" }), "rfc9068", None),
        (json!({ "typ": "JWT" }), "rfc9068", Some("[\"JWT\"]")),
        (json!({ "typ": null }), "rfc9068", Some("[\"\"]")),
    ] {
        let claims = json!({
            "iss": "https://login.example.com", "aud": "api", "sub": "x", "scope": "a", "exp": testing::NOW + 60,
        });
        let found = identify(token(&header, &claims).as_bytes(), NOW);
        assert_eq!(
            (found.kind, found.profile),
            (Kind::AccessToken, Some(profile)),
            "{header}"
        );
        let section = found.issuer_section.as_deref().unwrap();
        let line = section.lines().find(|line| line.starts_with("token_types"));
        assert_eq!(
            line.map(|line| line.contains(types.unwrap())),
            types.map(|_| true),
            "{section}"
        );
        parsed(&found);
    }
}

#[test]
fn a_token_without_a_sign_of_its_use_gets_the_profile_of_workloads() {
    let found = jwt(&json!({
        "iss": "https://oidc.circleci.com/org/1", "aud": "1", "sub": "org/1/project/2/user/3", "exp": testing::NOW + 60,
    }));
    assert_eq!((found.kind, found.profile), (Kind::Jwt, Some("workload")));
    assert!(
        found
            .issuer_section
            .as_deref()
            .unwrap()
            .contains("\"org/1/project/2/user/3\"")
    );
    parsed(&found);
}

#[test]
fn untrusted_text_is_escaped_bounded_and_cannot_add_keys() {
    let evil = "\u{1b}[2J\u{202e}\"\nname = \"x\"\n\\";
    let found = jwt(&json!({
        "iss": format!("https://idp.example.com/{evil}"), "aud": evil, "sub": evil, "scope": "x".repeat(5000),
        "client_id": evil, "exp": testing::NOW + 60,
    }));
    let text = found.to_string();
    let json = serde_json::to_string(&found).unwrap();
    for shown in [&text, &json] {
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
        assert!(shown.len() < 6000, "{}", shown.len());
    }
    let config = parsed(&found);
    assert_eq!(config.issuers.len(), 1);
    for claims in [
        json!({ "iss": 1, "aud": ["*", {}], "sub": "*", "scope": "a" }),
        json!({ "iss": "", "aud": "", "sub": "" }),
        json!({ "iss": "https://a.example/?q", "aud": "a*b" }),
        json!({ "iss": "x".repeat(4000), "aud": "y".repeat(4000), "scp": [] }),
        json!({ "iss": "spiffe://a/b", "aud": "x" }),
        json!({ "iss": "http://a.example", "aud": "x", "azp": "c", "scope": "" }),
        json!({}),
    ] {
        let found = jwt(&claims);
        let section = found.issuer_section.clone().unwrap();
        assert!(
            !section.contains('*') || section.contains("`*`"),
            "{section}"
        );
        parsed(&found);
    }
}

#[test]
fn what_is_wrong_with_a_token_is_said() {
    let base = json!({
        "iss": "https://t.auth0.com/", "aud": "api", "sub": "u", "azp": "c", "scope": "a", "exp": testing::NOW + 60,
    });
    let with = |changes: Value| jwt(&testing::with(&base, &changes));
    assert!(jwt(&base).advice.is_empty(), "{:?}", jwt(&base).advice);
    for (changes, words) in [
        (
            json!({ "exp": testing::NOW - 90 }),
            "expired 1 min 30 s ago",
        ),
        (json!({ "exp": null }), "never expires"),
        (json!({ "cnf": {} }), "bound to a key"),
        (json!({ "aud": null }), "no audience"),
        (json!({ "aud": ["api", "other"] }), "several audiences"),
        (
            json!({ "aud": "https://t.auth0.com/userinfo" }),
            "request audience=",
        ),
        (json!({ "nonce": "n" }), "send the access token"),
        (json!({ "x": "y".repeat(9000) }), "limits.token_bytes"),
        (
            json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
            "backchannel-logout endpoint",
        ),
    ] {
        let found = with(changes.clone());
        assert!(advises(&found, words), "{changes}: {:?}", found.advice);
    }
    let graph = jwt(&json!({
        "iss": "https://sts.windows.net/t/", "aud": "https://graph.microsoft.com", "appid": "c", "exp": testing::NOW + 60,
    }));
    assert!(advises(&graph, "Microsoft Graph"), "{:?}", graph.advice);
    let hmac = identify(
        format!(
            "{}.{}.c2ln",
            b64(r#"{"alg":"HS256"}"#),
            b64(base.to_string())
        )
        .as_bytes(),
        NOW,
    );
    assert!(advises(&hmac, "shared-secret"), "{:?}", hmac.advice);
    assert!(
        hmac.issuer_section.as_deref().unwrap().contains("kind"),
        "{hmac}"
    );
    parsed(&hmac);
    let none = identify(
        format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(base.to_string())).as_bytes(),
        NOW,
    );
    assert_eq!(none.kind, Kind::Unsigned);
}

#[test]
fn words_that_are_no_jwt_are_named() {
    let jwe = |header: &str| format!("{}.QUJD.QUJD.QUJD.QUJD", b64(header));
    let auth0 = jwe(r#"{"alg":"dir","enc":"A256GCM","iss":"https://t.auth0.com/"}"#);
    let cognito = jwe(r#"{"cty":"JWT","enc":"A256GCM","alg":"RSA-OAEP"}"#);
    let good = token(&json!({}), &json!({ "iss": "x" }));
    for (text, kind, words) in [
        ("opaque-token", Kind::Opaque, "introspection"),
        ("ghp_0123456789", Kind::Opaque, "GitHub"),
        ("ya29.a0AfH6SMBx", Kind::Opaque, "service account"),
        ("1//0gabcdef", Kind::RefreshToken, "service account"),
        ("sha256~abcdef", Kind::Opaque, "kubectl create token"),
        (
            "123e4567-e89b-12d3-a456-426614174000",
            Kind::Opaque,
            "introspection",
        ),
        (&auth0, Kind::Encrypted, "audience="),
        (&cognito, Kind::Encrypted, "refresh token"),
        (
            &jwe(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#),
            Kind::Encrypted,
            "JWS",
        ),
        (&good[..good.len() - 90], Kind::Malformed, "segments"),
        (&good.replace('.', ".$"), Kind::Malformed, "'$'"),
        (&format!("{}…", &good[..40]), Kind::Malformed, "shortened"),
        (&format!("{good}~WyJ4Il0~"), Kind::Malformed, "SD-JWT"),
        (
            "Hawk id=\"a\", mac=\"b\"",
            Kind::NotAToken,
            "Authorization: Bearer",
        ),
        ("", Kind::NotAToken, "printed nothing"),
    ] {
        let found = identify(text.as_bytes(), NOW);
        assert_eq!(found.kind, kind, "{text}: {found}");
        assert!(advises(&found, words), "{text}: {:?}", found.advice);
        assert_eq!(
            found.is_token(),
            !matches!(kind, Kind::Malformed | Kind::NotAToken),
            "{text}"
        );
        if found.issuer_section.is_some() {
            parsed(&found);
        }
        assert!(
            text.len() < 5 || !found.to_string().contains(text),
            "{found}"
        );
    }
    let large = "x".repeat(9000);
    assert!(advises(&identify(large.as_bytes(), NOW), "too large"));
}

#[test]
fn remarks_about_what_was_around_the_token_come_last() {
    let claims =
        json!({ "iss": "https://t.auth0.com/", "aud": "api", "azp": "c", "scope": "a", "exp": 1 });
    let bearer = format!("\"Bearer {}\"\n", token(&json!({ "typ": "JWT" }), &claims));
    let found = identify(bearer.as_bytes(), NOW);
    assert_eq!(found.provider, Some("Auth0"));
    assert!(
        found.advice[0].starts_with("it expired"),
        "{:?}",
        found.advice
    );
    assert!(
        advises(&found, "quotes") && advises(&found, "scheme"),
        "{:?}",
        found.advice
    );
}
