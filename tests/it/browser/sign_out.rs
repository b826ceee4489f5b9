//! Signing out here, at the provider, and by the provider.

use serde_json::{Value, json};

use super::{Site, sign_in_at_provider};

#[tokio::test]
async fn a_user_signs_out_everywhere() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    let other_tab = site.browser.page().await;
    other_tab.goto(&site.url("/page/other")).await;
    let stolen = site.browser.cookies().await;

    page.goto(&site.url("/oauth2/logout")).await;
    page.assert_accessible().await;
    page.screenshots("sign-out").await;
    page.click("form button").await;
    // The provider asks, and returns.
    page.wait_for_url("/session/end").await;
    page.click("button[name=logout]").await;
    page.wait_for_url(&format!(
        "^{}/oauth2/logout",
        super::regex_escaped(&site.origin)
    ))
    .await;
    page.assert_accessible().await;
    page.screenshots("signed-out").await;

    let response = other_tab.fetch("/api/x", json!({})).await;
    assert_eq!(response["status"], 401, "{response}");
    // A copy of the cookie, made before.
    site.browser.remove_cookie("__Host-hawkgate-web").await;
    site.browser.set_cookies(json!(stolen)).await;
    let response = other_tab.fetch("/api/x", json!({})).await;
    assert_eq!(response["status"], 401, "{response}");
    // The provider has ended its own session, too: it asks for the password.
    page.click("a[href*='/oauth2/login']").await;
    sign_in_at_provider(&page, "grace").await;
    page.wait_for_url(&site.exactly("/")).await;
}

#[tokio::test]
async fn a_page_signs_out_by_itself() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    let other_tab = site.browser.page().await;
    other_tab.goto(&site.url("/page/other")).await;
    // A task of its own, so that the script has its result before the page goes away.
    let script = "const response = await fetch('/oauth2/logout', { method: 'POST' });
        const { location: target } = await response.json();
        setTimeout(() => { location.href = target; });";
    page.evaluate(script, Value::Null).await;
    page.wait_for_url("/session/end").await;
    page.click("button[name=logout]").await;
    page.wait_for_url(&format!(
        "^{}/oauth2/logout",
        super::regex_escaped(&site.origin)
    ))
    .await;
    let session = other_tab.fetch("/oauth2/session", json!({})).await;
    assert_eq!(session["status"], 401, "{session}");
}

/// The user signs out at another application of the same provider, or an administrator ends the
/// session: the certified provider sends its logout token to hawkgate.
#[tokio::test]
async fn the_provider_signs_a_user_out() {
    let site = Site::start("").await;
    let page = site.signed_in("ada").await;
    assert_eq!(page.fetch("/api/x", json!({})).await["status"], 200);
    let arguments = json!({ "user": "ada", "client": "web" });
    site.provider.control("endSessions", arguments).await;
    let response = page.fetch("/api/x", json!({})).await;
    assert_eq!(response["status"], 401, "{response}");
    assert_eq!(response["headers"]["x-hawkgate-error"], "sign_in_required");
    assert!(
        site.browser
            .cookies()
            .await
            .iter()
            .all(|cookie| cookie["name"] != "__Host-hawkgate-web")
    );
    page.goto(&site.url("/page")).await;
    sign_in_at_provider(&page, "ada").await;
    page.wait_for_url(&site.exactly("/page")).await;
    assert_eq!(page.fetch("/api/x", json!({})).await["status"], 200);
}
