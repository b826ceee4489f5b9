//! Sessions of kind `taskcluster`: a deployment's own sign-in, whose credentials the session holds.

use std::sync::Arc;
use std::time::Duration;

use hawkgate::clock::{ManualClock, SystemClock};
use serde_json::{Value, json};

use super::{assert_sign_in_refused, assert_signed_out};
use crate::support::client::Response;
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::peers::Taskcluster;
use crate::support::secrets::Secrets;
use crate::support::sessions::{ORIGIN, Visitor, cookie_key, own_fetch, server};

struct Deployment {
    taskcluster: Taskcluster,
    gateway: TestGateway,
    clock: Arc<ManualClock>,
}

impl Deployment {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn with(sections: &str) -> Self {
        let taskcluster = Taskcluster::start(json!({})).await;
        let callback = format!("{ORIGIN}/oauth2/callback");
        register(&taskcluster, &callback, 86_400_000).await;
        let url = taskcluster.url();
        let text = format!(
            r#"{}
[[session]]
name = "web"
kind = "taskcluster"
root_url = "{url}"
client_id = "web"
scopes = ["test:*", "queue:*"]
cookie_key = {{ file = "cookie-key" }}
origin = "{ORIGIN}"
[[route]]
name = "taskcluster"
upstream = "{url}"
session = "web"
{sections}
"#,
            server("")
        );
        let files = ConfigDir::new();
        files.write("cookie-key", cookie_key(3));
        let clock = ManualClock::at(SystemClock::shared().now());
        let gateway = TestGateway::start_with(&text, files, clock.clone()).await;
        Self {
            taskcluster,
            gateway,
            clock,
        }
    }

    async fn sign_in(&self, visitor: &mut Visitor<'_>, person: &str) -> Response {
        let authorization = visitor.begin("/tasks").await;
        let arguments = json!({ "url": authorization, "person": person });
        let response = self.taskcluster.control("signIn", arguments).await;
        visitor.arrive(response["location"].as_str().unwrap()).await
    }

    async fn signed_in(&self, person: &str) -> Visitor<'_> {
        let mut visitor = Visitor::of(&self.gateway);
        let response = self.sign_in(&mut visitor, person).await;
        assert_eq!(response.header("location"), Some("/tasks"), "{response:?}");
        visitor
    }
}

async fn register(taskcluster: &Taskcluster, callback: &str, lifetime: u64) {
    let client = json!({
        "id": "web",
        "redirectUris": [callback],
        "scopes": ["test:*", "queue:*"],
        "lifetime": lifetime,
    });
    taskcluster.control("oauthClient", client).await;
}

#[tokio::test]
async fn a_session_holds_the_users_credentials() {
    let deployment = Deployment::start().await;
    let mut ada = deployment.signed_in("ada").await;
    let mut grace = deployment.signed_in("grace").await;
    for (visitor, name) in [(&mut ada, "ada"), (&mut grace, "grace")] {
        let response = visitor.fetch("GET", "/api/queue/v1/tasks").await;
        assert_eq!(response.status, 200, "{response:?}");
        let client = response.json()["clientId"].as_str().unwrap().to_owned();
        assert!(
            client.starts_with(&format!("github/1|{name}/web-")),
            "{client}"
        );
        let who = visitor.fetch("GET", "/oauth2/session").await.json();
        assert_eq!(who["sub"], Value::from(client));
        assert_eq!(who["issuer"], deployment.taskcluster.url());
    }
    let posted = ada
        .send(
            own_fetch("POST", "/api/queue/v1/x")
                .body(crate::support::client::Body::Sized("{}".into())),
        )
        .await;
    assert_eq!(posted.status, 200, "{posted:?}");
    // The credentials were had once for each session.
    let fetched = deployment
        .taskcluster
        .count("GET", "/login/oauth/credentials", 200)
        .await;
    assert_eq!(fetched, 2);
}

#[tokio::test]
async fn revoked_credentials_lead_back_to_the_sign_in() {
    let deployment = Deployment::start().await;
    let mut visitor = deployment.signed_in("ada").await;
    let copy = visitor.thief();
    deployment.taskcluster.revoke().await;
    let page = visitor.thief().navigate("/api/queue/v1/page").await;
    assert_eq!(page.status, 302, "{page:?}");
    let login = page.header("location").unwrap();
    assert!(login.starts_with("/oauth2/login?return_to="), "{login}");
    assert_signed_out(&visitor.fetch("GET", "/api/queue/v1/tasks").await);
    // The session has ended for every copy of its cookie, without another request upstream.
    let before = deployment.taskcluster.control("requests", json!({})).await;
    assert_signed_out(&copy.thief().fetch("GET", "/api/queue/v1/tasks").await);
    let after = deployment.taskcluster.control("requests", json!({})).await;
    assert_eq!(before, after);
    // Signing in again helps.
    deployment.sign_in(&mut visitor, "ada").await;
    assert_eq!(
        visitor.fetch("GET", "/api/queue/v1/tasks").await.status,
        200
    );
}

/// taskcluster#9180: a page that stays open over night.
#[tokio::test]
async fn expired_credentials_lead_back_to_the_sign_in() {
    let deployment = Deployment::start().await;
    let callback = format!("{ORIGIN}/oauth2/callback");
    register(&deployment.taskcluster, &callback, 3_600_000).await;
    let mut visitor = deployment.signed_in("ada").await;
    deployment.clock.advance(Duration::from_mins(50));
    assert_eq!(
        visitor.fetch("GET", "/api/queue/v1/tasks").await.status,
        200
    );
    deployment.clock.advance(Duration::from_secs(700));
    let before = deployment.taskcluster.control("counts", json!({})).await;
    assert_signed_out(&visitor.fetch("GET", "/api/queue/v1/tasks").await);
    // Nothing was sent with credentials that have expired.
    let after = deployment.taskcluster.control("counts", json!({})).await;
    assert_eq!(before, after);
}

/// The deployment has no PKCE and no `iss`: the state alone ties the callback to the browser.
#[tokio::test]
async fn a_foreign_callback_is_refused() {
    let deployment = Deployment::start().await;
    let mut attacker = Visitor::of(&deployment.gateway);
    let authorization = attacker.begin("/").await;
    let arguments = json!({ "url": authorization, "person": "grace" });
    let response = deployment.taskcluster.control("signIn", arguments).await;
    let callback = response["location"].as_str().unwrap();
    let mut victim = Visitor::of(&deployment.gateway);
    assert_sign_in_refused(&victim.arrive(callback).await, "foreign");
    victim.begin("/").await;
    assert_sign_in_refused(&victim.arrive(callback).await, "foreign, with an attempt");
    let codes = deployment
        .taskcluster
        .count("POST", "/login/oauth/token", 200)
        .await;
    assert_eq!(codes, 0);
}

#[tokio::test]
async fn a_user_who_rejects_sees_a_page() {
    let deployment = Deployment::start().await;
    let mut visitor = Visitor::of(&deployment.gateway);
    let response = deployment.sign_in(&mut visitor, "").await;
    assert_sign_in_refused(&response, "rejected");
    // A deployment that fails: 500 for each mistake, as web-server does.
    let failure = json!({ "endpoint": "oauth", "mode": "error" });
    deployment.taskcluster.control("fail", failure).await;
    let response = deployment.sign_in(&mut visitor, "ada").await;
    assert_sign_in_refused(&response, "no credentials");
}

#[tokio::test]
async fn signing_out_forgets_the_credentials() {
    let deployment = Deployment::start().await;
    let mut visitor = deployment.signed_in("ada").await;
    let mut thief = visitor.thief();
    let response = visitor.send(own_fetch("POST", "/oauth2/logout")).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_signed_out(&thief.fetch("GET", "/api/queue/v1/tasks").await);
}

#[tokio::test]
async fn the_credentials_are_in_no_log() {
    let deployment = Deployment::start().await;
    let mut visitor = deployment.signed_in("ada").await;
    visitor.fetch("GET", "/api/queue/v1/tasks").await;
    let secrets = Secrets::default();
    deployment.taskcluster.collect_secrets(&secrets).await;
    assert!(!secrets.is_empty());
    secrets.add("cookie", visitor.session());
    secrets.assert_absent("the log", &deployment.gateway.log());
    secrets.assert_absent("the metrics", &deployment.gateway.metrics().await.0);
    let response = visitor.fetch("GET", "/api/queue/v1/tasks").await;
    secrets.assert_absent("a response", &response.text());
}

/// Rules see the clientId, and narrow the user's own credentials.
#[tokio::test]
async fn rules_apply_to_the_users_client() {
    let deployment = Deployment::with(
        r#"
[[rule]]
name = "ada"
when = 'claims.clientId.startsWith("github/1|ada/") && token.subject == claims.clientId'
scopes = ["test:only:this"]
"#,
    )
    .await;
    let mut ada = deployment.signed_in("ada").await;
    let response = ada.fetch("GET", "/api/queue/v1/tasks").await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.json()["scopes"], json!(["test:only:this"]));
    let mut grace = deployment.signed_in("grace").await;
    let response = grace.fetch("GET", "/api/queue/v1/tasks").await;
    assert_eq!(
        response.status_and_reason(),
        (403, Some("rule_denied")),
        "{response:?}"
    );
}
