//! The audit log: which caller was granted which credential on which route, and which was refused.

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::gateway::TestGateway;
use crate::support::standard::{AUDIENCE, MINT, Peers};
use crate::support::wait::until_some;

/// The access token that `PUT /credentials` sets.
const OTHER_KEY: &str = "another-access-token-0123456789-abcdefghijkl";

/// The audit line of the request with this id.
fn line(log: &str, id: &str) -> Option<Value> {
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| line.contains(id))
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["target"] == "audit" && line["request_id"] == id)
        .collect();
    assert!(
        lines.len() <= 1,
        "several lines for one request: {lines:#?}"
    );
    lines.into_iter().next()
}

fn sections(issuer: &str, root_url: &str, audit: bool) -> String {
    format!(
        r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]
{MINT}
[[source]]
name = "fixed"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
credentials_update = true
[[route]]
name = "api"
path = "/api/"
upstream = "{root_url}"
issuers = ["idp"]
source = "mint"
bewit = true
[[route]]
name = "fixed"
path = "/fixed/"
upstream = "{root_url}"
source = "fixed"
anonymous = true
[[route]]
name = "plain"
path = "/plain/"
upstream = "{root_url}"
anonymous = true
[[rule]]
name = "banned"
when = 'claims.sub == "mallory"'
effect = "deny"
routes = ["api"]
[[rule]]
name = "everyone"
when = 'true'
scopes = ["test:a", "test:b"]
routes = ["api"]
[login]
source = "mint"
issuers = ["idp"]
require_scopes = []
[log]
audit = {audit}
"#
    )
}

#[tokio::test]
async fn the_audit_log_records_every_credential_granted_or_refused() {
    let Peers {
        provider,
        taskcluster,
    } = Peers::start().await;
    let gateway = TestGateway::start(&sections(provider.issuer(), taskcluster.url(), true)).await;
    let quiet = TestGateway::start(&sections(provider.issuer(), taskcluster.url(), false)).await;
    let alice = provider.user_token("RS256", "alice", AUDIENCE).await;
    let mallory = provider.user_token("RS256", "mallory", AUDIENCE).await;
    let url = format!("{}/api/x", taskcluster.url());
    let login = "/api/login/v1/oidc-credentials/idp";
    let named = |id: &str, request: Request| request.header("x-request-id", id);
    let mut statuses = Vec::new();
    for (id, request) in [
        (
            "audit-granted",
            Request::get("/api/x?q=the-query").bearer(&alice),
        ),
        ("audit-denied", Request::get("/api/x").bearer(&mallory)),
        (
            "audit-forged",
            Request::get("/api/x").bearer("no.real.token"),
        ),
        ("audit-anonymous", Request::get("/api/x")),
        ("audit-fixed", Request::get("/fixed/x")),
        ("audit-plain", Request::get("/plain/x")),
        ("audit-nowhere", Request::get("/nowhere")),
        ("audit-bewit", Request::post("/bewit", url).bearer(&alice)),
        ("audit-login", Request::get(login).bearer(&alice)),
        (
            "audit-login-refused",
            Request::get(login).bearer("no.real.token"),
        ),
        ("audit-preflight", Request::new("OPTIONS", login)),
    ] {
        statuses.push(gateway.send(&named(id, request)).await.status);
    }
    assert_eq!(statuses[..4], [200, 403, 401, 401]);
    assert_eq!(statuses[7..], [303, 200, 400, 204]);
    let silent = named("audit-quiet", Request::get("/api/x").bearer(&alice));
    assert_eq!(quiet.send(&silent).await.status, 200);
    gateway
        .wait_for_metric("hawkgate_requests_total", &[], 11)
        .await;
    quiet
        .wait_for_metric("hawkgate_requests_total", &[], 1)
        .await;

    let audited = [
        "audit-granted",
        "audit-denied",
        "audit-forged",
        "audit-anonymous",
        "audit-fixed",
        "audit-bewit",
        "audit-login",
        "audit-login-refused",
    ];
    let log = until_some("the audit lines", async || {
        let log = gateway.log();
        let complete = audited.iter().all(|id| line(&log, id).is_some());
        complete.then_some(log)
    })
    .await;
    assert_audit_lines(&log);
}

/// Checks the audit log of the requests above.
fn assert_audit_lines(log: &str) {
    let granted = line(log, "audit-granted").unwrap();
    for (field, value) in [
        ("event", json!("request")),
        ("decision", json!("granted")),
        ("route", json!("api")),
        ("issuer", json!("idp")),
        ("subject", json!("alice")),
        ("rule", json!("everyone")),
        ("source", json!("mint")),
        ("credential", json!("sso/alice")),
        ("scopes", json!("test:a test:b")),
        ("lookup", json!("fetched")),
        ("path", json!("/api/x")),
        ("code", json!(200)),
        ("peer", json!("127.0.0.1")),
    ] {
        assert_eq!(granted[field], value, "{field} of {granted:#}");
    }
    let expected = [
        (
            "audit-denied",
            json!(["request", "refused", "api", "mallory", "rule_denied"]),
        ),
        (
            "audit-forged",
            json!(["request", "refused", "api", null, "token_malformed"]),
        ),
        (
            "audit-anonymous",
            json!(["request", "refused", "api", null, "missing_token"]),
        ),
        (
            "audit-fixed",
            json!(["request", "granted", "fixed", null, null]),
        ),
        (
            "audit-bewit",
            json!(["bewit", "granted", "api", "alice", null]),
        ),
        (
            "audit-login",
            json!(["login", "granted", "login", "alice", null]),
        ),
        (
            "audit-login-refused",
            json!(["login", "refused", "login", null, "login_refused"]),
        ),
    ];
    for (id, expected) in expected {
        let line = line(log, id).unwrap_or_else(|| panic!("no line of {id}"));
        let fields = ["event", "decision", "route", "subject", "reason"].map(|f| line[f].clone());
        assert_eq!(json!(fields), expected, "{id}: {line:#}");
    }
    assert_eq!(line(log, "audit-denied").unwrap()["rule"], "banned");
    assert_eq!(line(log, "audit-fixed").unwrap()["credential"], "root");
    assert_eq!(line(log, "audit-login").unwrap()["credential"], "sso/alice");
    for id in [
        "audit-plain",
        "audit-nowhere",
        "audit-preflight",
        "audit-quiet",
    ] {
        assert_eq!(
            line(log, id),
            None,
            "no credential was involved, or auditing is off"
        );
    }
}

#[tokio::test]
async fn the_audit_log_records_credentials_replaced_through_the_admin_listener() {
    let Peers {
        provider,
        taskcluster,
    } = Peers::start().await;
    let gateway = TestGateway::start(&sections(provider.issuer(), taskcluster.url(), true)).await;
    let mut admin = Client::connect(gateway.admin_address()).await;
    let good = json!({ "clientId": "audit/successor", "accessToken": OTHER_KEY }).to_string();
    let bad = json!({ "clientId": "audit/successor" }).to_string();
    for (body, status) in [(good, 200), (bad, 400)] {
        let put = Request::new("PUT", "/credentials/fixed")
            .body(crate::support::client::Body::Sized(body.into()));
        assert_eq!(admin.request(&put).await.unwrap().status, status);
    }
    let log = gateway.log();
    let audited = |event: &str| {
        let event = format!("\"event\":\"{event}\"");
        let mut lines = log.lines();
        lines.any(|line| line.contains("\"target\":\"audit\"") && line.contains(&event))
    };
    assert!(audited("credentials_replaced") && audited("credentials_refused"));
    assert!(log.contains("audit/successor") && !log.contains(OTHER_KEY));
}
