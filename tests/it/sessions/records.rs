//! What is recorded about sessions, what their answers allow caches, and the limits on sign-ins.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::gateway::TestGateway;
use crate::support::sessions::{
    COOKIE, HOST, ORIGIN, Options, Site, from_elsewhere, login, navigation, own_fetch,
};
use crate::support::wait::until;

const HOUR: Duration = Duration::from_hours(1);

/// The lines of this target about the request with this id.
fn lines(gateway: &TestGateway, target: &str, id: &str) -> Vec<Value> {
    let log = gateway.log();
    let parsed = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    parsed
        .filter(|line: &Value| line["target"] == target && line["request_id"] == id)
        .collect()
}

/// The only one of these lines. A request is recorded when it ends, which may be shortly after the
/// caller has the response.
async fn line(gateway: &TestGateway, target: &str, id: &str) -> Value {
    let what = format!("a line of {target} about {id}");
    until(&what, async || !lines(gateway, target, id).is_empty()).await;
    let mut found = lines(gateway, target, id);
    assert_eq!(found.len(), 1, "{target} {id}: {found:?}");
    found.remove(0)
}

fn named(request: Request, id: &str) -> Request {
    request.header("X-Request-Id", id)
}

#[tokio::test]
async fn what_happens_to_a_session_is_in_the_audit_log() {
    let site = Site::start(Options {
        sections: "[log]\naudit = true",
        ..Options::default()
    })
    .await;
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/").await;
    let callback = site.provider.sign_in(&authorization, "ada").await;
    let callback = url::Url::parse(&callback).unwrap();
    let target = format!("{}?{}", callback.path(), callback.query().unwrap());
    let response = visitor
        .send(named(from_elsewhere(&target), "audit-session-in"))
        .await;
    assert_eq!(response.status, 303, "{response:?}");
    let signed_in = line(&site.gateway, "audit", "audit-session-in").await;
    assert_eq!(signed_in["event"], "sign_in", "{signed_in}");
    assert_eq!(signed_in["decision"], "granted");
    assert_eq!(signed_in["result"], "ok");
    assert_eq!(signed_in["subject"], "ada");
    assert_eq!(signed_in["session"], "web");
    assert_eq!(signed_in["path"], "/oauth2/callback");
    assert_eq!(signed_in["peer"], "127.0.0.1");
    let id = signed_in["session_id"].as_str().unwrap();
    assert_eq!(id.len(), 16, "{signed_in}");

    // The same callback again is refused.
    let response = visitor
        .send(named(from_elsewhere(&target), "audit-session-again"))
        .await;
    assert_eq!(response.status, 400, "{response:?}");
    let refused = line(&site.gateway, "audit", "audit-session-again").await;
    assert_eq!(refused["event"], "sign_in", "{refused}");
    assert_eq!(refused["decision"], "refused");
    assert_eq!(refused["result"], "unknown_attempt");
    assert_eq!(refused["subject"], Value::Null);

    site.provider.token_lifetime(3 * HOUR).await;
    site.clock.advance(HOUR);
    let response = visitor
        .send(named(own_fetch("GET", "/x"), "audit-session-refresh"))
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let access = line(&site.gateway, "access", "audit-session-refresh").await;
    let refreshed = lines(&site.gateway, "audit", "audit-session-refresh");
    let refreshed: Vec<_> = refreshed
        .iter()
        .filter(|line| line["event"] == "session_refresh")
        .collect();
    assert_eq!(refreshed.len(), 1, "{refreshed:?}");
    assert_eq!(refreshed[0]["decision"], "granted");
    assert_eq!(refreshed[0]["result"], "refreshed");
    assert_eq!(refreshed[0]["subject"], "ada");
    assert_eq!(refreshed[0]["session_id"], id);
    assert_eq!(access["session"], "web", "{access}");
    assert_eq!(access["via"], "cookie");
    assert_eq!(access["issuer"], "idp");

    let response = visitor
        .send(named(
            own_fetch("POST", "/oauth2/logout"),
            "audit-session-out",
        ))
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let signed_out = line(&site.gateway, "audit", "audit-session-out").await;
    assert_eq!(signed_out["event"], "sign_out", "{signed_out}");
    assert_eq!(signed_out["decision"], "ended");
    assert_eq!(signed_out["subject"], "ada");
    assert_eq!(signed_out["session_id"], id);

    let sign_ins = |result| [("session", "web"), ("result", result)];
    let metrics = site.gateway.metrics().await;
    for (result, count) in [("ok", 1.0), ("unknown_attempt", 1.0), ("denied", 0.0)] {
        let found = metrics.sum("hawkgate_sign_ins_total", &sign_ins(result));
        assert!((found - count).abs() < 0.5, "{result}: {found}");
    }
    let renewals = metrics.sum("hawkgate_session_refreshes_total", &sign_ins("refreshed"));
    assert!((renewals - 1.0).abs() < 0.5, "{renewals}");
}

#[tokio::test]
async fn a_back_channel_logout_is_in_the_audit_log() {
    let site = Site::start(Options {
        sections: "[log]\naudit = true",
        ..Options::default()
    })
    .await;
    let mut visitor = site.signed_in("ada").await;
    let sid = site.provider.sid("ada").await;
    let token = site
        .provider
        .logout_token(json!({ "claims": { "sid": sid } }))
        .await;
    let post = |token: &str, id| {
        let mut request = named(
            Request::post(
                "/oauth2/backchannel-logout",
                format!("logout_token={token}"),
            ),
            id,
        );
        HOST.clone_into(&mut request.authority);
        request.header("Content-Type", "application/x-www-form-urlencoded")
    };
    for (token, id, status, decision) in [
        ("not.a.token", "audit-backchannel-junk", 400, "refused"),
        (token.as_str(), "audit-backchannel", 200, "ended"),
    ] {
        let response = site.gateway.send(&post(token, id)).await;
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let audited = line(&site.gateway, "audit", id).await;
        assert_eq!(audited["event"], "back_channel_logout", "{audited}");
        assert_eq!(audited["decision"], decision, "{audited}");
        assert!(!audited.to_string().contains(token), "{audited}");
    }
    assert_eq!(visitor.who().await, None);
}

#[tokio::test]
async fn bearers_and_browsers_share_a_route() {
    let site = Site::start(Options {
        route: "issuers = [\"idp\"]",
        ..Options::default()
    })
    .await;
    let token = site.provider.token("grace").await;
    let request = |id| {
        let mut request = named(Request::get("/x"), id);
        HOST.clone_into(&mut request.authority);
        request
    };
    let bearer = site
        .gateway
        .send(&request("records-bearer").bearer(&token))
        .await;
    assert_eq!(bearer.status, 200, "{bearer:?}");
    assert_eq!(bearer.header("cache-control"), None, "{bearer:?}");
    let access = line(&site.gateway, "access", "records-bearer").await;
    assert_eq!(access["session"], Value::Null, "{access}");
    assert_eq!(access["via"], Value::Null, "{access}");
    // A bearer wins, whatever the cookie says.
    let mut visitor = site.signed_in("ada").await;
    let wrong = visitor
        .send(own_fetch("GET", "/x").bearer("not-a-token"))
        .await;
    assert_eq!(wrong.status, 401, "{wrong:?}");
    assert_ne!(wrong.error_reason(), Some("sign_in_required"));
    let neither = site.gateway.send(&request("records-neither")).await;
    assert_eq!(
        neither.status_and_reason(),
        (401, Some("sign_in_required")),
        "{neither:?}"
    );
    assert_eq!(neither.json()["login_url"], "/oauth2/login");
    let challenge = neither.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"hawkgate\""));
}

/// The issuer verifies the session's access tokens, which does not make them bearer tokens.
#[tokio::test]
async fn a_route_with_only_a_session_takes_no_bearer_tokens() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
    let token = site.provider.token("ada").await;
    let mut request = Request::get("/x").bearer(&token);
    HOST.clone_into(&mut request.authority);
    let response = site.gateway.send(&request).await;
    assert_eq!(
        response.status_and_reason(),
        (401, Some("token_issuer")),
        "{response:?}"
    );
    // Nor on the connection on which the session was used.
    let mut client = site.gateway.client().await;
    let mut by_cookie = own_fetch("GET", "/x").header("Cookie", &visitor.cookie_field());
    HOST.clone_into(&mut by_cookie.authority);
    for _ in 0..3 {
        assert_eq!(client.request(&by_cookie).await.unwrap().status, 200);
        assert_eq!(client.request(&request).await.unwrap().status, 401);
    }
}

/// The cookie that says that the session was used goes with whatever answer the request gets.
#[tokio::test]
async fn refusals_and_failures_set_the_cookie_too() {
    let site = Site::start(Options {
        route: "path = \"/\"",
        sections: r#"
[[route]]
name = "unreachable"
path = "/unreachable/"
upstream = "http://127.0.0.1:1"
session = "web"
[[route]]
name = "denied"
path = "/denied/"
upstream = "http://127.0.0.1:1"
session = "web"
[[rule]]
name = "nobody"
when = "false"
routes = ["denied"]
[limits]
body = "1KiB"
"#,
        ..Options::default()
    })
    .await;
    site.provider.token_lifetime(10 * HOUR).await;
    let mut visitor = site.signed_in("ada").await;
    let large = Request::post("/x", vec![b'x'; 2000]);
    for (request, status) in [
        (Request::get("/x"), 200),
        (Request::get("/denied/x"), 403),
        (Request::get("/unreachable/x"), 502),
        (large, 413),
    ] {
        site.clock.advance(HOUR / 2);
        let mut own = request.header("Sec-Fetch-Site", "same-origin");
        own.authority = HOST.into();
        let response = visitor.send(own).await;
        assert_eq!(response.status, status, "{response:?}");
        let mut set = response.fields.all("set-cookie");
        let set = set.find(|cookie| cookie.starts_with(&format!("{COOKIE}=")));
        assert!(set.is_some(), "{response:?}");
        let control = response.header("cache-control");
        let expected = if status == 200 { "private" } else { "no-store" };
        assert_eq!(control, Some(expected), "{response:?}");
    }
}

#[tokio::test]
async fn one_address_begins_a_bounded_number_of_sign_ins() {
    let site = Site::usual().await;
    let mut client = site.gateway.client().await;
    let mut request = navigation(&login("/"));
    HOST.clone_into(&mut request.authority);
    for number in 0..200 {
        let response = client.request(&request).await.unwrap();
        assert_eq!(response.status, 302, "{number}: {response:?}");
    }
    let response = client.request(&request).await.unwrap();
    assert_eq!(
        response.status_and_reason(),
        (429, Some("rate_limited")),
        "{response:?}"
    );
    assert_eq!(response.header("retry-after"), Some("1"));
    let kind = response.header("content-type").unwrap();
    assert!(kind.starts_with("text/html"), "{kind}");
    // Asking who is signed in is not limited so.
    let mut who = own_fetch("GET", "/oauth2/session");
    HOST.clone_into(&mut who.authority);
    let response = client.request(&who).await.unwrap();
    assert_eq!(response.status, 401, "{response:?}");
    site.clock.advance(Duration::from_secs(1));
    let response = client.request(&request).await.unwrap();
    assert_eq!(response.status, 302, "{response:?}");
}

#[tokio::test]
async fn an_endpoint_says_which_methods_it_has() {
    let site = Site::usual().await;
    for (method, name, status, allow) in [
        ("POST", "login", 405, Some("GET, HEAD")),
        ("HEAD", "callback", 405, Some("GET")),
        ("POST", "callback", 405, Some("GET")),
        ("DELETE", "session", 405, Some("GET, HEAD")),
        ("PUT", "logout", 405, Some("GET, HEAD, POST")),
        ("GET", "backchannel-logout", 405, Some("POST")),
        ("GET", "", 404, None),
        ("GET", "login/", 404, None),
        ("GET", "Login", 404, None),
        ("GET", "other", 404, None),
    ] {
        let mut request = Request::new(method, &format!("/oauth2/{name}"));
        HOST.clone_into(&mut request.authority);
        let response = site.gateway.send(&request).await;
        assert_eq!(response.status, status, "{method} {name}: {response:?}");
        assert_eq!(response.header("allow"), allow, "{method} {name}");
        assert!(response.error_reason().is_some(), "{method} {name}");
    }
    let mut large = Request::post("/oauth2/backchannel-logout", vec![b'x'; 17 * 1024]);
    HOST.clone_into(&mut large.authority);
    let response = site.gateway.send(&large).await;
    assert_eq!(
        response.status_and_reason(),
        (413, Some("body_too_large")),
        "{response:?}"
    );
    assert!(site.application.requests().await.is_empty());
}

/// With another `[[session]]` key, requests to this site would be refused; a reload changes nothing
/// about sessions whose settings stay the same.
#[tokio::test]
async fn a_reload_keeps_sessions() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    let authorization = visitor.begin("/deep").await;
    let changed = site
        .text
        .replace("[[route]]", "[cache]\nmax_age = \"10m\"\n[[route]]");
    site.reload(&changed).await;
    assert_eq!(visitor.who().await.as_deref(), Some("ada"));
    let callback = site.provider.sign_in(&authorization, "ada").await;
    let response = visitor.arrive(&callback).await;
    assert_eq!(response.header("location"), Some("/deep"), "{response:?}");
    let changed = changed.replace(ORIGIN, "https://other.example.test");
    site.reload(&changed).await;
    let response = visitor.fetch("POST", "/x").await;
    assert_eq!(
        response.status_and_reason(),
        (403, Some("cross_site")),
        "{response:?}"
    );
}
