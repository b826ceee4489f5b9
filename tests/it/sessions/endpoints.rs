//! The endpoints below the prefix: which paths, hosts and methods, and what reaches the application.

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::Request;
use crate::support::sessions::{
    COOKIE, HOST, Options, Site, from_elsewhere, navigation, own_fetch,
};

/// Nothing below the prefix reaches the application, however it is spelt.
#[tokio::test]
async fn other_paths_below_the_prefix_are_not_found() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    for path in [
        "/oauth2/",
        "/oauth2/unknown",
        "/oauth2/login/",
        "/oauth2/login/x",
        "/oauth2/LOGIN",
        "/oauth2//login",
        "/oauth2/session.json",
        "/oauth2/callback;x=y",
    ] {
        let response = visitor.fetch("GET", path).await;
        assert_eq!(response.status, 404, "{path}: {response:?}");
    }
    assert!(site.application.requests().await.is_empty());
}

#[tokio::test]
async fn other_methods_are_not_allowed() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    for (path, allowed) in [
        ("login", "GET"),
        ("callback", "GET"),
        ("session", "GET"),
        ("backchannel-logout", "POST"),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            if method == allowed {
                continue;
            }
            let response = visitor
                .send(own_fetch(method, &format!("/oauth2/{path}")))
                .await;
            assert_eq!(response.status, 405, "{method} {path}: {response:?}");
            let allow = response.header("allow").unwrap_or_default();
            assert!(allow.contains(allowed), "{method} {path}: {allow}");
        }
    }
    assert_eq!(visitor.who().await.as_deref(), Some("ada"));
}

/// A route of another kind beside the session's: the cookie is hawkgate's there, too.
#[tokio::test]
async fn the_cookie_reaches_no_route_and_opens_none_without_a_session() {
    let first = Site::usual().await;
    let upstream = first.application.url().to_owned();
    let sections = format!(
        r#"
[[route]]
name = "api"
path = "/api/"
upstream = "{upstream}"
issuers = ["idp"]
"#
    );
    let site = Site::start(Options {
        sections: &sections,
        ..Options::default()
    })
    .await;
    let mut visitor = site.signed_in("ada").await;
    let response = visitor.fetch("GET", "/api/x").await;
    assert_eq!(response.status, 401, "{response:?}");
    assert_ne!(response.error_reason(), Some("sign_in_required"));
    let token = site.provider.token("grace").await;
    let response = visitor
        .send(own_fetch("GET", "/api/x").bearer(&token))
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let requests = first.application.requests().await;
    assert_eq!(requests.len(), 1);
    assert!(requests[0]["headers"]["cookie"].is_null(), "{requests:?}");
    assert!(!json!(requests).to_string().contains(COOKIE));
}

/// A double click, or a browser that sends the request again: the code is sent once.
#[tokio::test]
async fn parallel_callbacks_of_one_attempt_cause_one_exchange() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/").await;
    let callback = site.provider.sign_in(&authorization, "ada").await;
    let target = callback.strip_prefix("https://app.example.test").unwrap();
    let mut sending = JoinSet::new();
    for _ in 0..8 {
        let mut client = site.gateway.client().await;
        let mut request: Request = from_elsewhere(target).header("Cookie", &visitor.cookie_field());
        HOST.clone_into(&mut request.authority);
        sending.spawn(async move { client.request(&request).await.unwrap().status });
    }
    let statuses = sending.join_all().await;
    let completed = statuses.iter().filter(|status| **status / 100 == 3).count();
    assert_eq!(completed, 1, "{statuses:?}");
    assert_eq!(site.provider.count("token").await, 1);
}

/// With a host on the route, the endpoints are that host's.
#[tokio::test]
async fn the_endpoints_exist_on_the_hosts_of_the_session() {
    let site = Site::start(Options {
        route: "host = \"app.example.test\"",
        ..Options::default()
    })
    .await;
    let mut visitor = site.visitor();
    assert_eq!(
        visitor.navigate("/oauth2/login?return_to=/").await.status,
        302
    );
    let mut elsewhere = site.visitor();
    elsewhere.host = "localhost".into();
    let response = elsewhere
        .send(navigation("/oauth2/login?return_to=/"))
        .await;
    assert_eq!(response.status, 404, "{response:?}");
    assert!(elsewhere.cookies().is_empty());
}
