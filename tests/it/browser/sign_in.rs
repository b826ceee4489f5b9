//! Signing in, and staying signed in.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Site, sign_in_at_provider};
use crate::support::browser::{Browser, Page};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_user_signs_in_and_returns_to_the_deep_link() {
    let site = Site::start("").await;
    let page = site.browser.page().await;
    let deep = "/page/tasks/42?filter=a%2Fb&q=%20x#part";
    page.goto(&site.url(deep)).await;
    sign_in_at_provider(&page, "ada").await;
    page.wait_for_url("/page/tasks").await;
    // The fragment never reaches a server.
    let returned = page.url().await;
    assert!(
        returned.starts_with(&site.url("/page/tasks/42?filter=a%2Fb&q=%20x")),
        "{returned}"
    );
    let statuses: Vec<(String, u64)> = page
        .received()
        .await
        .into_iter()
        .map(|received| (received.url, received.status))
        .collect();
    let callback = statuses
        .iter()
        .find(|(url, _)| url.contains("/oauth2/callback"));
    assert!(matches!(callback.unwrap().1, 302 | 303), "{statuses:?}");

    let session = page.fetch("/oauth2/session", json!({})).await;
    assert_eq!(session["status"], 200, "{session}");
    assert!(session["body"].as_str().unwrap().contains("Ada Lovelace"));
    // Neither the application nor its page sees a cookie.
    assert_eq!(
        page.evaluate("return document.cookie", Value::Null).await,
        ""
    );
    let echoed = page.fetch("/echo", json!({})).await;
    assert!(
        !echoed["body"].as_str().unwrap().contains("hawkgate-web"),
        "{echoed}"
    );

    let cookies = site.browser.cookies().await;
    let own: Vec<&Value> = cookies
        .iter()
        .filter(|cookie| cookie["name"].as_str().unwrap().contains("hawkgate"))
        .collect();
    assert_eq!(own.len(), 1, "the attempt's cookie has gone: {own:?}");
    assert_eq!(own[0]["name"], "__Host-hawkgate-web");
    assert_eq!(own[0]["httpOnly"], true);
    assert_eq!(own[0]["secure"], true);
    assert_eq!(own[0]["sameSite"], "Lax");
    assert_eq!(own[0]["path"], "/");
    assert_eq!(own[0]["domain"], "app.example.test");
    assert_eq!(page.problems().await, Vec::<String>::new());
    let result = [("session", "web"), ("result", "ok")];
    site.gateway
        .wait_for_metric("hawkgate_sign_ins_total", &result, 1)
        .await;
}

#[tokio::test]
async fn a_page_that_is_not_signed_in_can_tell() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    // The session ends while the page is open.
    site.browser.remove_cookie("__Host-hawkgate-web").await;
    let response = page
        .fetch("/api/x", json!({ "method": "POST", "body": "{}" }))
        .await;
    assert_eq!(response["status"], 401, "{response}");
    assert_eq!(response["headers"]["x-hawkgate-error"], "sign_in_required");
    let body: Value = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
    let login = body["login_url"].as_str().unwrap();
    assert_eq!(login, "/oauth2/login");
    // What its script does then, in a task of its own: the script must have its result before the
    // page goes away.
    let script = "setTimeout(() => {
        location.href = arg + '?return_to=' + encodeURIComponent(location.pathname + '?again');
    });";
    page.evaluate(script, json!(login)).await;
    page.wait_for_url(&site.exactly("/page?again")).await;
    assert_eq!(page.fetch("/api/x", json!({})).await["status"], 200);
}

#[tokio::test]
async fn two_tabs_sign_in_at_once() {
    let site = Site::start("").await;
    let (first, second) = (site.browser.page().await, site.browser.page().await);
    first.goto(&site.url("/page/first")).await;
    second.goto(&site.url("/page/second")).await;
    sign_in_at_provider(&second, "ada").await;
    second.wait_for_url(&site.exactly("/page/second")).await;
    sign_in_at_provider(&first, "ada").await;
    first.wait_for_url(&site.exactly("/page/first")).await;
    for page in [&first, &second] {
        let session = page.fetch("/oauth2/session", json!({})).await;
        assert_eq!(session["status"], 200, "{session}");
    }
    assert_eq!(
        site.browser
            .cookies()
            .await
            .iter()
            .filter(|cookie| is_own(cookie))
            .count(),
        1
    );
}

fn is_own(cookie: &Value) -> bool {
    cookie["name"].as_str().unwrap().contains("hawkgate")
}

/// Fetches `/api/0` to `/api/<count - 1>` at once; returns the statuses.
async fn parallel(page: &Page<'_>, count: usize) -> Vec<u64> {
    let script = "const all = Array.from({ length: arg }, (_, n) => fetch(`/api/${n}`, { method: n % 2 ? 'POST' : 'GET' }));
        return (await Promise.all(all)).map((response) => response.status);";
    let statuses = page.evaluate(script, json!(count)).await;
    serde_json::from_value(statuses).unwrap()
}

#[tokio::test]
async fn parallel_requests_at_expiry_cause_one_refresh() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    site.provider.token_lifetime(3 * HOUR).await;
    site.clock.advance(HOUR);
    assert_eq!(parallel(&page, 24).await, [200; 24]);
    assert_eq!(site.provider.count("refresh_token granted").await, 1);
    assert_eq!(site.provider.count("refresh_token refused").await, 0);
    // The browser has the renewed cookie.
    assert_eq!(parallel(&page, 6).await, [200; 6]);
    assert_eq!(site.provider.count("refresh_token granted").await, 1);
}

/// Two tabs, over night: each wakes up with a timer of its own.
#[tokio::test]
async fn a_page_stays_signed_in_over_night() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    let other = site.browser.page().await;
    other.goto(&site.url("/page/other")).await;
    for hour in 1..=9 {
        site.provider.token_lifetime(HOUR * (hour + 1)).await;
        site.clock.advance(HOUR);
        let tab = if hour % 2 == 0 { &page } else { &other };
        assert_eq!(parallel(tab, 4).await, [200; 4], "hour {hour}");
    }
    assert_eq!(site.provider.count("refresh_token granted").await, 9);
    assert_eq!(parallel(&page, 2).await, [200; 2]);
    // Another night, without a tab.
    site.provider.token_lifetime(HOUR * 40).await;
    site.clock.advance(HOUR * 12);
    let response = page.fetch("/api/x", json!({})).await;
    assert_eq!(response["status"], 401, "idle for 12 hours: {response}");
    assert_eq!(response["headers"]["x-hawkgate-error"], "sign_in_required");
}

#[tokio::test]
async fn a_cancelled_sign_in_is_explained_on_a_page() {
    let site = Site::start("").await;
    let page = site.browser.page().await;
    page.goto(&site.url("/page/deep?x=1")).await;
    page.wait_for_url("/interaction/").await;
    page.click("button[value=deny]").await;
    page.wait_for_url("/oauth2/callback").await;
    page.assert_accessible().await;
    page.screenshots("sign-in-cancelled").await;
    // Trying again leads to where the user wanted to go, or to the site at least.
    page.click("a[href*='/oauth2/login']").await;
    sign_in_at_provider(&page, "ada").await;
    page.wait_for_url(&format!("^{}/", super::regex_escaped(&site.origin)))
        .await;
}

#[tokio::test]
async fn the_back_button_after_a_sign_in_leads_to_a_page_that_helps() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    let callback = page
        .received()
        .await
        .into_iter()
        .find(|received| received.url.contains("/oauth2/callback"))
        .unwrap();
    let again = page.goto(&callback.url).await;
    assert!(again.status >= 400, "{again:?}");
    page.assert_accessible().await;
    page.screenshots("sign-in-repeated").await;
    assert_eq!(site.provider.count("authorization_code granted").await, 1);
    let session = page.goto(&site.url("/oauth2/session")).await;
    assert_eq!(session.status, 200, "still signed in: {session:?}");
}

#[tokio::test]
async fn http_on_loopback_works_while_developing() {
    let site = Site::loopback().await;
    let page = site.signed_in("ada").await;
    assert_eq!(parallel(&page, 4).await, [200; 4]);
    let cookies = site.browser.cookies().await;
    let own: Vec<&Value> = cookies.iter().filter(|cookie| is_own(cookie)).collect();
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!(own[0]["name"], "hawkgate-web");
    assert_eq!(own[0]["httpOnly"], true);
    assert_eq!(own[0]["secure"], false);
}

/// Two people, two browsers, one site.
#[tokio::test]
async fn users_of_two_browsers_are_kept_apart() {
    let site = Site::start("").await;
    let ada = site.signed_in("ada").await;
    let browser = Browser::start().await;
    let grace = browser.page().await;
    grace.goto(&site.url("/page")).await;
    sign_in_at_provider(&grace, "grace").await;
    grace.wait_for_url(&site.exactly("/page")).await;
    for (page, name) in [(&ada, "Ada Lovelace"), (&grace, "Grace Hopper")] {
        let session = page.fetch("/oauth2/session", json!({})).await;
        assert!(
            session["body"].as_str().unwrap().contains(name),
            "{session}"
        );
    }
}
