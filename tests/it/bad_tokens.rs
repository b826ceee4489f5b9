//! Invalid tokens: each is refused with the right status and reason, and none reaches the upstream.
//! The rules are in `docs/design/tokens.md`, "Verification" (RFC 8725, RFC 9068 §4).

// Long tables, with a case in each line.
#![allow(clippy::too_many_lines, clippy::many_single_char_names)]

use std::sync::LazyLock;

use hawkgate::clock::SystemClock;
use serde_json::{Value, json};

use crate::support::client::{Client, Request, Response};
use crate::support::gateway::TestGateway;
use crate::support::secrets::Secrets;
use crate::support::standard::{API_AUDIENCE as AUDIENCE, api_route};
use crate::support::tokens::{
    self, IssuerServer, Key, SHARED, claims, encode, hmac_token, unsigned, with,
};
use crate::support::upstream::{FakeUpstream, Reply};

/// A second RSA key, so that a token without `kid` fits several. Generated once: it is slow.
static OTHER_RSA: LazyLock<Key> = LazyLock::new(|| Key::rsa("another"));

/// An issuer with keys of every kind, and a gateway whose route requires its tokens.
struct Fixture {
    gateway: TestGateway,
    upstream: FakeUpstream,
    issuer: IssuerServer,
    now: i64,
}

impl Fixture {
    /// With further keys of the issuer.
    async fn set_up(rules: &str) -> Self {
        let [rsa, p256, p384, ed] = &*SHARED;
        let issuer = IssuerServer::start(&[rsa, p256, p384, ed]).await;
        let mut keys: Vec<Value> = SHARED.iter().map(Key::jwk).collect();
        keys.extend([
            with(
                &OTHER_RSA.jwk(),
                &json!({ "kid": "encrypts", "use": "enc" }),
            ),
            with(&p256.jwk(), &json!({ "kid": "only-es384", "alg": "ES384" })),
            with(&rsa.jwk(), &json!({ "kid": "only-ps256", "alg": "PS256" })),
            OTHER_RSA.jwk(),
            with(
                &rsa.jwk(),
                &json!({ "kid": "wraps", "use": null, "key_ops": ["wrapKey"] }),
            ),
            json!({ "kty": "oct", "kid": "shared", "k": encode("a secret in a key set") }),
        ]);
        issuer.jwks(keys);
        let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
        let gateway = TestGateway::start(&api_route(
            &issuer,
            rules,
            &upstream,
            "require_scopes = [\"read\"]",
        ))
        .await;
        Self {
            gateway,
            upstream,
            issuer,
            now: SystemClock::shared().now().as_secs(),
        }
    }

    fn claims(&self) -> Value {
        claims(&self.issuer.issuer(), AUDIENCE, self.now)
    }

    /// A valid token with these changes to its claims.
    fn token_with_claims(&self, changes: &Value) -> String {
        SHARED[0].token("RS256", &with(&self.claims(), changes))
    }

    /// A valid token with these changes to its header.
    fn token_with_header(&self, key: &Key, changes: &Value) -> String {
        key.sign(&with(&key.header("RS256"), changes), &self.claims())
    }

    async fn send(&self, token: &str) -> Response {
        self.gateway
            .send(&Request::post("/api/x?q=1", "body").bearer(token))
            .await
    }

    /// Sends each token and checks every part of the error response.
    async fn assert_refused(&self, cases: Vec<(&str, &str, String)>) {
        for (what, reason, token) in cases {
            let secrets = Secrets::default();
            if token.len() > 20 {
                secrets.token(what, &token);
            }
            let response = self.send(&token).await;
            assert_refused(what, reason, &response);
            let answer = format!(
                "{}{}",
                String::from_utf8_lossy(&response.raw_head),
                response.text()
            );
            secrets.assert_absent(what, &answer);
        }
        assert_eq!(self.upstream.attempts().len(), 0);
    }
}

fn assert_refused(what: &str, reason: &str, response: &Response) {
    let text = response.text();
    let status = match reason {
        "invalid_authorization" => 400,
        "insufficient_scope" => 403,
        _ => 401,
    };
    assert_eq!(response.error_reason(), Some(reason), "{what}: {text}");
    assert_eq!(response.status, status, "{what}: {text}");
    assert_eq!(response.header("cache-control"), Some("no-store"), "{what}");
    let challenge = response.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer realm="), "{what}");
    let error = match reason {
        "missing_token" => None,
        "invalid_authorization" => Some("invalid_request"),
        "insufficient_scope" => Some("insufficient_scope"),
        _ => Some("invalid_token"),
    };
    match error {
        None => assert!(!challenge.contains("error"), "{what}: {challenge}"),
        Some(error) => assert!(
            challenge.contains(&format!("error=\"{error}\"")),
            "{what}: {challenge}"
        ),
    }
    let body = response.json();
    assert!(
        body["code"].is_string() && body["message"].is_string(),
        "{what}"
    );
    assert_eq!(body["requestInfo"]["method"], "POST", "{what}");
    assert_eq!(body["requestInfo"]["payload"], Value::Null, "{what}");
}

#[tokio::test]
async fn valid_tokens_are_accepted() {
    let fixture = Fixture::set_up("").await;
    let [rsa, p256, p384, ed] = &*SHARED;
    let good = fixture.claims();
    let cases = [
        rsa.token("RS256", &good),
        rsa.token("RS384", &good),
        rsa.token("RS512", &good),
        rsa.token("PS256", &good),
        rsa.token("PS384", &good),
        rsa.token("PS512", &good),
        p256.token("ES256", &good),
        p384.token("ES384", &good),
        ed.token("EdDSA", &good),
        // The name of EdDSA with Ed25519 in RFC 9864.
        ed.token("Ed25519", &good),
        // Only one key fits, so `kid` may be missing.
        p256.sign(
            &with(&p256.header("ES256"), &json!({ "kid": null })),
            &good,
        ),
        fixture.token_with_claims(&json!({ "aud": ["elsewhere", AUDIENCE] })),
        fixture.token_with_claims(&json!({ "scope": ["read", "write"] })),
        fixture.token_with_claims(&json!({ "azp": "app" })),
        fixture.token_with_claims(&json!({ "exp": fixture.now - 10 })),
        fixture.token_with_claims(&json!({ "nbf": fixture.now + 10, "iat": fixture.now + 10 })),
        fixture.token_with_header(rsa, &json!({ "typ": "Application/AT+JWT" })),
        // Keys in the token itself are ignored.
        fixture.token_with_header(
            rsa,
            &json!({ "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "jwk": p256.jwk() }),
        ),
    ];
    for (n, token) in cases.iter().enumerate() {
        let response = fixture.send(token).await;
        assert_eq!(response.status, 200, "{n}: {}", response.text());
    }
    assert_eq!(fixture.upstream.attempts().len(), cases.len());
}

#[tokio::test]
async fn malformed_tokens_are_refused() {
    let fixture = Fixture::set_up("").await;
    let [rsa, ..] = &*SHARED;
    let good = rsa.token("RS256", &fixture.claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = [parts[0], parts[1], parts[2]];
    let text = fixture.claims().to_string();
    let own_header = rsa.header("RS256").to_string();
    let sign = |header: &str, claims: &str| rsa.sign_text("RS256", header, claims);
    let twice = |json: &str, member: &str| format!("{{{member},{}", &json[1..]);
    let m = "token_malformed";
    fixture
        .assert_refused(vec![
            ("a word", m, "opaque-token".into()),
            ("one segment", m, header.into()),
            ("two segments", m, format!("{header}.{payload}")),
            ("four segments", m, format!("{good}.{signature}")),
            (
                "five segments: a JWE",
                m,
                format!("{good}.{payload}.{signature}"),
            ),
            ("no header", m, format!(".{payload}.{signature}")),
            ("no claims", m, format!("{header}..{signature}")),
            ("only dots", m, "..".into()),
            (
                "padded segments",
                "invalid_authorization",
                format!("{header}==.{payload}.{signature}"),
            ),
            (
                "standard base64",
                m,
                format!("{header}.{payload}+/.{signature}"),
            ),
            (
                "over 8 KiB",
                m,
                fixture.token_with_claims(&json!({ "padding": "x".repeat(8 * 1024) })),
            ),
            (
                "header twice kid",
                m,
                sign(&twice(&own_header, "\"kid\":\"other\""), &text),
            ),
            (
                "header twice alg",
                m,
                sign(&twice(&own_header, "\"alg\":\"none\""), &text),
            ),
            (
                "claims twice sub",
                m,
                sign(&own_header, &twice(&text, "\"sub\":\"root\"")),
            ),
            (
                "claims twice aud",
                m,
                sign(&own_header, &twice(&text, "\"aud\":\"x\"")),
            ),
            (
                "claims twice, one escaped",
                m,
                sign(&own_header, &twice(&text, "\"su\\u0062\":\"root\"")),
            ),
            (
                "nested member twice",
                m,
                sign(&own_header, &twice(&text, "\"ext\":{\"a\":1,\"a\":2}")),
            ),
            ("header is an array", m, sign("[]", &text)),
            ("header is no JSON", m, sign("{", &text)),
            ("claims are a text", m, sign(&own_header, "\"sub\"")),
            ("claims are no JSON", m, sign(&own_header, "{\"sub\":")),
            (
                "claims followed by more",
                m,
                sign(&own_header, &format!("{text} {{}}")),
            ),
            (
                "claims with NaN",
                m,
                sign(&own_header, &twice(&text, "\"x\":NaN")),
            ),
            (
                "crit",
                m,
                fixture.token_with_header(rsa, &json!({ "crit": ["exp"] })),
            ),
            (
                "crit, known",
                m,
                fixture.token_with_header(rsa, &json!({ "crit": ["b64"], "b64": true })),
            ),
            (
                "crit, empty",
                m,
                fixture.token_with_header(rsa, &json!({ "crit": [] })),
            ),
            (
                "kid is a number",
                m,
                fixture.token_with_header(rsa, &json!({ "kid": 1 })),
            ),
        ])
        .await;
}

#[tokio::test]
async fn tokens_with_a_wrong_algorithm_type_or_key_are_refused() {
    let fixture =
        Fixture::set_up("algorithms = [\"RS256\", \"PS256\", \"ES256\", \"ES384\", \"EdDSA\"]")
            .await;
    let [rsa, p256, p384, ed] = &*SHARED;
    let good = fixture.claims();
    let header = |alg: &str| json!({ "alg": alg, "typ": "at+jwt", "kid": "rsa" });
    let stranger = Key::rsa("rsa");
    let (a, t, k, s) = (
        "token_algorithm",
        "token_type",
        "token_key",
        "token_signature",
    );
    let token = rsa.token("RS256", &good);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = fixture.token_with_claims(&json!({ "sub": "another-user" }));
    let (other_signed, _) = other.rsplit_once('.').unwrap();
    fixture
        .assert_refused(vec![
            ("none", a, unsigned(&header("none"), &good)),
            ("None", a, unsigned(&header("None"), &good)),
            (
                "nOnE with a signature",
                a,
                format!("{}{signature}", unsigned(&header("nOnE"), &good)),
            ),
            (
                "no alg",
                a,
                unsigned(&json!({ "typ": "at+jwt", "kid": "rsa" }), &good),
            ),
            (
                "alg is a list",
                a,
                unsigned(&json!({ "alg": ["RS256"], "typ": "at+jwt" }), &good),
            ),
            (
                "alg in lower case",
                a,
                rsa.sign_text("RS256", &header("rs256").to_string(), &good.to_string()),
            ),
            (
                "HS256 under the public key",
                a,
                hmac_token(&header("HS256"), &good, rsa.public_pem().as_bytes()),
            ),
            (
                "HS256 under a listed key",
                a,
                hmac_token(
                    &with(&header("HS256"), &json!({ "kid": "shared" })),
                    &good,
                    b"a secret in a key set",
                ),
            ),
            (
                "HS256 under nothing",
                a,
                hmac_token(&header("HS256"), &good, b""),
            ),
            ("RS512, not on the list", a, rsa.token("RS512", &good)),
            ("ES256K", a, unsigned(&header("ES256K"), &good)),
            (
                "an ID token's typ",
                t,
                fixture.token_with_header(rsa, &json!({ "typ": "JWT" })),
            ),
            (
                "no typ",
                t,
                fixture.token_with_header(rsa, &json!({ "typ": null })),
            ),
            (
                "a logout token",
                t,
                fixture.token_with_header(rsa, &json!({ "typ": "logout+jwt" })),
            ),
            (
                "typ is a number",
                t,
                fixture.token_with_header(rsa, &json!({ "typ": 1 })),
            ),
            (
                "no kid, several fit",
                k,
                fixture.token_with_header(rsa, &json!({ "kid": null })),
            ),
            (
                "a kid that is a path",
                k,
                fixture.token_with_header(rsa, &json!({ "kid": "../../dev/null" })),
            ),
            (
                "an unknown kid",
                k,
                fixture.token_with_header(&stranger, &json!({ "kid": "unknown" })),
            ),
            (
                "an RSA token with a P-256 key",
                k,
                fixture.token_with_header(rsa, &json!({ "kid": "p256" })),
            ),
            (
                "a P-256 token with an RSA key",
                k,
                p256.sign(
                    &with(&p256.header("ES256"), &json!({ "kid": "rsa" })),
                    &good,
                ),
            ),
            (
                "ES256 with a P-384 key",
                k,
                p256.sign(
                    &with(&p256.header("ES256"), &json!({ "kid": "p384" })),
                    &good,
                ),
            ),
            (
                "ES384 with a P-256 key",
                k,
                p384.sign(
                    &with(&p384.header("ES384"), &json!({ "kid": "p256" })),
                    &good,
                ),
            ),
            (
                "EdDSA with a P-256 key",
                k,
                ed.sign(&with(&ed.header("EdDSA"), &json!({ "kid": "p256" })), &good),
            ),
            (
                "a key that encrypts",
                k,
                fixture.token_with_header(&stranger, &json!({ "kid": "encrypts" })),
            ),
            (
                "a key that wraps",
                k,
                fixture.token_with_header(rsa, &json!({ "kid": "wraps" })),
            ),
            (
                "a key for another alg",
                k,
                fixture.token_with_header(rsa, &json!({ "kid": "only-ps256" })),
            ),
            (
                "a symmetric key",
                k,
                fixture.token_with_header(rsa, &json!({ "kid": "shared" })),
            ),
            ("a stranger's signature", s, stranger.token("RS256", &good)),
            (
                "another token's signature",
                s,
                format!("{other_signed}.{signature}"),
            ),
            ("no signature", s, format!("{signed}.")),
            (
                // A multiple of four characters: other lengths may not be valid base64url.
                "half a signature",
                s,
                format!("{signed}.{}", &signature[..signature.len() / 8 * 4]),
            ),
            (
                "RS256's signature as PS256",
                s,
                rsa.sign_text("RS256", &header("PS256").to_string(), &good.to_string()),
            ),
            ("an all-zero ECDSA signature", s, {
                let token = p256.token("ES256", &good);
                let (signed, _) = token.rsplit_once('.').unwrap();
                format!("{signed}.{}", encode([0; 64]))
            }),
            ("an ECDSA signature in DER", s, {
                let token = p256.token("ES256", &good);
                let (signed, _) = token.rsplit_once('.').unwrap();
                format!("{signed}.{}", encode([0x30; 70]))
            }),
        ])
        .await;
    assert!(
        fixture.issuer.fetches() <= 2,
        "unknown kids trigger too many fetches"
    );
}

#[tokio::test]
async fn tokens_with_wrong_claims_are_refused() {
    let fixture =
        Fixture::set_up("clients = [\"app\", \"other-app\"]\nsubjects = [\"user|*\"]").await;
    let own = fixture.issuer.issuer();
    let now = fixture.now;
    let (i, c, u, e, y, l) = (
        "token_issuer",
        "token_claims",
        "token_audience",
        "token_expired",
        "token_not_yet_valid",
        "token_not_allowed",
    );
    let cases: Vec<(&str, &str, Value)> = vec![
        ("no iss", c, json!({ "iss": null })),
        (
            "a foreign iss",
            i,
            json!({ "iss": "https://evil.example.com" }),
        ),
        ("iss and a slash", i, json!({ "iss": format!("{own}/") })),
        ("iss in upper case", i, json!({ "iss": own.to_uppercase() })),
        (
            "iss as a list",
            c,
            json!({ "iss": [own.clone(), "https://evil.example.com"] }),
        ),
        ("iss as a list of ours", c, json!({ "iss": [own.clone()] })),
        (
            "iss with a suffix",
            i,
            json!({ "iss": format!("{own}.evil.example.com") }),
        ),
        ("no aud", c, json!({ "aud": null })),
        ("aud is a number", c, json!({ "aud": 1 })),
        ("aud with a number", c, json!({ "aud": [AUDIENCE, 1] })),
        ("aud is empty", u, json!({ "aud": [] })),
        (
            "another aud",
            u,
            json!({ "aud": "https://other.example.com" }),
        ),
        ("other auds", u, json!({ "aud": ["a", "b"] })),
        (
            "aud and a slash",
            u,
            json!({ "aud": format!("{AUDIENCE}/") }),
        ),
        ("a part of aud", u, json!({ "aud": &AUDIENCE[..12] })),
        ("no exp", c, json!({ "exp": null })),
        (
            "exp is a text",
            c,
            json!({ "exp": (now + 600).to_string() }),
        ),
        ("exp is negative", c, json!({ "exp": -1 })),
        ("exp is beyond everything", c, json!({ "exp": 1e300 })),
        ("expired", e, json!({ "exp": now - 3600 })),
        ("expired 40 s ago", e, json!({ "exp": now - 40 })),
        ("expired in 1970", e, json!({ "exp": 0 })),
        ("nbf in the future", y, json!({ "nbf": now + 300 })),
        ("iat in the future", y, json!({ "iat": now + 300 })),
        ("nbf is a text", c, json!({ "nbf": "now" })),
        ("iat is a list", c, json!({ "iat": [now] })),
        ("no sub", c, json!({ "sub": null })),
        ("sub is empty", c, json!({ "sub": "" })),
        ("sub is a number", c, json!({ "sub": 7 })),
        ("sub has a line break", c, json!({ "sub": "user|1\nadmin" })),
        (
            "sub is endless",
            c,
            json!({ "sub": format!("user|{}", "x".repeat(3000)) }),
        ),
        ("a sub not on the list", l, json!({ "sub": "robot|1" })),
        ("client_id and azp differ", c, json!({ "azp": "other-app" })),
        ("client_id is a list", c, json!({ "client_id": ["app"] })),
        (
            "a client not on the list",
            l,
            json!({ "client_id": "evil-app" }),
        ),
        (
            "no client where there is a list",
            l,
            json!({ "client_id": null }),
        ),
        ("scope is a number", c, json!({ "scope": 5 })),
        (
            "bound by DPoP",
            "token_bound",
            json!({ "cnf": { "jkt": "0ZcOCORZNYy" } }),
        ),
        (
            "bound by mTLS",
            "token_bound",
            json!({ "cnf": { "x5t#S256": "bwcK0esc3" } }),
        ),
        ("cnf is empty", "token_bound", json!({ "cnf": {} })),
        (
            "without the scope",
            "insufficient_scope",
            json!({ "scope": "openid" }),
        ),
        (
            "with a longer scope",
            "insufficient_scope",
            json!({ "scope": "reader" }),
        ),
        (
            "without any scope",
            "insufficient_scope",
            json!({ "scope": null }),
        ),
    ];
    let cases = cases
        .into_iter()
        .map(|(what, reason, changes)| (what, reason, fixture.token_with_claims(&changes)))
        .collect();
    fixture.assert_refused(cases).await;
}

#[tokio::test]
async fn the_auth0_profile_refuses_id_tokens() {
    let fixture = Fixture::set_up("profile = \"auth0\"").await;
    let auth0 = |changes: &Value| {
        let header = with(&SHARED[0].header("RS256"), &json!({ "typ": "JWT" }));
        SHARED[0].sign(&header, &with(&fixture.claims(), changes))
    };
    let good = auth0(&json!({ "azp": "app", "client_id": null }));
    fixture
        .assert_refused(vec![
            ("a nonce", "token_type", auth0(&json!({ "nonce": "n" }))),
            (
                "an at_hash",
                "token_type",
                auth0(&json!({ "at_hash": "h" })),
            ),
            (
                "an ID token's audience",
                "token_audience",
                auth0(&json!({ "aud": "app", "azp": "app" })),
            ),
            (
                "RFC 9068's typ",
                "token_type",
                SHARED[0].token("RS256", &fixture.claims()),
            ),
        ])
        .await;
    assert_eq!(fixture.send(&good).await.status, 200);
}

#[tokio::test]
async fn the_workload_profile_requires_a_listed_subject() {
    let fixture = Fixture::set_up("profile = \"workload\"\nsubjects = [\"repo:org/app:*\"]").await;
    let machine = |changes: &Value| {
        let header = with(&SHARED[0].header("RS256"), &json!({ "typ": null }));
        SHARED[0].sign(&header, &with(&fixture.claims(), changes))
    };
    fixture
        .assert_refused(vec![
            ("a user", "token_not_allowed", machine(&json!({}))),
            (
                "a fork",
                "token_not_allowed",
                machine(&json!({ "sub": "repo:org/app-evil:ref:main" })),
            ),
            (
                "the pattern itself, elsewhere",
                "token_not_allowed",
                machine(&json!({ "sub": "x:repo:org/app:ref:main" })),
            ),
            ("no sub", "token_claims", machine(&json!({ "sub": null }))),
            (
                "no aud",
                "token_claims",
                machine(&json!({ "sub": "repo:org/app:x", "aud": null })),
            ),
        ])
        .await;
    let good = machine(&json!({ "sub": "repo:org/app:ref:refs/heads/main", "client_id": null }));
    assert_eq!(fixture.send(&good).await.status, 200);
}

#[tokio::test]
async fn a_cached_token_is_refused_once_it_expires() {
    let issuer = IssuerServer::start(&[&SHARED[0]]).await;
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let config = api_route(&issuer, "verified_max_age = \"1h\"", &upstream, "");
    let (gateway, clock) = TestGateway::start_with_clock(&config).await;
    let now = hawkgate::clock::Clock::now(&*clock).as_secs();
    let token = SHARED[0].token("RS256", &tokens::claims(&issuer.issuer(), AUDIENCE, now));
    let request = Request::get("/x").bearer(&token);
    assert_eq!(gateway.send(&request).await.status, 200);
    // `exp` is in 600 s, and the leeway is 30 s.
    clock.advance(std::time::Duration::from_secs(629));
    assert_eq!(gateway.send(&request).await.status, 200);
    clock.advance(std::time::Duration::from_secs(2));
    let response = gateway.send(&request).await;
    assert_eq!(response.error_reason(), Some("token_expired"));
    assert_eq!(upstream.attempts().len(), 2);
}

#[tokio::test]
async fn authorization_headers_without_exactly_one_bearer_token_are_refused() {
    let fixture = Fixture::set_up("").await;
    let token = SHARED[0].token("RS256", &fixture.claims());
    let (m, i) = ("missing_token", "invalid_authorization");
    let cases: Vec<(&str, &str, Vec<String>)> = vec![
        ("nothing", m, vec![]),
        (
            "Basic",
            m,
            vec![format!("Basic {}", encode("user:password"))],
        ),
        (
            "Hawk",
            m,
            vec!["Hawk id=\"root\", ts=\"1\", nonce=\"n\", mac=\"m\"".into()],
        ),
        ("empty", i, vec![String::new()]),
        ("Bearer and nothing", i, vec!["Bearer".into()]),
        (
            "two tokens in one",
            i,
            vec![format!("Bearer {token} {token}")],
        ),
        (
            "two in a list",
            i,
            vec![format!("Bearer {token}, Bearer {token}")],
        ),
        ("a comma after", i, vec![format!("Bearer {token},")]),
        ("a tab between", i, vec![format!("Bearer\t{token}")]),
        (
            "two headers",
            i,
            vec![format!("Bearer {token}"), format!("Bearer {token}")],
        ),
        (
            "a good one and Basic",
            i,
            vec![format!("Bearer {token}"), "Basic eDp5".into()],
        ),
        ("characters no token has", i, vec!["Bearer a\"b<c>".into()]),
    ];
    for (what, reason, values) in cases {
        let mut request = Request::post("/api/x", "body");
        for value in values {
            request = request.header("Authorization", &value);
        }
        // An invalid header may close the connection, so each case has its own.
        let mut client = Client::connect(fixture.gateway.address()).await;
        let response = client.request(&request).await.unwrap();
        assert_refused(what, reason, &response);
    }
    // Tokens are not taken from the query, the body or cookies.
    let elsewhere = Request::post(&format!("/api/x?access_token={token}"), "body")
        .header("Cookie", &format!("access_token={token}"))
        .header("X-Access-Token", &token);
    assert_refused("elsewhere", m, &fixture.gateway.send(&elsewhere).await);
    assert_eq!(fixture.upstream.attempts().len(), 0);
}
