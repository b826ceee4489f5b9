//! Every response of an OAuth 2.0 endpoint maps to a documented error for the caller and a cause in
//! the log for the operator: one table for each kind of source or issuer that calls one.

use serde_json::{Value, json};

use super::{AUDIENCE, Revoked, api, to};
use crate::support::client::Response;
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::peers::OidcProvider;
use crate::support::secrets::Secrets;
use crate::support::tls::TestCa;
use crate::support::upstream::{FakeUpstream, Latch, Protocol, ReceivedRequest, Reply};
use crate::support::wait::until_some;
use hawkgate::clock::SystemClock;

/// Quoted in every unusual response, where a server might quote a secret.
const QUOTED: &str = "quoted-by-the-server-8d1f07";

type Make = fn(&Latch) -> Reply;

/// Name, response of the endpoint, status and reason for the caller, and a word of the logged cause.
type Row = (&'static str, Make, u16, &'static str, &'static str);

fn as_json(status: u16, body: &Value) -> Reply {
    Reply::new(status, body.to_string()).header("content-type", "application/json")
}

fn error(status: u16, code: &str) -> Reply {
    as_json(
        status,
        &json!({ "error": code, "error_description": QUOTED }),
    )
}

/// A valid token response with changes.
fn token(changes: &Value) -> Reply {
    let mut response = json!({
        "access_token": QUOTED, "token_type": "Bearer", "expires_in": 600,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    });
    for (name, value) in changes.as_object().unwrap() {
        response[name] = value.clone();
    }
    as_json(200, &response)
}

/// Cases common to every source that calls a token endpoint.
const TOKEN_ENDPOINT: &[Row] = &[
    (
        "garbage",
        |_| Reply::new(200, QUOTED).header("content-type", "application/json"),
        502,
        "exchange_failed",
        "shape",
    ),
    (
        "array",
        |_| as_json(200, &json!([QUOTED])),
        502,
        "exchange_failed",
        "shape",
    ),
    (
        "empty",
        |_| as_json(200, &json!({})),
        502,
        "exchange_failed",
        "shape",
    ),
    (
        "html",
        |_| Reply::new(200, QUOTED).header("content-type", "text/html"),
        502,
        "exchange_failed",
        "an HTML page",
    ),
    (
        "huge",
        |_| token(&json!({ "padding": "x".repeat(70_000) })),
        502,
        "exchange_failed",
        "larger than",
    ),
    (
        "long",
        |_| token(&json!({ "access_token": "x".repeat(17_000) })),
        502,
        "credential_too_large",
        "larger than",
    ),
    (
        "bad-token",
        |_| token(&json!({ "access_token": "a b" })),
        502,
        "exchange_failed",
        "characters",
    ),
    (
        "mac",
        |_| token(&json!({ "token_type": "mac" })),
        502,
        "exchange_failed",
        "not Bearer",
    ),
    (
        "na",
        |_| token(&json!({ "token_type": "N_A" })),
        502,
        "exchange_failed",
        "N_A",
    ),
    (
        "over",
        |_| token(&json!({ "expires_in": 0 })),
        502,
        "exchange_failed",
        "expires_in",
    ),
    (
        "past",
        |_| token(&json!({ "expires_in": -60 })),
        502,
        "exchange_failed",
        "expires_in",
    ),
    (
        "slow",
        |latch| token(&json!({})).after(latch),
        503,
        "exchange_unavailable",
        "within 100",
    ),
    (
        "broken",
        |_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
        503,
        "exchange_unavailable",
        "127.0.0.1",
    ),
    (
        "no-http",
        |_| Reply::raw("hello\r\n\r\n"),
        503,
        "exchange_unavailable",
        "127.0.0.1",
    ),
    (
        "redirect",
        |_| Reply::new(307, "").header("location", "/elsewhere"),
        502,
        "exchange_failed",
        "redirect",
    ),
    (
        "nothing",
        |_| Reply::new(204, ""),
        502,
        "exchange_failed",
        "status 204",
    ),
    (
        "bad-client",
        |_| error(401, "invalid_client"),
        503,
        "client_refused",
        "invalid_client",
    ),
    (
        "no-grant",
        |_| error(400, "unauthorized_client"),
        503,
        "client_refused",
        "unauthorized_client",
    ),
    (
        "grant-type",
        |_| error(400, "unsupported_grant_type"),
        503,
        "client_refused",
        "unsupported_grant_type",
    ),
    (
        "gone",
        |_| Reply::new(404, QUOTED),
        502,
        "exchange_failed",
        "status 404",
    ),
    (
        "patience",
        |_| error(429, "slow_down").header("retry-after", "7"),
        503,
        "exchange_unavailable",
        "status 429",
    ),
    (
        "down",
        |_| error(503, "server_error").header("retry-after", "7"),
        503,
        "exchange_unavailable",
        "status 503",
    ),
    (
        "error",
        |_| Reply::new(500, QUOTED),
        503,
        "exchange_unavailable",
        "status 500",
    ),
];

/// Error codes with a different meaning if the request contains the caller's token.
const OWN_CLIENT: &[Row] = &[
    (
        "grant",
        |_| error(400, "invalid_grant"),
        503,
        "client_refused",
        "invalid_grant",
    ),
    (
        "scope",
        |_| error(400, "invalid_scope"),
        503,
        "client_refused",
        "invalid_scope",
    ),
    (
        "denied",
        |_| error(403, "access_denied"),
        503,
        "client_refused",
        "access_denied",
    ),
    (
        "request",
        |_| error(400, "invalid_request"),
        503,
        "client_refused",
        "invalid_request",
    ),
];

const EXCHANGE: &[Row] = &[
    (
        "grant",
        |_| error(400, "invalid_grant"),
        401,
        "token_refused",
        "invalid_grant",
    ),
    (
        "scope",
        |_| error(400, "invalid_scope"),
        403,
        "not_entitled",
        "invalid_scope",
    ),
    (
        "denied",
        |_| error(403, "access_denied"),
        403,
        "not_entitled",
        "access_denied",
    ),
    (
        "target",
        |_| error(400, "invalid_target"),
        403,
        "not_entitled",
        "invalid_target",
    ),
    (
        "request",
        |_| error(400, "invalid_request"),
        401,
        "token_refused",
        "parameters",
    ),
    (
        "type",
        |_| token(&json!({ "issued_token_type": "urn:ietf:params:oauth:token-type:saml2" })),
        502,
        "exchange_failed",
        "not that of an access token",
    ),
    (
        "no-type",
        |_| token(&json!({ "issued_token_type": null })),
        502,
        "exchange_failed",
        "no issued_token_type",
    ),
];

/// Only a valid introspection response admits a caller, or refuses one with a 4xx.
const INTROSPECTION: &[Row] = &[
    (
        "garbage",
        |_| Reply::new(200, QUOTED).header("content-type", "application/json"),
        503,
        "keys_unavailable",
        "a JSON object",
    ),
    (
        "empty",
        |_| as_json(200, &json!({})),
        503,
        "keys_unavailable",
        "no boolean",
    ),
    (
        "text",
        |_| as_json(200, &json!({ "active": "true" })),
        503,
        "keys_unavailable",
        "no boolean",
    ),
    (
        "html",
        |_| Reply::new(200, QUOTED).header("content-type", "text/html"),
        503,
        "keys_unavailable",
        "an HTML page",
    ),
    (
        "huge",
        |_| as_json(200, &json!({ "active": true, "x": "x".repeat(70_000) })),
        503,
        "keys_unavailable",
        "larger than",
    ),
    (
        "slow",
        |latch| as_json(200, &json!({ "active": true })).after(latch),
        503,
        "keys_unavailable",
        "no complete response",
    ),
    (
        "broken",
        |_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
        503,
        "keys_unavailable",
        "127.0.0.1",
    ),
    (
        "redirect",
        |_| Reply::new(302, "").header("location", "/elsewhere"),
        503,
        "keys_unavailable",
        "redirect",
    ),
    (
        "bad-client",
        |_| error(401, "invalid_client"),
        503,
        "client_refused",
        "invalid_client",
    ),
    (
        "forbidden",
        |_| error(403, "access_denied"),
        503,
        "keys_unavailable",
        "access_denied",
    ),
    (
        "gone",
        |_| Reply::new(404, QUOTED),
        503,
        "keys_unavailable",
        "status 404",
    ),
    (
        "patience",
        |_| Reply::new(429, "").header("retry-after", "7"),
        503,
        "keys_unavailable",
        "status 429",
    ),
    (
        "error",
        |_| Reply::new(500, QUOTED),
        503,
        "keys_unavailable",
        "status 500",
    ),
    (
        "inactive",
        |_| as_json(200, &json!({ "active": false })),
        401,
        "token_inactive",
        "not active",
    ),
    (
        "foreign",
        |_| as_json(200, &json!({ "active": true, "sub": "a", "aud": "x" })),
        401,
        "token_audience",
        "audience",
    ),
    (
        "bound",
        |_| {
            as_json(
                200,
                &json!({ "active": true, "sub": "a", "aud": AUDIENCE, "cnf": {} }),
            )
        },
        401,
        "token_bound",
        "bound",
    ),
    (
        "past",
        |_| {
            as_json(
                200,
                &json!({ "active": true, "sub": "a", "aud": AUDIENCE, "exp": 1 }),
            )
        },
        401,
        "token_expired",
        "expired",
    ),
];

/// A server whose response depends only on the path, `/<row>`.
async fn server(rows: Vec<Row>, latch: &Latch) -> FakeUpstream {
    let latch = latch.clone();
    FakeUpstream::http1(move |received: &ReceivedRequest| {
        let name = received.path().trim_start_matches('/');
        let row = rows.iter().find(|row| row.0 == name);
        row.map_or_else(|| Reply::new(418, "no such row"), |row| (row.1)(&latch))
    })
    .await
}

/// The access-log line of the request to this route.
async fn cause(gateway: &TestGateway, route: &str) -> String {
    until_some(&format!("an access-log line of {route}"), async || {
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains(route));
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut own = lines.filter(|line| line["target"] == "access" && line["route"] == route);
        Some(own.next_back()?.to_string())
    })
    .await
}

fn check(kind: &str, row: &Row, response: &Response, logged: &str) {
    let (name, _, status, reason, word) = row;
    assert_eq!(
        response.status_and_reason(),
        (*status, Some(*reason)),
        "{kind} {name}: {logged}"
    );
    assert!(logged.contains(word), "{kind} {name}: {logged}");
    let again = response.header("retry-after").is_some();
    match *status {
        503 => assert!(again, "{kind} {name}"),
        status if status < 500 => assert!(!again, "{kind} {name}"),
        // A bad response may be transient or not, so a 502 may have either.
        _ => {}
    }
    let response_text = format!(
        "{}{}",
        String::from_utf8_lossy(&response.raw_head),
        response.text()
    );
    assert!(
        !response_text.contains(QUOTED) && !response_text.contains("127.0.0.1"),
        "{kind} {name}: {response_text}"
    );
}

async fn assert_nothing_leaked(gateway: &TestGateway, more: &[(&str, &str)]) {
    let secrets = Secrets::default();
    secrets.add("what the server quoted", QUOTED);
    for (name, value) in more {
        secrets.add(name, value);
    }
    secrets.assert_absent("the metrics", &gateway.metrics().await.0);
    secrets.assert_absent(
        "Debug",
        &format!("{:?} {:?}", gateway.running, gateway.running.gateway()),
    );
    secrets.assert_absent("the log", &gateway.log());
}

async fn sources(kind: &str, more: &[Row]) {
    let provider = OidcProvider::start(json!({})).await;
    let api = api(&Revoked::default()).await;
    let latch = Latch::closed();
    let rows: Vec<Row> = TOKEN_ENDPOINT.iter().chain(more).copied().collect();
    let server = server(rows.clone(), &latch).await;
    let files = ConfigDir::new();
    files.write("secret", "tests-only-table-secret-55aa");
    let mut text = format!(
        "{SERVER_CONFIG}[[issuer]]\nname = \"idp\"\nurl = \"{}\"\naudiences = [\"{AUDIENCE}\"]\n",
        provider.issuer()
    );
    for (name, ..) in &rows {
        text += &format!(
            "[[source]]\nname = \"{kind}-{name}\"\nkind = \"{kind}\"\ntoken_url = \"{}/{name}\"\nclient_id = \"c\"\n\
             client_secret = {{ file = \"secret\" }}\ntimeout = \"{}\"\n",
            server.url(),
            if *name == "slow" { "100ms" } else { "10s" },
        );
        text += &format!(
            "[[route]]\nname = \"{kind}-{name}\"\nhost = \"{name}.test\"\nupstream = \"{}\"\nissuers = [\"idp\"]\n\
             source = \"{kind}-{name}\"\n",
            api.url()
        );
    }
    let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
    let caller = provider.user_token("RS256", "alice", AUDIENCE).await;
    for row in &rows {
        let response = gateway.send(&to(row.0, &caller)).await;
        let route = format!("{kind}-{}", row.0);
        gateway
            .wait_for_metric("hawkgate_requests_total", &[("route", &route)], 1)
            .await;
        check(kind, row, &response, &cause(&gateway, &route).await);
        if ["patience", "down"].contains(&row.0) {
            let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=7).contains(&wait), "{kind} {}: {wait}", row.0);
        }
    }
    assert_eq!(api.attempts().len(), 0, "nothing went upstream");
    latch.open();
    assert_nothing_leaked(
        &gateway,
        &[
            ("the secret", "tests-only-table-secret-55aa"),
            ("the caller's token", &caller),
        ],
    )
    .await;
}

#[tokio::test]
async fn every_response_of_a_token_endpoint_to_client_credentials_maps_to_its_error() {
    sources("client-credentials", OWN_CLIENT).await;
}

#[tokio::test]
async fn every_response_of_a_token_endpoint_to_token_exchange_maps_to_its_error() {
    sources("token-exchange", EXCHANGE).await;
}

#[tokio::test]
async fn every_response_of_an_introspection_endpoint_maps_to_its_error() {
    let api = api(&Revoked::default()).await;
    let latch = Latch::closed();
    let server = server(INTROSPECTION.to_vec(), &latch).await;
    let files = ConfigDir::new();
    files.write("secret", "tests-only-table-secret-66bb");
    let mut text = SERVER_CONFIG.to_owned();
    for (name, ..) in INTROSPECTION {
        text += &format!(
            "[[issuer]]\nname = \"introspected-{name}\"\nkind = \"introspection\"\nurl = \"https://{name}.example\"\n\
             introspection_url = \"{}/{name}\"\nclient_id = \"c\"\nclient_secret = {{ file = \"secret\" }}\n\
             audiences = [\"{AUDIENCE}\"]\n",
            server.url()
        );
        text += &format!(
            "[[route]]\nname = \"introspected-{name}\"\nhost = \"{name}.test\"\nupstream = \"{}\"\nissuers = [\"introspected-{name}\"]\n",
            api.url()
        );
    }
    let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
    let opaque = "an-opaque-token-of-a-user-31c9";
    for row in INTROSPECTION {
        let response = gateway.send(&to(row.0, opaque)).await;
        let route = format!("introspected-{}", row.0);
        gateway
            .wait_for_metric("hawkgate_requests_total", &[("route", &route)], 1)
            .await;
        // The cause of a failed introspection is logged in a separate line.
        let log = gateway.log();
        let issuer = format!("\"issuer\":\"introspected-{}\"", row.0);
        let logged: String = log.lines().filter(|line| line.contains(&issuer)).collect();
        check("introspection", row, &response, &logged);
    }
    assert_eq!(api.attempts().len(), 0, "nothing went upstream");
    latch.open();
    assert_nothing_leaked(
        &gateway,
        &[
            ("the secret", "tests-only-table-secret-66bb"),
            ("the token", opaque),
        ],
    )
    .await;
}

/// Untrusted certificates, an endpoint that is down, and a server with clock skew.
#[tokio::test]
async fn an_unreachable_or_untrusted_token_endpoint_is_503() {
    let provider = OidcProvider::start(json!({})).await;
    let api = api(&Revoked::default()).await;
    let ca = TestCa::new();
    let identity = ca.issue(&["127.0.0.1"]);
    let response =
        |_: &ReceivedRequest| token(&json!({})).header("date", "Mon, 06 Nov 2023 10:00:00 GMT");
    let secure = FakeUpstream::start(Protocol::tls(&identity, &["http/1.1"]), response).await;
    let dead = FakeUpstream::http1(response).await;
    dead.down().await;
    let other_ca = TestCa::new();
    let files = ConfigDir::new();
    files.write("secret", "tests-only-table-secret-77cc");
    let mut text = format!(
        "{SERVER_CONFIG}[[issuer]]\nname = \"idp\"\nurl = \"{}\"\naudiences = [\"{AUDIENCE}\"]\n",
        provider.issuer()
    );
    for kind in ["client-credentials", "token-exchange"] {
        for (name, url, ca) in [
            ("trusted", secure.url(), Some(ca.file())),
            ("untrusted", secure.url(), None),
            ("mistrusted", secure.url(), Some(other_ca.file())),
            ("dead", dead.url(), None),
        ] {
            let ca = ca.map_or_else(String::new, |ca| format!("ca = \"{}\"\n", ca.display()));
            text += &format!(
                "[[source]]\nname = \"{kind}-{name}\"\nkind = \"{kind}\"\ntoken_url = \"{url}/token\"\n\
                 client_id = \"c\"\nclient_secret = {{ file = \"secret\" }}\n{ca}"
            );
            text += &format!(
                "[[route]]\nname = \"tls-{kind}-{name}\"\nhost = \"{kind}-{name}.test\"\nupstream = \"{}\"\n\
                 issuers = [\"idp\"]\nsource = \"{kind}-{name}\"\n",
                api.url()
            );
        }
    }
    let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
    let caller = provider.user_token("RS256", "alice", AUDIENCE).await;
    for kind in ["client-credentials", "token-exchange"] {
        for name in ["untrusted", "mistrusted", "dead"] {
            let response = gateway.send(&to(&format!("{kind}-{name}"), &caller)).await;
            assert_eq!(
                response.status_and_reason(),
                (503, Some("exchange_unavailable")),
                "{kind} {name}"
            );
            let route = format!("tls-{kind}-{name}");
            gateway
                .wait_for_metric("hawkgate_requests_total", &[("route", &route)], 1)
                .await;
            let logged = cause(&gateway, &route).await;
            let word = if name == "dead" {
                "refused"
            } else {
                "certificate"
            };
            assert!(logged.contains(word), "{kind} {name}: {logged}");
        }
        // The clocks differ by years, but `expires_in` is relative.
        for _ in 0..3 {
            let response = gateway.send(&to(&format!("{kind}-trusted"), &caller)).await;
            assert_eq!(response.status, 200, "{kind}: {}", response.text());
        }
    }
    assert_eq!(
        secure.attempts().len(),
        2,
        "one for each source, then from the cache"
    );
    assert_nothing_leaked(
        &gateway,
        &[
            ("the secret", "tests-only-table-secret-77cc"),
            ("the caller's token", &caller),
        ],
    )
    .await;
}
