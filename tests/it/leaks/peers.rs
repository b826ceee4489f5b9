//! Peers that repeat what they were sent wherever they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hawkgate::clock::SystemClock;
use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::secrets::Secrets;
use crate::support::standard::MINT;
use crate::support::tokens::{IssuerServer, SHARED, claims, with};
use crate::support::upstream::{FakeUpstream, Reply};

/// The parts of a Hawk header.
fn attribute<'a>(header: &'a str, name: &str) -> &'a str {
    let (_, rest) = header.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

/// An answer that repeats `authorization`, in each form and place that a header section has.
fn echoing(authorization: &str, upgrade: bool) -> Vec<u8> {
    let ext = attribute(authorization, "ext");
    let certificate = String::from_utf8(STANDARD.decode(ext).unwrap()).unwrap();
    let mac = attribute(authorization, "mac");
    let percent: String = mac.bytes().map(|b| format!("%{b:02x}")).collect();
    let fields = format!(
        "X-Whole: {authorization}\r\nX-Mac: {mac}\r\nX-Ext: {ext}\r\nX-Certificate: {certificate}\r\n\
         X-Encoded: {}\r\nX-Percent: {percent}\r\nX-Url-Safe: {}\r\nLocation: https://x.example/?a={}\r\n\
         Set-Cookie: a={mac}; Path=/\r\nX-Nested: {}\r\nX-Kept: yes\r\n",
        STANDARD.encode(authorization),
        mac.replace('+', "-")
            .replace('/', "_")
            .trim_end_matches('='),
        mac.replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D"),
        STANDARD.encode(percent.as_bytes()),
    );
    let name: String = mac.chars().filter(char::is_ascii_alphanumeric).collect();
    let early = format!("HTTP/1.1 103 {mac}\r\nLink: <{mac}>\r\nX-Kept: yes\r\n\r\n");
    if upgrade {
        let head = "Connection: upgrade\r\nUpgrade: websocket\r\n";
        return format!("HTTP/1.1 101 {mac}\r\n{head}{fields}\r\n").into_bytes();
    }
    format!(
        "{early}HTTP/1.1 200 {mac}\r\n{fields}X-{name}: 1\r\nTrailer: x-t\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: {mac}\r\nX-U: {ext}\r\nX-Kept: yes\r\n\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn nothing_of_a_signature_comes_back_from_an_upstream() {
    let issuer = IssuerServer::start(&[&SHARED[3]]).await;
    let secrets = Arc::new(Secrets::default());
    let seen = Arc::clone(&secrets);
    let upstream = FakeUpstream::http1(move |received| {
        let authorization = received.header("authorization").unwrap();
        let ext = attribute(authorization, "ext");
        let sent: Value = serde_json::from_slice(&STANDARD.decode(ext).unwrap()).unwrap();
        seen.add("the MAC", attribute(authorization, "mac"));
        seen.add("ext", ext);
        for part in ["seed", "signature"] {
            seen.add(part, sent["certificate"][part].as_str().unwrap());
        }
        let upgrade = received.header("upgrade").is_some();
        Reply::raw(echoing(authorization, upgrade))
    })
    .await;
    let config = format!(
        "{MINT}\n[[issuer]]\nname = \"idp\"\nurl = \"{}\"\naudiences = [\"api\"]\n\
         [[route]]\nname = \"api\"\nupstream = \"{}\"\nissuers = [\"idp\"]\nsource = \"mint\"\n",
        issuer.issuer(),
        upstream.url(),
    );
    let gateway = TestGateway::start(&config).await;
    let now = SystemClock::shared().now().as_secs();
    let token = SHARED[3].token("EdDSA", &claims(&issuer.issuer(), "api", now));
    let websocket = Request::get("/x")
        .header("Connection", "upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
    for request in [Request::get("/x"), Request::post("/x", "body"), websocket] {
        let request = request.bearer(&token);
        let mut client = gateway.client().await;
        let mut sent = request.head();
        if request.method == "POST" {
            sent.extend_from_slice(b"body");
        }
        client.send(&sent).await.unwrap();
        let mut answer = Vec::new();
        let upgrade = request.head().windows(9).any(|part| part == b"websocket");
        while let Some(piece) = client.raw().await.unwrap() {
            answer.extend_from_slice(&piece);
            let last = upgrade || answer.windows(5).any(|part| part == b"\r\n0\r\n");
            if last && answer.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.to_ascii_lowercase().contains("x-kept: yes"), "{text}");
        secrets.assert_absent(&format!("the answer to {}", request.method), &text);
        let lower = text.to_ascii_lowercase();
        for name in [
            "x-whole",
            "x-mac",
            "x-ext",
            "x-certificate",
            "x-encoded",
            "x-url-safe",
            "location",
        ] {
            assert!(!lower.contains(&format!("{name}:")), "{name} in {text}");
        }
    }
    assert!(!secrets.is_empty());
    secrets.assert_absent("the log", &gateway.log());
}

/// An answer that repeats `secret`: number `form` of [`FORMS`].
/// `bearer` and `opaque` are what the request itself contains; names are always logged, so only those can
/// be told from a name.
fn repeating(form: usize, secret: &str, bearer: &str, opaque: &str) -> Reply {
    let json = |status, body: Value| {
        Reply::new(status, body.to_string()).header("content-type", "application/json")
    };
    let body = json!({
        "error": secret, "error_description": secret, "error_uri": secret, "code": secret,
        "name": secret, "message": secret, "mfa_token": secret, "sub": secret,
    });
    match form {
        0 => Reply::raw(format!(
            "HTTP/1.1 500 {secret}\r\nContent-Length: 0\r\n\r\n"
        )),
        1 => json(400, body),
        2 => json(401, body).header("www-authenticate", &format!("Bearer error=\"{secret}\"")),
        3 => json(503, body).header("retry-after", secret),
        4 => Reply::new(200, format!("<html>{secret}</html>")).header("content-type", "text/html"),
        5 => Reply::new(302, "").header("location", &format!("https://x.example/{secret}")),
        6 => Reply::raw(format!("SSH-2.0 {secret}\r\n\r\n")),
        7 => Reply::raw(format!("HTTP/1.1 200 OK\r\nBad {secret}\r\n\r\n")),
        8 => json(
            200,
            json!({
                "expires": secret, "credentials": { "clientId": secret, "accessToken": 7 },
                "access_token": 7, "token_type": secret, "expires_in": secret, "active": secret,
            }),
        ),
        9 => json(
            200,
            json!({
                "expires": "2999-01-01T00:00:00Z",
                "credentials": { "clientId": bearer, "accessToken": "x".repeat(44) },
                "access_token": "an-access-token", "token_type": secret, "scope": secret,
                "active": true, "sub": opaque, "client_id": opaque, "exp": 9_999_999_999_u64,
            }),
        ),
        10 => json(200, json!(secret)).header("content-type", secret),
        11 => Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n"
        )),
        _ => Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {secret}\r\n\r\n"
        )),
    }
}

const FORMS: usize = 13;

/// Routes whose exchange, introspection endpoint and upstream are the same peer.
fn configuration(issuer: &str, peer_url: &str) -> String {
    format!(
        r#"{SERVER_CONFIG}
[log]
audit = true
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["api"]
[[issuer]]
name = "opaque"
kind = "introspection"
url = "{peer_url}"
introspection_url = "{peer_url}/introspect"
client_id = "hawkgate"
client_secret = {{ file = "secret" }}
audiences = ["api"]
[[source]]
name = "login"
kind = "taskcluster-login"
url = "{peer_url}/login"
[[source]]
name = "exchange"
kind = "token-exchange"
token_url = "{peer_url}/token"
client_id = "hawkgate"
client_secret = {{ file = "secret" }}
[[route]]
name = "login"
host = "login.test"
upstream = "{peer_url}"
issuers = ["idp"]
source = "login"
[[route]]
name = "exchange"
host = "exchange.test"
upstream = "{peer_url}"
issuers = ["idp", "opaque"]
source = "exchange"
"#,
    )
}

#[tokio::test]
async fn nothing_that_a_peer_repeats_is_logged_or_passed_on() {
    let issuer = IssuerServer::start(&[&SHARED[3]]).await;
    let now = SystemClock::shared().now().as_secs();
    let token = |sub: &str| {
        let own = with(
            &claims(&issuer.issuer(), "api", now),
            &json!({ "sub": sub }),
        );
        SHARED[3].token("EdDSA", &own)
    };
    // The last has the shape of an OAuth error code.
    let client_secret = "correct_horse_battery_staple";
    let opaque = "opaque-Token-0f3a9c7e51d0e2";
    let caller = token("user");
    let form = Arc::new(AtomicUsize::new(0));
    let chosen = Arc::new(AtomicUsize::new(0));
    let repeated = [caller.clone(), opaque.to_owned(), client_secret.to_owned()];
    let peer = {
        let (form, chosen) = (Arc::clone(&form), Arc::clone(&chosen));
        FakeUpstream::http1(move |received| {
            let bearer = received.header("authorization").unwrap_or_default();
            let bearer = bearer.trim_start_matches("Bearer ");
            let secret = &repeated[chosen.load(Ordering::SeqCst)];
            repeating(form.load(Ordering::SeqCst), secret, bearer, &repeated[1])
        })
        .await
    };
    let config = configuration(&issuer.issuer(), &peer.url());
    let secrets = Secrets::default();
    secrets.token("the caller's token", &caller);
    secrets.add("the opaque token", opaque);
    secrets.add("the client's secret", client_secret);
    for at in 0..FORMS {
        for secret in 0..3 {
            form.store(at, Ordering::SeqCst);
            chosen.store(secret, Ordering::SeqCst);
            let files = ConfigDir::new();
            files.write("secret", client_secret);
            // Each time a new one, because it would back off.
            let gateway = TestGateway::start_with(&config, files, SystemClock::shared()).await;
            for (host, bearer) in [
                ("login.test", caller.as_str()),
                ("exchange.test", caller.as_str()),
                ("exchange.test", opaque),
            ] {
                let mut request = Request::get("/x").bearer(bearer);
                request.authority = host.into();
                let mut client = Client::connect(gateway.address()).await;
                let response = client.request(&request).await;
                // Only what the exchange answers is looked at, not what the upstream does.
                if let Ok(response) = response
                    && response.error_reason().is_some()
                {
                    let head = String::from_utf8_lossy(&response.raw_head);
                    let text = format!("{head}{}", response.text());
                    secrets.assert_absent(&format!("form {at}, {secret}: an answer"), &text);
                }
            }
            let place = format!("form {at}, {secret}: the log");
            secrets.assert_absent(&place, &gateway.log());
            let metrics = gateway.metrics().await.0;
            secrets.assert_absent(&format!("form {at}: the metrics"), &metrics);
        }
    }
}
