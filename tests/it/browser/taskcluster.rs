//! A Taskcluster deployment's own sign-in.

use hawkgate::clock::SystemClock;
use serde_json::{Value, json};

use super::{port, tls_server};
use crate::support::browser::Browser;
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::peers::Taskcluster;
use crate::support::sessions::{HOST, cookie_key};

#[tokio::test]
async fn a_user_lists_tasks_until_the_credentials_are_revoked() {
    let taskcluster = Taskcluster::start(json!({})).await;
    let url = taskcluster.url();
    let files = ConfigDir::new();
    files.write("cookie-key", cookie_key(1));
    let text = format!(
        r#"{}
[[session]]
name = "web"
kind = "taskcluster"
root_url = "{url}"
client_id = "tasks"
scopes = ["queue:*", "test:*"]
cookie_key = {{ file = "cookie-key" }}
[[route]]
name = "taskcluster"
upstream = "{url}"
session = "web"
"#,
        tls_server(&files)
    );
    let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
    let origin = format!("https://{HOST}:{}", port(&gateway));
    let client = json!({
        "id": "tasks",
        "redirectUris": [format!("{origin}/oauth2/callback")],
        "scopes": ["test:*", "queue:*"],
    });
    taskcluster.control("oauthClient", client).await;

    let browser = Browser::start().await;
    let page = browser.page().await;
    let start = format!("{origin}/api/queue/v1/start?x=1");
    page.goto(&start).await;
    page.wait_for_url("/login/oauth/authorize").await;
    page.click("button[value=ada]").await;
    page.wait_for_url("/api/queue/v1/start\\?x=1$").await;

    let list = async || {
        page.fetch("/api/queue/v1/task-group/g/list", json!({}))
            .await
    };
    let listed = list().await;
    assert_eq!(listed["status"], 200, "{listed}");
    let body: Value = serde_json::from_str(listed["body"].as_str().unwrap()).unwrap();
    let client = body["clientId"].as_str().unwrap();
    assert!(client.starts_with("github/1|ada/tasks-"), "{body}");
    let post = json!({ "method": "POST", "body": "{}", "headers": { "content-type": "application/json" } });
    let posted = page.fetch("/api/queue/v1/task/t/rerun", post).await;
    assert_eq!(posted["status"], 200, "{posted}");

    taskcluster.revoke().await;
    let refused = list().await;
    assert_eq!(refused["status"], 401, "{refused}");
    assert_eq!(refused["headers"]["x-hawkgate-error"], "sign_in_required");
    assert!(
        browser
            .cookies()
            .await
            .iter()
            .all(|cookie| cookie["name"] != "__Host-hawkgate-web")
    );
    page.goto(&start).await;
    page.wait_for_url("/login/oauth/authorize").await;
    page.click("button[value=grace]").await;
    page.wait_for_url("/api/queue/v1/start\\?x=1$").await;
    assert_eq!(list().await["status"], 200);
}
