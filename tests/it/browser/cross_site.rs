//! Other sites: what a browser lets them do, and what hawkgate lets them do.

use serde_json::{Value, json};

use super::{Site, at, other_site};
use crate::support::browser::Page;
use crate::support::wait::until;

/// Opens a page of another site and fills it with HTML.
async fn show(page: &Page<'_>, url: &str, html: &str) {
    assert_eq!(page.goto(url).await.status, 200);
    let script = "document.body.innerHTML = arg";
    page.evaluate(script, json!(html)).await;
}

/// A sibling of the site's host is same-site for the browser, so that `SameSite` does not help.
const SITES: [&str; 2] = ["evil.test", "sibling.example.test"];

#[tokio::test]
async fn forms_of_other_sites_do_nothing() {
    let site = Site::start("").await;
    site.signed_in("ada").await;
    let other = other_site().await;
    for name in SITES {
        for target in ["/api/x", "/oauth2/logout"] {
            let page = site.browser.page().await;
            let action = site.url(target);
            let form = format!(
                "<form method=post action='{action}'><input name=a value=b><button>x</button></form>"
            );
            show(&page, &format!("{}/page", at(&other, name)), &form).await;
            page.click("button").await;
            page.wait_for_url("^(?!.*/page$)").await;
            assert_eq!(
                site.received().await,
                Vec::<String>::new(),
                "{name} {target}"
            );
        }
    }
    let page = site.browser.page().await;
    page.goto(&site.url("/page")).await;
    let session = page.fetch("/oauth2/session", json!({})).await;
    assert_eq!(session["status"], 200, "still signed in: {session}");
}

#[tokio::test]
async fn requests_by_scripts_of_other_sites_do_nothing() {
    let site = Site::start("").await;
    site.signed_in("ada").await;
    let other = other_site().await;
    for name in SITES {
        let page = site.browser.page().await;
        show(&page, &format!("{}/page", at(&other, name)), "").await;
        for (mode, method) in [
            ("no-cors", "POST"),
            ("cors", "POST"),
            ("cors", "DELETE"),
            ("cors", "GET"),
        ] {
            let init = json!({ "mode": mode, "method": method, "credentials": "include" });
            let response = page.fetch(&site.url("/api/x"), init).await;
            let opaque = response["type"] == "opaque";
            assert!(
                opaque || response["error"] == "TypeError",
                "{name} {mode} {method}: {response}"
            );
        }
        let init = json!({
            "mode": "cors", "method": "POST", "credentials": "include", "body": "{}",
            "headers": { "content-type": "application/json" },
        });
        let response = page.fetch(&site.url("/api/x"), init).await;
        assert_eq!(response["error"], "TypeError", "{name}: {response}");
        let beacon = "return navigator.sendBeacon(arg, 'x')";
        page.evaluate(beacon, json!(site.url("/api/beacon"))).await;
        let image = "const image = new Image(); image.src = arg;
            await new Promise((done) => { image.onload = image.onerror = done; });";
        page.evaluate(image, json!(site.url("/api/image"))).await;
    }
    // A read by a sibling is same-site, which the contract allows to pass: its answer is unreadable.
    let writes: Vec<String> = site
        .received()
        .await
        .into_iter()
        .filter(|request| !request.starts_with("GET "))
        .collect();
    assert_eq!(writes, Vec::<String>::new());
}

/// The page of an application may be linked to.
#[tokio::test]
async fn links_of_other_sites_work() {
    let site = Site::start("").await;
    site.signed_in("ada").await;
    let other = other_site().await;
    let page = site.browser.page().await;
    let link = format!("<a href='{}'>task</a>", site.url("/page/linked"));
    show(&page, &format!("{}/page", at(&other, "evil.test")), &link).await;
    page.click("a").await;
    page.wait_for_url(&site.exactly("/page/linked")).await;
    assert_eq!(
        page.fetch("/oauth2/session", json!({})).await["status"],
        200
    );
}

/// hawkgate's own pages are not framed, so that nobody clicks their buttons unawares.
#[tokio::test]
async fn own_pages_are_not_framed() {
    let site = Site::start("").await;
    site.signed_in("ada").await;
    let other = other_site().await;
    let page = site.browser.page().await;
    let frame = format!("<iframe src='{}'></iframe>", site.url("/oauth2/logout"));
    show(
        &page,
        &format!("{}/page", at(&other, "sibling.example.test")),
        &frame,
    )
    .await;
    until("the browser to refuse the frame", async || {
        let messages = page.console().await;
        messages.iter().any(|m| m.contains("frame-ancestors"))
    })
    .await;
}

/// What a sibling may set in browsers that know the prefix.
#[tokio::test]
async fn a_sibling_cannot_plant_a_session() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    let other = other_site().await;
    let sibling = site.browser.page().await;
    show(
        &sibling,
        &format!("{}/page", at(&other, "sibling.example.test")),
        "",
    )
    .await;
    for attributes in [
        "Domain=example.test; Path=/; Secure",
        "Path=/oauth2/; Secure; Domain=example.test",
    ] {
        let cookie = format!("__Host-hawkgate-web=planted; {attributes}");
        sibling
            .evaluate("document.cookie = arg", json!(cookie))
            .await;
    }
    let session = page.fetch("/oauth2/session", json!({})).await;
    assert_eq!(session["status"], 200, "{session}");
    assert!(session["body"].as_str().unwrap().contains("Ada Lovelace"));
}

/// Opens a WebSocket to `arg`; returns the echo of a message, or "refused".
const SOCKET: &str = "const socket = new WebSocket(arg);
    return await new Promise((done) => {
        socket.onopen = () => socket.send('hello');
        socket.onmessage = (event) => { done(event.data); socket.close(); };
        socket.onerror = () => done('refused');
    });";

#[tokio::test]
async fn a_websocket_is_opened_by_the_sites_own_pages_only() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    let url = json!(site.url("/socket").replace("https:", "wss:"));
    assert_eq!(page.evaluate(SOCKET, url.clone()).await, "hello");
    let other = other_site().await;
    for name in SITES {
        let page = site.browser.page().await;
        show(&page, &format!("{}/page", at(&other, name)), "").await;
        assert_eq!(
            page.evaluate(SOCKET, url.clone()).await,
            "refused",
            "{name}"
        );
    }
    assert_eq!(site.received().await, ["GET /socket"]);
}

/// A page on another origin with a token of its own: the other kind of application.
#[tokio::test]
async fn a_page_with_its_own_token_calls_across_origins() {
    let other = other_site().await;
    let partner = at(&other, "partner.test");
    let route = format!(
        "issuers = [\"idp\"]\ncors = {{ allowed_origins = [\"{partner}\"], allowed_headers = [\"authorization\", \"content-type\"] }}"
    );
    let site = Site::start(&route).await;
    site.signed_in("ada").await;
    let token = site.provider.token("grace").await;
    let page = site.browser.page().await;
    show(&page, &format!("{partner}/page"), "").await;
    let authorization = format!("Bearer {token}");
    let api = site.url("/api/x");

    let init = json!({ "headers": { "authorization": authorization } });
    let response = page.fetch(&api, init).await;
    assert_eq!(response["status"], 200, "{response}");
    let init = json!({
        "method": "POST", "body": "{\"a\":1}",
        "headers": { "authorization": authorization, "content-type": "application/json" },
    });
    let response = page.fetch(&api, init).await;
    assert_eq!(response["status"], 200, "{response}");
    let echoed: Value = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
    assert_eq!(echoed["body"], "{\"a\":1}");

    // The refusals on which the page builds are readable.
    let init = json!({ "headers": { "authorization": "Bearer a.b.c" } });
    let response = page.fetch(&api, init).await;
    assert_eq!(response["status"], 401, "{response}");
    for name in ["x-hawkgate-error", "www-authenticate", "x-request-id"] {
        assert!(!response["headers"][name].is_null(), "{name}: {response}");
    }
    let response = page.fetch(&api, json!({})).await;
    assert_eq!(response["status"], 401, "{response}");
    assert!(
        !response["headers"]["x-hawkgate-error"].is_null(),
        "{response}"
    );
    // What the application itself refuses is readable, too.
    let init = json!({ "headers": { "authorization": authorization } });
    let response = page.fetch(&site.url("/status/404"), init).await;
    assert_eq!(response["status"], 404, "{response}");

    // A page that is not on the list reads nothing, and its preflight is refused.
    show(&page, &format!("{}/page", at(&other, "evil.test")), "").await;
    let before = site.received().await.len();
    let init = json!({ "headers": { "authorization": authorization } });
    let response = page.fetch(&api, init).await;
    assert_eq!(response["error"], "TypeError", "{response}");
    assert_eq!(site.received().await.len(), before);
}
