//! Compatibility with taskcluster-proxy, against a Taskcluster that verifies Hawk.

mod command;
mod workers;

use serde_json::json;

use crate::support::client::{Body, Client, Request, Response};
use crate::support::gateway::{ConfigDir, ROOT_KEY, SERVER_CONFIG, TestGateway};
use crate::support::peers::Taskcluster;
use crate::support::secrets::Secrets;
use crate::support::standard::MINT;
use crate::support::upstream::{FakeUpstream, Reply};
use crate::support::wait::within;

use hawkgate::clock::SystemClock;

const OTHER_KEY: &str = "tests-only-access-token-of-the-task-0123456789";

async fn taskcluster() -> Taskcluster {
    Taskcluster::start(json!({ "clients": {
        "root": { "accessToken": ROOT_KEY, "scopes": ["test:*", "auth:create-client:*"] },
        "task": { "accessToken": OTHER_KEY, "scopes": ["test:*"] },
    } }))
    .await
}

fn sections(root_url: &str, source: &str) -> String {
    format!(
        r#"
[[source]]
name = "task"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
credentials_update = true
{source}
[[route]]
name = "taskcluster"
path = "/"
upstream = "{root_url}"
source = "task"
anonymous = true
shortcut = true
bewit = true
taskcluster_headers = true
"#
    )
}

async fn put(gateway: &TestGateway, path: &str, body: impl Into<bytes::Bytes>) -> Response {
    let mut client = Client::connect(gateway.admin_address()).await;
    let request = Request::new("PUT", path).body(Body::Sized(body.into()));
    client.request(&request).await.unwrap()
}

fn credentials(client: &str, key: &str) -> String {
    json!({ "clientId": client, "accessToken": key, "certificate": "" }).to_string()
}

/// A GET of a URL of the deployment by a client without credentials.
fn opening(taskcluster: &Taskcluster, target: &str) -> Request {
    let mut request = Request::get(target);
    request.authority = taskcluster.url().replace("http://", "");
    request
}

#[tokio::test]
async fn short_and_full_paths_are_signed_as_forwarded() {
    let taskcluster = taskcluster().await;
    let gateway = TestGateway::start(&sections(taskcluster.url(), "")).await;
    for (target, sent) in [
        ("/queue/v1/task/a%2Fb?c=d", "/api/queue/v1/task/a%2Fb?c=d"),
        (
            "/api/queue/v1/task/a%2Fb?c=d",
            "/api/queue/v1/task/a%2Fb?c=d",
        ),
        ("/queue/v1//", "/api/queue/v1//"),
    ] {
        for method in ["GET", "POST"] {
            let mut request = Request::new(method, target);
            if method == "POST" {
                request = request.body(Body::Chunked("{}".into(), 1));
            }
            let response = gateway.send(&request).await;
            assert_eq!(response.status, 200, "{target} {}", response.text());
            assert_eq!(response.json()["url"], sent);
            assert_eq!(response.json()["clientId"], "root");
            let endpoint = format!("{}{sent}", taskcluster.url());
            assert_eq!(
                response.header("x-taskcluster-endpoint"),
                Some(endpoint.as_str())
            );
        }
    }
    // Not a short path: forwarded as it is, and the deployment has no such path.
    assert_eq!(
        gateway.send(&Request::get("/queue/latest/x")).await.status,
        404
    );
}

#[tokio::test]
async fn a_401_on_a_short_path_is_recovered_by_a_replay() {
    let taskcluster = taskcluster().await;
    let gateway = TestGateway::start(&sections(taskcluster.url(), "")).await;
    let request = Request::post("/queue/v1/task", "{\"a\":1}");
    assert_eq!(gateway.send(&request).await.status, 200);
    taskcluster
        .control(
            "client",
            json!({ "clientId": "root", "accessToken": OTHER_KEY }),
        )
        .await;
    gateway.files.write("access-token", OTHER_KEY);
    let response = gateway.send(&request).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["url"], "/api/queue/v1/task");
}

#[tokio::test]
async fn a_bewit_authorizes_its_url_for_anyone() {
    let taskcluster = taskcluster().await;
    let gateway = TestGateway::start(&sections(taskcluster.url(), "")).await;
    let secrets = Secrets::default();
    for path in ["/api/test/v1/x", "/api/queue/v1/artifact/a%2Fb?c=d"] {
        let url = format!("{}{path}", taskcluster.url());
        let request = Request::post("/bewit", format!("{url}\n"));
        let response = gateway.send(&request).await;
        assert_eq!(response.status, 303, "{}", response.text());
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let signed = response.header("location").unwrap().to_owned();
        assert_eq!(response.text(), signed);
        assert!(signed.starts_with(&url), "{signed}");
        secrets.add("a bewit", signed.split_once("bewit=").unwrap().1);
        let target = signed.strip_prefix(taskcluster.url()).unwrap();
        // Directly to the service, and through hawkgate, which does not sign it again.
        for address in [taskcluster.0.address(), gateway.address().clone()] {
            let mut client = Client::connect(&address).await;
            let opened = client.request(&opening(&taskcluster, target)).await;
            let opened = opened.unwrap();
            assert_eq!(opened.status, 200, "{}", opened.text());
            assert_eq!(opened.json()["clientId"], "root");
        }
        let changed = opening(&taskcluster, &target.replace("v1", "v2"));
        let mut client = Client::connect(&taskcluster.0.address()).await;
        assert_eq!(client.request(&changed).await.unwrap().status, 401);
    }
    secrets.assert_absent("the log", &gateway.log());
}

/// The listeners of [`TestGateway`], the second of them with HTTP/2.
async fn gateway_with_http2(taskcluster: &Taskcluster) -> TestGateway {
    let server = SERVER_CONFIG.replace(
        "[\"127.0.0.1:0\"]",
        "[\"127.0.0.1:0\", { address = \"127.0.0.1:0\", h2c = true }]",
    );
    let text = format!("{server}{}", sections(taskcluster.url(), ""));
    TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await
}

#[tokio::test]
async fn bewits_are_issued_over_http2() {
    let taskcluster = taskcluster().await;
    let gateway = gateway_with_http2(&taskcluster).await;
    let client = gateway.http2(1).await;
    let url = format!("{}/api/x", taskcluster.url());
    for (body, status) in [(url.clone(), 303), ("x".repeat(9000), 413), (url, 303)] {
        let request = Request::new("POST", "/bewit").body(Body::Chunked(body.into(), 1000));
        let response = client.request(&request).await.unwrap();
        assert_eq!(response.status, status, "{}", response.text());
    }
}

#[tokio::test]
async fn callers_of_the_bewit_endpoint_may_wait_for_a_100_continue() {
    let taskcluster = taskcluster().await;
    let gateway = gateway_with_http2(&taskcluster).await;
    let http2 = gateway.http2(1).await;
    let url = format!("{}/api/x", taskcluster.url());
    let sized = |body: &str| Body::Sized(body.to_owned().into());
    for (method, body, status, interim) in [
        (
            "POST",
            Body::Chunked(url.clone().into(), 10),
            303,
            &[100][..],
        ),
        ("POST", sized(&url), 303, &[100]),
        // What is refused by its head is not asked for.
        ("POST", sized(&"x".repeat(9000)), 413, &[]),
        ("PUT", sized(&url), 405, &[]),
        ("POST", Body::None, 400, &[]),
    ] {
        let request = Request::new(method, "/bewit").body(body).expect();
        let one = gateway.send(&request).await;
        let two = http2.request(&request).await.unwrap();
        for response in [one, two] {
            let found = (response.status, &response.interim[..]);
            assert_eq!(found, (status, interim), "{}", response.text());
        }
    }
}

#[tokio::test]
async fn bewits_are_issued_only_for_urls_of_the_route() {
    let taskcluster = taskcluster().await;
    let gateway = TestGateway::start(&sections(taskcluster.url(), "")).await;
    let own = format!("{}/api/x", taskcluster.url());
    let long = format!("{own}?{}", "x".repeat(8200));
    for (body, status, reason) in [
        ("", 400, "bad_request"),
        ("not a url", 400, "bad_request"),
        ("/api/x", 400, "bad_request"),
        (&format!("{own}#x"), 400, "bad_request"),
        (&format!("{own}?bewit=abc"), 400, "bad_request"),
        (&format!("{}/a/../x", taskcluster.url()), 400, "bad_request"),
        ("https://evil.example/api/x", 403, "bewit_refused"),
        (&own.replace("http://", "https://"), 403, "bewit_refused"),
        (&long, 413, "body_too_large"),
        (&format!("{own}?{}", "x".repeat(4200)), 414, "url_too_long"),
    ] {
        for framing in [
            Body::Sized(body.to_owned().into()),
            Body::Chunked(body.to_owned().into(), 1000),
        ] {
            let request = Request::new("POST", "/bewit").body(framing);
            let response = gateway.send(&request).await;
            let actual = response.status_and_reason();
            assert_eq!(actual, (status, Some(reason)), "{body:.60}");
            assert!(!response.text().contains("evil"));
        }
    }
    let binary = Request::new("POST", "/bewit").body(Body::Sized(vec![0xff, 0xfe].into()));
    assert_eq!(gateway.send(&binary).await.status, 400);
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        let response = gateway.send(&Request::new(method, "/bewit")).await;
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("POST"));
    }
    let expecting = Request::post("/bewit", own.clone()).expect();
    assert_eq!(gateway.send(&expecting).await.status, 303);
    // The connection stays open after each of these.
    let mut client = gateway.client().await;
    for status in [303, 400, 303] {
        let body = if status == 303 {
            own.as_str()
        } else {
            "nonsense"
        };
        let response = client
            .request(&Request::post("/bewit", body.to_owned()))
            .await;
        assert_eq!(response.unwrap().status, status);
    }
}

#[tokio::test]
async fn bewits_of_a_route_with_issuers_require_a_token() {
    let taskcluster = taskcluster().await;
    let (root_url, provider) = (
        taskcluster.url(),
        crate::support::peers::OidcProvider::start(json!({})).await,
    );
    let gateway = TestGateway::start(&format!(
        r#"
[[issuer]]
name = "idp"
url = "{}"
audiences = ["api"]
{MINT}
[[route]]
name = "tc"
path = "/api/"
upstream = "{root_url}"
issuers = ["idp"]
source = "mint"
require_scopes = ["read"]
bewit = true
"#,
        provider.issuer()
    ))
    .await;
    let request = Request::post("/bewit", format!("{root_url}/api/x"));
    let response = gateway.send(&request).await;
    assert_eq!(response.error_reason(), Some("missing_token"));
    let token = provider.user_token("ES256", "user|1", "api").await;
    let response = gateway.send(&request.clone().bearer(&token)).await;
    assert_eq!(response.status, 303, "{}", response.text());
    let signed = response.text();
    let target = signed.strip_prefix(root_url).unwrap();
    let mut client = Client::connect(&taskcluster.0.address()).await;
    let opened = client.request(&opening(&taskcluster, target)).await;
    assert_eq!(opened.unwrap().json()["clientId"], "sso/user|1");
}

#[tokio::test]
async fn credentials_can_be_replaced_at_run_time() {
    let taskcluster = taskcluster().await;
    let gateway = TestGateway::start(&sections(taskcluster.url(), "")).await;
    let request = Request::get("/api/x");
    assert_eq!(gateway.send(&request).await.json()["clientId"], "root");
    // A request in flight keeps the old credentials and does not block the update.
    let polling = Request::get("/api/test/v1/poll");
    let mut poller = gateway.client().await;
    poller.send(&polling.head()).await.unwrap();
    within(
        "the long poll to arrive",
        taskcluster.control("untilWaiting", json!({ "count": 1 })),
    )
    .await;
    let response = put(&gateway, "/credentials", credentials("task", OTHER_KEY)).await;
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    assert_eq!(gateway.send(&request).await.json()["clientId"], "task");
    taskcluster.control("release", json!({})).await;
    let response = poller.response("GET").await.unwrap();
    assert_eq!(response.json()["clientId"], "root");

    let response = put(&gateway, "/credentials/task", credentials("root", ROOT_KEY)).await;
    assert_eq!(response.status, 200);
    assert_eq!(gateway.send(&request).await.json()["clientId"], "root");
    // A 401 to the old credentials is recovered with the new ones, although both have the same
    // generation number.
    taskcluster
        .control("removeClient", json!({ "clientId": "root" }))
        .await;
    put(&gateway, "/credentials", credentials("task", OTHER_KEY)).await;
    assert_eq!(gateway.send(&request).await.json()["clientId"], "task");
    assert!(!format!("{:?}", gateway.running).contains(OTHER_KEY));
    assert!(!gateway.log().contains(OTHER_KEY));
}

#[tokio::test]
async fn temporary_credentials_can_be_replaced_like_taskcluster_workers_do() {
    let taskcluster = taskcluster().await;
    let gateway = TestGateway::start(&sections(
        taskcluster.url(),
        "authorized_scopes = [\"test:x\"]",
    ))
    .await;
    let now = SystemClock::shared().now();
    let hour = std::time::Duration::from_hours(1);
    let minted = hawkgate::hawk::certificate::Mint {
        issuer: "root",
        issuer_token: &ROOT_KEY.into(),
        client_id: "task-client/abc",
        scopes: &["test:*".to_owned()],
        start: now.minus(hour),
        expiry: now.plus(hour),
    }
    .sign()
    .unwrap();
    let body = json!({
        "clientId": minted.client_id,
        "accessToken": minted.access_token.expose(),
        "certificate": minted.certificate.unwrap().as_json(),
    });
    let response = put(&gateway, "/credentials", body.to_string()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let response = gateway.send(&Request::get("/api/x")).await;
    assert_eq!(response.json()["clientId"], "task-client/abc");
    assert_eq!(response.json()["scopes"], json!(["test:x"]));
    assert_eq!(
        response.header("x-taskcluster-proxy-temp-clientid"),
        Some("task-client/abc")
    );
    assert_eq!(
        response.header("x-taskcluster-proxy-temp-scopes"),
        Some("[\"test:*\"]")
    );
    assert_eq!(
        response.header("x-taskcluster-authorized-scopes"),
        Some("[\"test:x\"]")
    );
}

#[tokio::test]
async fn bad_credentials_change_nothing() {
    let taskcluster = taskcluster().await;
    let gateway = TestGateway::start(&sections(taskcluster.url(), "")).await;
    for (path, body, status) in [
        ("/credentials", String::new(), 400),
        ("/credentials", "{".into(), 400),
        ("/credentials", "[]".into(), 400),
        (
            "/credentials",
            json!({ "clientId": "task" }).to_string(),
            400,
        ),
        ("/credentials", credentials("", OTHER_KEY), 400),
        ("/credentials", credentials("task", ""), 400),
        ("/credentials", credentials("a b", OTHER_KEY), 400),
        (
            "/credentials",
            json!({ "clientId": "a", "accessToken": OTHER_KEY, "certificate": {} }).to_string(),
            400,
        ),
        (
            "/credentials",
            json!({ "clientId": "a", "accessToken": OTHER_KEY, "certificate": "{" }).to_string(),
            400,
        ),
        ("/credentials", " ".repeat(65 * 1024), 413),
        ("/credentials/other", credentials("task", OTHER_KEY), 404),
    ] {
        let response = put(&gateway, path, body).await;
        assert_eq!(response.status, status, "{}", response.text());
        assert!(!response.text().contains(OTHER_KEY));
    }
    for method in ["GET", "POST", "DELETE"] {
        let mut client = Client::connect(gateway.admin_address()).await;
        let request = Request::new(method, "/credentials");
        let response = client.request(&request).await.unwrap();
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("PUT"));
    }
    assert_eq!(
        gateway.send(&Request::get("/api/x")).await.json()["clientId"],
        "root"
    );
    // Without `credentials = true` callers' listeners do not have this page, and never forward it.
    let request = Request::new("PUT", "/credentials")
        .body(Body::Sized(credentials("task", OTHER_KEY).into()));
    let response = gateway.send(&request).await;
    assert_eq!(response.status_and_reason(), (404, Some("reserved_path")));
    let closed = sections(taskcluster.url(), "").replace("credentials_update = true", "");
    let closed = TestGateway::start(&closed).await;
    let response = put(&closed, "/credentials", credentials("task", OTHER_KEY)).await;
    assert_eq!(response.status, 404);
}

#[tokio::test]
async fn informational_headers_of_the_upstream_are_replaced() {
    let upstream = FakeUpstream::http1(|_| {
        Reply::ok()
            .header("X-Taskcluster-Endpoint", "https://evil.example/")
            .header("X-Taskcluster-Proxy-Perm-ClientId", "evil")
            .header("X-Taskcluster-Proxy-Temp-ClientId", "evil")
            .header("X-Taskcluster-Authorized-Scopes", "[\"*\"]")
            .header("X-Other", "kept")
    })
    .await;
    let gateway = TestGateway::start(&sections(&upstream.url(), "")).await;
    let response = gateway.send(&Request::get("/api/x")).await;
    assert_eq!(response.header("x-other"), Some("kept"));
    let client_ids: Vec<_> = response
        .fields
        .all("x-taskcluster-proxy-perm-clientid")
        .collect();
    assert_eq!(client_ids, ["root"]);
    assert_eq!(
        response.header("x-taskcluster-proxy-version"),
        Some(hawkgate::VERSION)
    );
    assert!(!String::from_utf8_lossy(&response.raw_head).contains("evil"));
    // Without `taskcluster_headers` the upstream's are passed on.
    let silent = sections(&upstream.url(), "").replace("taskcluster_headers = true", "");
    let silent = TestGateway::start(&silent).await;
    let response = silent.send(&Request::get("/api/x")).await;
    let endpoint = response.header("x-taskcluster-endpoint");
    assert_eq!(endpoint, Some("https://evil.example/"));
}

#[tokio::test]
async fn listeners_serve_only_allowed_users_and_networks() {
    let taskcluster = taskcluster().await;
    let own = rustix::process::getuid().as_raw();
    let files = ConfigDir::new();
    let socket = files.path("gate.sock");
    let text = SERVER_CONFIG.replace(
        "[\"127.0.0.1:0\"]",
        &format!(
            r#"[{{ address = "127.0.0.1:0", allowed_users = ["{own}"], allowed_networks = ["127.0.0.0/8"] }},
               {{ address = "127.0.0.1:0", allowed_users = ["4000000000"] }},
               {{ address = "127.0.0.1:0", allowed_networks = ["10.0.0.0/8"] }},
               {{ address = "unix:{0}", allowed_users = ["{own}"] }},
               {{ address = "unix:{0}2", allowed_users = ["4000000000"] }}]"#,
            socket.display()
        ),
    );
    let text = format!("{text}{}", sections(taskcluster.url(), ""));
    let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
    for (index, served) in [true, false, false, true, false].into_iter().enumerate() {
        let mut client = Client::connect(&gateway.running.listeners[index]).await;
        if served {
            let response = client.request(&Request::get("/api/x")).await.unwrap();
            assert_eq!(response.json()["clientId"], "root", "{index}");
        } else {
            // Refused before a request was sent.
            let response = client.response("GET").await.unwrap();
            assert_eq!(response.error_reason(), Some("peer_not_allowed"), "{index}");
            assert_eq!(response.status, 403);
        }
    }
    let refused = [("reason", "peer_not_allowed")];
    gateway
        .wait_for_metric("hawkgate_rejections_total", &refused, 3)
        .await;
}
