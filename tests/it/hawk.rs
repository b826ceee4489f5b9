//! hawkgate's signatures, checked by the npm package `hawk`, which Taskcluster uses, and an independent
//! implementation of Taskcluster's rules: `tests/peers/hawk-check.js`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use hawkgate::clock::UnixMillis;
use hawkgate::hawk::bewit::{BewitRequest, has_bewit};
use hawkgate::hawk::certificate::Mint;
use hawkgate::hawk::{Certificate, Credentials, SignedRequest, Signer, nonce, service_port};
use hawkgate::secret::SecretString;
use serde_json::{Value, json};

const NOW: UnixMillis = UnixMillis(1_795_201_809_000);
const KEY: &str = "issuing-client-access-token";
const MINUTE: i64 = 60_000;
const TWO_SCHEMES: &str = "two authentication schemes: a bewit and a header";
const DAY: i64 = 24 * 60 * MINUTE;

/// `tests/peers/hawk-verify.js`, which checks one request at a time.
struct Checker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Checker {
    fn start() -> Self {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        assert!(
            peers.join("node_modules/hawk").is_dir(),
            "run `npm ci` in tests/peers first (./test does)"
        );
        let mut child = Command::new("node")
            .arg("hawk-verify.js")
            .current_dir(&peers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    fn check(&mut self, request: &Request) -> Value {
        let mut headers = json!({ "host": request.host });
        let optional = [
            ("authorization", &request.authorization),
            ("x-forwarded-port", &request.forwarded_port),
            ("x-forwarded-proto", &request.forwarded_proto),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                headers[name] = json!(value);
            }
        }
        let line = json!({
            "now": NOW.0,
            "method": request.method,
            "url": request.target,
            "headers": headers,
            "clients": {
                "issuer": { "accessToken": KEY, "scopes": ["queue:*", "auth:create-client:sso/*"] },
                "other": { "accessToken": "another key", "scopes": ["*"] },
            },
        });
        writeln!(self.input, "{line}").unwrap();
        let mut result = String::new();
        self.output.read_line(&mut result).unwrap();
        serde_json::from_str(&result).unwrap()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request as the service receives it.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    target: String,
    host: String,
    forwarded_port: Option<String>,
    forwarded_proto: Option<String>,
    authorization: Option<String>,
}

impl Request {
    fn new(method: &str, target: &str, host: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            host: host.into(),
            forwarded_port: None,
            forwarded_proto: None,
            authorization: None,
        }
    }

    fn get(target: &str) -> Self {
        Self::new("GET", target, "tc.example.com")
    }

    fn forwarded(mut self, port: Option<&str>, proto: Option<&str>) -> Self {
        self.forwarded_port = port.map(Into::into);
        self.forwarded_proto = proto.map(Into::into);
        self
    }

    fn port(&self) -> u16 {
        service_port(
            self.forwarded_port.as_deref(),
            self.forwarded_proto.as_deref(),
            &self.host,
        )
        .unwrap()
    }

    fn signed(self, credentials: &Credentials) -> Self {
        self.signed_at(credentials, NOW)
    }

    fn signed_at(mut self, credentials: &Credentials, at: UnixMillis) -> Self {
        let header = Signer::new(credentials)
            .unwrap()
            .authorization(&SignedRequest {
                at,
                nonce: &nonce(),
                method: &self.method,
                target: &self.target,
                host: self.host.split(':').next().unwrap(),
                port: self.port(),
                payload_hash: None,
            })
            .unwrap();
        self.authorization = Some(header);
        self
    }

    fn with_bewit(mut self, credentials: &Credentials, expires: UnixMillis) -> Self {
        self.target = Signer::new(credentials)
            .unwrap()
            .with_bewit(&BewitRequest {
                target: &self.target,
                host: &self.host,
                port: self.port(),
                expires,
            })
            .unwrap();
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn permanent() -> Credentials {
    Credentials {
        client_id: "issuer".into(),
        access_token: SecretString::from(KEY),
        certificate: None,
        authorized_scopes: None,
    }
}

fn narrowed(to: &[&str]) -> Credentials {
    Credentials {
        authorized_scopes: Some(to.iter().map(ToString::to_string).collect()),
        ..permanent()
    }
}

fn minted(name: &str, scopes: &[&str], start: i64, expiry: i64) -> Credentials {
    let scopes: Vec<_> = scopes.iter().map(ToString::to_string).collect();
    Mint {
        issuer: "issuer",
        issuer_token: &SecretString::from(KEY),
        client_id: name,
        scopes: &scopes,
        start: NOW.offset_by(start),
        expiry: NOW.offset_by(expiry),
    }
    .sign()
    .unwrap()
}

/// Credentials with one member of the certificate changed.
fn tampered(member: &str, value: Value) -> Credentials {
    let made = minted("sso/me", &["queue:a"], -MINUTE, DAY);
    let mut certificate: Value =
        serde_json::from_str(made.certificate.as_ref().unwrap().as_json()).unwrap();
    certificate[member] = value;
    Credentials {
        certificate: Some(Certificate::from_value(&certificate).unwrap()),
        ..made
    }
}

fn assert_accepted(result: &Value, client_id: &str, scopes: &[&str]) {
    let expected = json!({ "status": "success", "clientId": client_id, "scopes": scopes });
    assert_eq!(result, &expected);
}

fn assert_refused(result: &Value, message: &str) {
    let expected = json!({ "status": "failed", "message": message });
    assert_eq!(result, &expected);
}

#[test]
fn signatures_of_every_form_of_request_are_accepted() {
    let mut checker = Checker::start();
    let all = ["queue:*", "auth:create-client:sso/*"];
    let methods = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "get", "Post", "M-SEARCH",
    ];
    let targets = [
        "/",
        "//",
        "/?",
        "/a?",
        "/a??b",
        "/a?b=c&d=e",
        "/a/%2F/b",
        "/a%2fb%3Fc",
        "/a//b/../c",
        "/./a",
        "/a%00",
        "/%E2%82%AC?x=%E2%82%AC",
        "/%u20AC",
        "/a?b=%26bewit=x",
        "/a?x=bewit",
        "/a?%62ewit=",
        "/a'(b)*!~;c,d=e+f$g@h:i",
        "/a|b^c`d{e}\"f<g>",
        "/a\\b",
        "/[::1]",
        "/a#b?c",
    ];
    let hosts = [
        "tc.example.com",
        "TC.Example.COM",
        "tc.example.com:8080",
        "tc.example.com:80",
        "127.0.0.1:3",
        "a_b.c-d",
    ];
    let forwarded = [
        (Some("443"), None),
        (Some("8443"), Some("https")),
        (Some("80, 443"), None),
        (Some(" 7x"), None),
        (None, Some("https")),
        (None, Some("http")),
        (None, Some("https, http")),
        (None, Some("HTTPS")),
        (Some("1"), Some("http")),
    ];
    let requests = (methods
        .iter()
        .map(|m| Request::new(m, "/api/x?y=z", "tc.example.com")))
    .chain(targets.iter().map(|t| Request::get(t)))
    .chain(hosts.iter().map(|h| Request::new("GET", "/x", h)))
    .chain(forwarded.iter().map(|(port, proto)| {
        Request::new("PUT", "/x", "tc.example.com:99").forwarded(*port, *proto)
    }));
    let mut count = 0;
    for request in requests {
        let signed = request.clone().signed(&permanent());
        assert_accepted(&checker.check(&signed), "issuer", &all);
        let other = request.signed(&minted("sso/me", &["queue:a"], -MINUTE, DAY));
        assert_accepted(&checker.check(&other), "sso/me", &["queue:a"]);
        count += 2;
    }
    assert!(count >= 80, "{count}");
}

#[test]
fn signatures_with_every_kind_of_credential_are_accepted() {
    let mut checker = Checker::start();
    let long: Vec<_> = (0..40).map(|i| format!("queue:scope-{i:030}")).collect();
    let long: Vec<_> = long.iter().map(String::as_str).collect();
    let table: [(Credentials, &[&str]); 9] = [
        (narrowed(&[]), &[]),
        (narrowed(&["queue:a", "queue:b*"]), &["queue:a", "queue:b*"]),
        (minted("sso/me", &[], -MINUTE, DAY), &[]),
        (minted("sso/me", &long, -MINUTE, DAY), &long),
        (
            minted("sso/a!2Fb|c@d:e.f+g_h-i", &["queue:*"], 0, DAY),
            &["queue:*"],
        ),
        (
            minted("sso/me", &["queue:a b\"c\\d"], 0, DAY),
            &["queue:a b\"c\\d"],
        ),
        (
            minted("sso/me", &["queue:x"], 4 * MINUTE, 5 * MINUTE),
            &["queue:x"],
        ),
        (
            minted("sso/me", &["queue:x"], -DAY, -4 * MINUTE),
            &["queue:x"],
        ),
        (
            minted("sso/me", &["queue:x"], -MINUTE, 31 * DAY - MINUTE),
            &["queue:x"],
        ),
    ];
    for (credentials, scopes) in table {
        let name = credentials.client_id.clone();
        let result = checker.check(&Request::get("/x?y").signed(&credentials));
        assert_accepted(&result, &name, scopes);
    }
    let both = Credentials {
        authorized_scopes: Some(vec!["queue:a:b".into()]),
        ..minted("sso/me", &["queue:a*"], 0, DAY)
    };
    let result = checker.check(&Request::get("/x").signed(&both));
    assert_accepted(&result, "sso/me", &["queue:a:b"]);
}

#[test]
fn a_request_that_differs_from_the_signed_one_is_refused() {
    let mut checker = Checker::start();
    let mac = "Unauthorized: Bad mac";
    let stale = "Unauthorized: Stale timestamp";
    let signed = || Request::new("GET", "/a?b", "tc.example.com:8080").signed(&permanent());
    let header = |from: &str, to: &str| {
        signed().with(|r| {
            let old = r.authorization.take().unwrap();
            let new = old.replacen(from, to, 1);
            assert_ne!(old, new);
            r.authorization = Some(new);
        })
    };
    let at = |minutes| Request::get("/a").signed_at(&permanent(), NOW.offset_by(minutes * MINUTE));
    let elsewhere = "tc2.example.com:8080";
    let bad_ext = "Bad Request: Bad attribute value: ext";
    let unknown = "Client with clientId 'unknown' not found";
    let table = [
        (signed().with(|r| r.method = "HEAD".into()), mac),
        (signed().with(|r| r.target = "/a?c".into()), mac),
        (signed().with(|r| r.target = "/a?b&".into()), mac),
        (signed().with(|r| r.target = "//a?b".into()), mac),
        (signed().with(|r| r.host = "tc.example.com".into()), mac),
        (signed().with(|r| r.host = elsewhere.into()), mac),
        (signed().forwarded(Some("443"), None), mac),
        (signed().forwarded(None, Some("https")), mac),
        (header("ts=\"1", "ts=\"2"), mac),
        (header("nonce=\"", "nonce=\"x"), mac),
        (header("id=\"issuer\"", "id=\"other\""), mac),
        (header("id=\"issuer\"", "id=\"unknown\""), unknown),
        (header("mac=", "ext=\"\", mac="), bad_ext),
        (header("mac=", "ext=\"e30=\", mac="), mac),
        (at(-20), stale),
        (at(20), stale),
        (
            signed().with(|r| r.target = "/a?b&%62ewit=x".into()),
            TWO_SCHEMES,
        ),
    ];
    let junk = signed().forwarded(Some("junk"), None);
    assert_eq!(checker.check(&junk)["status"], "broken");
    for (request, message) in table {
        assert_refused(&checker.check(&request), message);
    }
}

#[test]
fn tampered_credentials_and_certificates_are_refused() {
    let mut checker = Checker::start();
    let other_key = Credentials {
        access_token: SecretString::from("wrong"),
        ..permanent()
    };
    let uncertified = Credentials {
        certificate: None,
        ..minted("sso/me", &[], 0, DAY)
    };
    let renamed = Credentials {
        client_id: "sso/you".into(),
        ..minted("sso/me", &["queue:a"], 0, DAY)
    };
    let forged = "ext.certificate.signature is not valid";
    let table = [
        (other_key, "Unauthorized: Bad mac"),
        (uncertified, "Client with clientId 'sso/me' not found"),
        (renamed, forged),
        (tampered("scopes", json!(["queue:*"])), forged),
        (tampered("expiry", json!(NOW.0 + 2 * DAY)), forged),
        (tampered("start", json!(NOW.0 - 2 * DAY)), forged),
        (tampered("seed", json!("x".repeat(44))), forged),
        (tampered("issuer", json!("other")), forged),
        (
            tampered("issuer", json!("sso/me")),
            "ext.certificate.issuer must differ from the supplied clientId",
        ),
        (
            tampered("version", json!(2)),
            "ext.certificate.version must be 1",
        ),
        (
            narrowed(&["hooks:x"]),
            "Supplied credentials do not satisfy authorizedScopes; the client does not hold them",
        ),
        (
            minted("sso/me", &["hooks:x"], 0, DAY),
            "ext.certificate issuer issuer doesn't satisfy all certificate scopes",
        ),
        (
            minted("ci/me", &[], 0, DAY),
            "ext.certificate issuer issuer doesn't have `auth:create-client:ci/me`",
        ),
        (
            minted("sso/me", &[], 6 * MINUTE, DAY),
            "ext.certificate.start > now",
        ),
        (
            minted("sso/me", &[], -DAY, -6 * MINUTE),
            "ext.certificate.expiry < now",
        ),
    ];
    for (credentials, message) in table {
        let request = Request::get("/a").signed(&credentials);
        assert_refused(&checker.check(&request), message);
    }
}

#[test]
fn bewits_authorize_get_and_head_until_they_expire() {
    let mut checker = Checker::start();
    let soon = NOW.offset_by(MINUTE);
    let all = ["queue:*", "auth:create-client:sso/*"];
    for target in ["/a", "/a?", "/a?b=c", "/a?b=c&d", "//a/%2F?x=%26"] {
        for method in ["GET", "HEAD"] {
            let request = Request::new(method, target, "tc.example.com");
            let open = request.clone().with_bewit(&permanent(), soon);
            assert_accepted(&checker.check(&open), "issuer", &all);
            let named = minted("sso/me", &["queue:a"], 0, DAY);
            let open = request.with_bewit(&named, soon);
            assert_accepted(&checker.check(&open), "sso/me", &["queue:a"]);
        }
    }
    // The rest of the query may follow the bewit.
    let open = Request::get("/a?b=c").with_bewit(&permanent(), soon);
    let moved = open.target.replace("?b=c&", "?") + "&b=c";
    let result = checker.check(&open.clone().with(|r| r.target = moved));
    assert_accepted(&result, "issuer", &all);

    let late = Request::get("/a").with_bewit(&permanent(), NOW.offset_by(-MINUTE));
    let table = [
        (late, "Unauthorized: Access expired"),
        (
            open.clone().with(|r| r.method = "POST".into()),
            "Unauthorized: Invalid method",
        ),
        (
            open.clone()
                .with(|r| r.target = r.target.replace("/a", "/b")),
            "Unauthorized: Bad mac",
        ),
        (
            open.clone().with(|r| r.host = "other.example.com".into()),
            "Unauthorized: Bad mac",
        ),
        (open.signed(&permanent()), TWO_SCHEMES),
    ];
    for (request, message) in table {
        assert_refused(&checker.check(&request), message);
    }
}

/// `has_bewit` is true exactly where the service looks for a bewit: either without `Authorization`, or
/// because together with `Authorization` it reports two schemes.
#[test]
fn a_bewit_is_detected_exactly_where_taskcluster_detects_one() {
    let mut checker = Checker::start();
    let pieces = [
        "?",
        "&",
        "?bewit",
        "&bewit",
        "&%62ewit",
        "?be%77it",
        "bewit=",
        "=",
        "=x",
        "x",
        "%2562ewit",
        "/",
        "%3D",
        "%26",
        "+",
        "BEWIT",
        "%6",
        "&bewi",
        "t",
    ];
    // A linear congruential generator: the same targets in every run.
    let mut state: u64 = 2_026;
    let mut draw = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut targets: Vec<String> = [
        "/a?bewit",
        "/a?bewit=",
        "/a?bewit=x",
        "/a?bewit=x&",
        "/a?bewit=$x",
        "/a&bewit=x",
        "/a?%62ewit=",
        "/a?%62ewit=x",
        "/a?bewit&bewit",
        "/a?%62ewit&%62ewit",
        "/a?b=%26bewit=x",
        "/a?b=c&b%65wit=%00",
        "/a?%62ewit==",
        "/a?&&bewit=",
    ]
    .map(String::from)
    .into();
    targets.extend((0..3000).map(|_| {
        let length = 1 + draw(9);
        let text: String = (0..length).map(|_| pieces[draw(pieces.len())]).collect();
        format!("/{text}")
    }));
    let mut counts = [0, 0];
    for target in targets {
        let unsigned = Request::get(&target);
        let found_alone = checker.check(&unsigned)["status"] != "none";
        let signed = checker.check(&unsigned.signed(&permanent()));
        let found_with_header = signed["message"] == TWO_SCHEMES;
        assert_eq!(
            has_bewit(&target),
            found_alone || found_with_header,
            "{target} {found_alone} {found_with_header}"
        );
        counts[usize::from(found_alone || found_with_header)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}
