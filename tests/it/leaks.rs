//! No secret appears in logs of any level, responses, metrics or `Debug` output, raw or encoded.

mod peers;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::gateway::{ROOT_KEY, TestGateway};
use crate::support::secrets::Secrets;
use crate::support::standard::{AUDIENCE, Peers};

#[tokio::test]
async fn no_secret_reaches_logs_metrics_or_responses() {
    let secrets = Secrets::default();
    let peers = Peers::start().await;
    let Peers {
        provider,
        taskcluster,
    } = &peers;
    // So that a verified token reaches the exchange for opaque tokens as well.
    let (one, both) = (r#"issuers = ["opaque"]"#, r#"issuers = ["idp", "opaque"]"#);
    let config = peers.config(&["login", "oauth", "mint"]).replace(one, both);
    assert!(config.contains(both));
    let gateway = TestGateway::start(&format!("{config}[log]\naudit = true\n[trace]\n")).await;
    let user = provider.user_token("RS256", "user|1", AUDIENCE).await;
    let wrong = provider
        .user_token("ES256", "user|1", "another-audience")
        .await;
    let (opaque, _) = taskcluster.oauth_token(json!({})).await;
    let body = "the-body-has-a-secret-in-it-7f3a9c";
    let query = "query-secret-51d0e2";
    let bewit = "YmV3aXQtc2VjcmV0LTQyMDc5OQ";
    secrets.add("root's key", ROOT_KEY);
    secrets.token("the user's token", &user);
    secrets.token("a refused token", &wrong);
    secrets.add("the opaque token", &opaque);
    secrets.add("an unknown opaque token", "opaque-but-unknown-93ab17");
    secrets.add("the body", body);
    secrets.add("a query's value", query);
    secrets.add("a bewit", bewit);
    secrets.add("a password", "dXNlcjpwYXNzd29yZA==");

    let mut responses = Vec::new();
    let send = async |host: &str, request: Request| {
        let mut request = request;
        request.authority = format!("{host}.test");
        let mut client = Client::connect(gateway.address()).await;
        let response = client.request(&request).await.unwrap();
        let head = String::from_utf8_lossy(&response.raw_head).into_owned();
        (response.status, format!("{head}{}", response.text()))
    };
    let post = |target: &str| {
        Request::post(target, format!("{{\"payload\":\"{body}\"}}"))
            .header("Content-Type", "text/plain")
    };
    let target = format!("/api/x?token={query}");
    for round in 0..2 {
        for (host, token) in [
            ("login", &user),
            ("mint", &user),
            ("oauth", &opaque),
            ("login", &wrong),
        ] {
            responses.push(send(host, post(&target).bearer(token)).await);
        }
        for request in [
            post(&target),
            post(&target).bearer("opaque-but-unknown-93ab17"),
            post(&target).header("Authorization", "Basic dXNlcjpwYXNzd29yZA=="),
            post(&target).bearer(&user).bearer(&opaque),
            post(&format!("/api/x?bewit={bewit}")).bearer(&user),
            // Taskcluster finds a bewit there, too.
            Request::get(&format!("/api/x&bewit={bewit}")).bearer(&user),
            Request::get(&format!("/api/\u{7f}?{query}")).bearer(&user),
            Request::new("TRACE", &target).bearer(&user),
            post(&target).bearer(&user).header("Bad Header", query),
        ] {
            for host in ["login", "oauth", "nowhere"] {
                responses.push(send(host, request.clone()).await);
            }
        }
        if round == 0 {
            taskcluster.revoke().await;
        }
    }
    for failure in ["error", "html", "disconnect"] {
        for endpoint in ["login", "oauth"] {
            let failure = json!({ "endpoint": endpoint, "mode": failure });
            taskcluster.control("fail", failure).await;
        }
        taskcluster.revoke().await;
        responses.push(send("login", post(&target).bearer(&user)).await);
        responses.push(send("oauth", post(&target).bearer(&opaque)).await);
    }
    let forwarded = responses
        .iter()
        .filter(|(status, _)| *status == 200)
        .count();
    assert!(forwarded >= 6, "only {forwarded} requests were forwarded");

    taskcluster.collect_secrets(&secrets).await;
    let echo = Secrets::default();
    echo.add("the body", body);
    for (status, response) in &responses {
        // The upstream may echo the caller's own URL.
        if !response.contains(&format!("\"url\":\"{target}\"")) {
            secrets.assert_absent(&format!("a {status} response"), response);
        }
        echo.assert_absent(&format!("a {status} response"), response);
    }
    secrets.assert_absent("the metrics", &gateway.metrics().await.0);
    secrets.assert_absent("Debug", &format!("{:?}", gateway.running));
    let log = gateway.log();
    assert!(log.contains("\"route\":\"login\""), "no access log");
    secrets.assert_absent("the log", &log);
}
