//! `docs/guides/web-application.md`, from its configuration to the page of `examples/web-application`.

use std::process::Stdio;

use hawkgate::clock::SystemClock;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{port, sign_in_at_provider};
use crate::docs::toml_blocks;
use crate::support::browser::{Browser, Page};
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::peers::Taskcluster;
use crate::support::sessions::{AUDIENCE, CLIENT_SECRET, SessionProvider, cookie_key};
use crate::support::wait::{until, within};

const GUIDE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/docs/guides/web-application.md"
);
const ISSUING_KEY: &str = "tests-only-issuing-access-token";

/// Starts the example on a free port. Returns its URL.
async fn start_example() -> (Child, String) {
    let program = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/web-application/server.js"
    );
    let mut child = Command::new("node")
        .args([program, "0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = within("the example", lines.next_line()).await;
    (child, url.unwrap().unwrap())
}

/// Waits until the page lists the tasks.
async fn listed(page: &Page<'_>) {
    let done = async || page.text().await.contains("Tasks: 1");
    until("the list of tasks", done).await;
}

#[tokio::test]
async fn the_guide_leads_to_a_page_that_lists_the_users_tasks() {
    let provider = SessionProvider::start(json!({})).await;
    let scopes = ["auth:create-client:sso/*", "index:list-tasks:users.*"];
    let issuing = json!({ "accessToken": ISSUING_KEY, "scopes": scopes });
    let clients = json!({ "project/sso": issuing });
    let taskcluster = Taskcluster::start(json!({ "clients": clients })).await;
    let (_example, pages) = start_example().await;

    let guide = std::fs::read_to_string(GUIDE).unwrap();
    let (_, text) = toml_blocks(&guide).swap_remove(0);
    let text = text
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("https://sso.example.com", provider.issuer())
        .replace("https://api.example.com", AUDIENCE)
        .replace("https://tc.example.com", taskcluster.url())
        .replace("http://127.0.0.1:3000", &pages);
    let files = ConfigDir::new();
    std::fs::create_dir(files.path("secrets")).unwrap();
    files.write("secrets/cookie-key", cookie_key(1));
    files.write("secrets/web-client-secret", CLIENT_SECRET);
    files.write("secrets/taskcluster-access-token", ISSUING_KEY);
    let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
    let origin = format!("http://localhost:{}", port(&gateway));
    provider.register("web", &origin, "/oauth2/").await;

    let browser = Browser::start().await;
    let page = browser.page().await;
    page.goto(&format!("{origin}/?filter=mine")).await;
    sign_in_at_provider(&page, "ada").await;
    page.wait_for_url("/\\?filter=mine$").await;
    listed(&page).await;
    let text = page.text().await;
    assert!(text.contains("Signed in as Ada Lovelace"), "{text}");
    assert!(text.contains("users.ada.latest"), "{text}");
    page.assert_accessible().await;
    page.screenshots("example").await;

    // Revoked credentials are replaced before the page notices.
    taskcluster.revoke().await;
    page.goto(&format!("{origin}/")).await;
    listed(&page).await;

    page.click("button").await;
    page.wait_for_url("/session/end").await;
    page.click("button[name=logout]").await;
    page.wait_for_url("^http://localhost:\\d+/oauth2/logout")
        .await;
}
