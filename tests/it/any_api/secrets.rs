//! The source `static`.

use std::path::PathBuf;

use super::{assert_ok, gateway, values};
use crate::support::client::Request;
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::program::HomeDir;
use crate::support::secrets::Secrets;
use crate::support::upstream::{FakeUpstream, ReceivedRequest, Reply};

const KEY: &str = "tests-only-key-of-the-api-0123456789-abcdef";
const OTHER_KEY: &str = "tests-only-other-key-of-the-api-9876543210-fedcba";
const UNAUTHORIZED: &str = "hawkgate_upstream_unauthorized_total";

/// A gateway whose source `static` has these keys; its secret is in the file `key`.
async fn with_source(upstream: &FakeUpstream, secret: &str, keys: &str) -> TestGateway {
    let files = ConfigDir::new();
    files.write("key", secret);
    let source = format!(
        "[[source]]\nname = \"key\"\nkind = \"static\"\nsecret = {{ file = \"key\" }}\n{keys}"
    );
    gateway(files, &upstream.url(), "source = \"key\"", &source).await
}

fn last(upstream: &FakeUpstream) -> ReceivedRequest {
    upstream.attempts().last().unwrap().request.clone()
}

#[tokio::test]
async fn a_fixed_token_replaces_the_callers_and_does_not_come_back() {
    let upstream = FakeUpstream::http1(|received| {
        let all = String::from_utf8_lossy(&received.raw).into_owned();
        let sent = received
            .header("authorization")
            .or(received.header("x-api-key"));
        let sent = sent.unwrap_or_default();
        Reply::new(200, "ok")
            .header("x-echo", sent)
            .header("link", &format!("</next?key={sent}>; rel=next"))
            .header("x-length", &all.len().to_string())
    })
    .await;
    for (keys, header, value) in [
        ("", "authorization", format!("Bearer {KEY}")),
        (
            "inject = { header = \"X-Api-Key\" }",
            "x-api-key",
            KEY.to_owned(),
        ),
        (
            "inject = { header = \"Authorization\", format = \"token {token}\" }",
            "authorization",
            format!("token {KEY}"),
        ),
    ] {
        let gateway = with_source(&upstream, &format!("{KEY}\n"), keys).await;
        let request = Request::get("/things")
            .bearer("the-callers-own")
            .header("X-Api-Key", "the-callers-own")
            .header("X_Api_Key", "the-callers-own");
        let response = gateway.send(&request).await;
        assert_ok(&response);
        let received = last(&upstream);
        assert_eq!(values(&received.fields, header), [value.as_str()], "{keys}");
        if header == "x-api-key" {
            assert_eq!(received.header("authorization"), None);
            assert_eq!(received.header("x_api_key"), None);
        }
        assert_eq!(
            (response.header("x-echo"), response.header("link")),
            (None, None)
        );
        assert!(response.header("x-length").is_some());
        let secrets = Secrets::default();
        secrets.add("the key", KEY);
        secrets.assert_absent("the log", &gateway.log());
        secrets.assert_absent("the metrics", &gateway.metrics().await.0);
    }
}

#[tokio::test]
async fn a_username_and_password_are_sent_as_basic_credentials() {
    let upstream = FakeUpstream::http1(|received| {
        Reply::new(200, "ok")
            .header(
                "x-echo",
                received.header("authorization").unwrap_or_default(),
            )
            .header("x-decoded", "Aladdin:open sesame, open sesame!")
            .header("x-user", "Aladdin")
    })
    .await;
    for (secret, keys, expected) in [
        (
            // The example of RFC 7617 §2, with a longer password.
            "open sesame, open sesame!",
            "username = \"Aladdin\"",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZSwgb3BlbiBzZXNhbWUh",
        ),
        (
            "sk_test_0123456789abcdef",
            "secret_as = \"username\"",
            "Basic c2tfdGVzdF8wMTIzNDU2Nzg5YWJjZGVmOg==",
        ),
    ] {
        let gateway = with_source(&upstream, secret, keys).await;
        let response = gateway.send(&Request::get("/").bearer("own")).await;
        assert_ok(&response);
        let received = last(&upstream);
        assert_eq!(values(&received.fields, "authorization"), [expected]);
        assert_eq!(response.header("x-echo"), None);
        assert_eq!(
            response.header("x-decoded").is_none(),
            keys.contains("Aladdin")
        );
        assert_eq!(response.header("x-user"), Some("Aladdin"));
    }
}

/// An API that accepts one key, and writes it into this file before it answers the first 401.
fn rotating(file: PathBuf) -> impl Fn(&ReceivedRequest) -> Reply + Send + Sync {
    move |received| {
        let own = format!("Bearer {OTHER_KEY}");
        if received.header("authorization") == Some(own.as_str()) {
            return Reply::ok();
        }
        if !file.as_os_str().is_empty() {
            std::fs::write(&file, OTHER_KEY).unwrap();
        }
        Reply::new(401, "bad key").header("www-authenticate", "Bearer")
    }
}

#[tokio::test]
async fn a_401_is_replayed_only_if_the_secret_has_changed() {
    let upstream = FakeUpstream::http1(rotating(PathBuf::new())).await;
    let gateway = with_source(&upstream, KEY, "").await;
    for (count, reason) in [(1, "same_credentials"), (2, "still_unauthorized")] {
        let response = gateway.send(&Request::post("/a", "body")).await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (401, "bad key")
        );
        assert_eq!(response.error_reason(), None);
        assert_eq!(upstream.attempts().len(), count, "no replay");
        let labels = [("action", "passed_through"), ("reason", reason)];
        gateway.wait_for_metric(UNAUTHORIZED, &labels, 1).await;
    }

    let rotated = with_source(&upstream, KEY, "").await;
    upstream.set_handler(rotating(rotated.files.path("key")));
    let response = rotated.send(&Request::post("/b", "body")).await;
    assert_ok(&response);
    let attempts = upstream.attempts_at("/b");
    let sums: Vec<_> = attempts.iter().map(|a| a.sha256.clone()).collect();
    assert_eq!(attempts.len(), 2);
    assert_eq!(sums[0], sums[1]);
    let labels = [("action", "replayed"), ("reason", "fresh_credentials")];
    rotated.wait_for_metric(UNAUTHORIZED, &labels, 1).await;
    let labels = [("source", "key"), ("result", "ok")];
    rotated
        .wait_for_metric("hawkgate_exchanges_total", &labels, 2)
        .await;
}

#[tokio::test]
async fn explain_shows_what_is_sent_where_without_the_secret() {
    let home = HomeDir::new();
    home.write("key", KEY);
    home.write(
        "hawkgate.toml",
        r#"
[[source]]
name = "key"
kind = "static"
secret = { file = "key" }
inject = { header = "X-Api-Key" }
[[route]]
name = "api"
host = "*.test"
path = "/x/"
strip_prefix = "/x"
add_prefix = "/v3"
upstream = "https://api.example.com"
anonymous = true
source = "key"
request_headers = { set = { "X-Api-Version" = "3" } }
[server]
local_hosts = ["a.test"]
"#,
    );
    let check = ["check", "--config", "hawkgate.toml"];
    home.run(&check)
        .await
        .success()
        .assert_secrets_absent(&[KEY]);
    let url = "http://a.test/x/things?page=2";
    for more in [&[][..], &["--exchange"]] {
        let mut arguments = vec!["explain", "--config", "hawkgate.toml", "--url", url];
        arguments.extend(more);
        let explained = home.run(&arguments).await.success();
        for text in [
            "/v3/things",
            "x-api-key: [redacted]",
            "x-api-version",
            "*.test",
        ] {
            assert!(explained.stdout.contains(text), "{text}: {explained:?}");
        }
        explained.assert_secrets_absent(&[KEY]);
    }
}
