//! The effect of each kind of change to the configuration files.

use hawkgate::clock::ManualClock;

use super::*;
use crate::support::client::{Body, Client};
use crate::support::tls::TestCa;
use crate::support::upstream::Latch;

/// Sends requests until one has this status, when a watched change has taken effect.
async fn wait_for_status(fixture: &Fixture, path: &str, status: u16) {
    until(&format!("{path} to be {status}"), async || {
        fixture.get(path).await.status == status
    })
    .await;
}

#[tokio::test]
async fn a_rewritten_or_renamed_file_is_reloaded() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.get("/api/x").await.status, 200);
    fixture
        .gateway
        .files
        .write("hawkgate.toml", fixture.text("/two/"));
    wait_for_status(&fixture, "/two/x", 200).await;
    assert_eq!(fixture.get("/api/x").await.error_reason(), Some("no_route"));
    let next = fixture.gateway.files.write("next", fixture.text("/three/"));
    std::fs::rename(next, fixture.gateway.files.path("hawkgate.toml")).unwrap();
    wait_for_status(&fixture, "/three/x", 200).await;
    fixture.wait_for_reload("success", 2).await;
    let metrics = fixture.gateway.metrics().await;
    assert!(metrics.has("hawkgate_config_last_reload_success_timestamp_seconds"));
    // The issuer's keys and the credential survived both reloads.
    assert_eq!(fixture.issuer.fetches(), 1);
    assert!(metrics.sum("hawkgate_exchanges_total", &[("source", "mint")]) < 1.5);
}

#[tokio::test]
async fn a_config_map_update_is_reloaded() {
    let folder = files();
    let first = "the-first-token-of-the-fixed-client";
    let mut map = ConfigMap::new(
        folder.path("fixed-token").parent().unwrap(),
        &[("hawkgate.toml", ""), ("fixed-token", first)],
    );
    let fixture = Fixture::start_in(folder, SERVER_CONFIG, Some(EVERY)).await;
    assert_eq!(fixture.get("/api/x").await.status, 200);
    let text = fixture.text("/swapped/");
    map.publish(&[("hawkgate.toml", &text), ("fixed-token", first)]);
    wait_for_status(&fixture, "/swapped/x", 200).await;
    // Another update with the same content: nothing to reload.
    map.publish(&[("hawkgate.toml", &text), ("fixed-token", first)]);
    // An update that only changes a secret.
    map.publish(&[
        ("hawkgate.toml", &text),
        ("fixed-token", "rotated-token-of-fixed"),
    ]);
    fixture.wait_for_reload("success", 2).await;
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing_and_every_error_is_logged() {
    let fixture = Fixture::start().await;
    let broken = fixture
        .text("/broken/")
        .replace("audiences", "audience_of_the_invalid_file")
        .replace("source = \"mint\"", "source = \"missing-mint\"");
    fixture.replace("hawkgate.toml", broken);
    fixture.wait_for_reload("invalid", 1).await;
    assert_eq!(fixture.get("/api/x").await.status, 200);
    assert_eq!(fixture.get("/broken/x").await.status, 404);
    wait_for_log(&fixture.gateway, "audience_of_the_invalid_file").await;
    wait_for_log(&fixture.gateway, "missing-mint").await;
    wait_for_log(
        &fixture.gateway,
        "the configuration is invalid; the previous one stays in effect",
    )
    .await;

    // A missing secret does not stop the gateway either; the next reload that finds it succeeds.
    fixture.replace("hawkgate.toml", fixture.text("/fixed-again/"));
    wait_for_status(&fixture, "/fixed-again/x", 200).await;
    let secret = fixture.gateway.files.path("fixed-token");
    std::fs::remove_file(&secret).unwrap();
    fixture.wait_for_reload("invalid", 2).await;
    assert_eq!(fixture.get("/fixed-again/x").await.status, 200);
    fixture.replace("fixed-token", "another-token-of-the-fixed-client");
    fixture.wait_for_reload("success", 2).await;
}

#[tokio::test]
async fn a_rotated_secret_rebuilds_its_source_and_no_other() {
    let fixture = Fixture::start().await;
    for path in ["/api/x", "/fixed/x", "/api/x", "/fixed/x"] {
        assert_eq!(fixture.get(path).await.status, 200);
    }
    let before = signature(&fixture, "/fixed/same").await;
    fixture.replace("fixed-token", "the-second-token-of-the-fixed-client");
    fixture.wait_for_reload("success", 1).await;
    for path in ["/api/x", "/fixed/x"] {
        assert_eq!(fixture.get(path).await.status, 200);
    }
    let metrics = fixture.gateway.metrics().await;
    let exchanges = |source| metrics.sum("hawkgate_exchanges_total", &[("source", source)]);
    assert!((exchanges("fixed") - 2.0).abs() < 0.1, "{}", metrics.0);
    assert!((exchanges("mint") - 1.0).abs() < 0.1, "{}", metrics.0);
    assert_eq!(fixture.issuer.fetches(), 1);
    assert_ne!(before, signature(&fixture, "/fixed/same").await);
}

/// The Hawk header that the upstream received.
async fn signature(fixture: &Fixture, path: &str) -> String {
    assert_eq!(fixture.get(path).await.status, 200);
    let attempts = fixture.upstream.attempts_at(path);
    let header = attempts.last().unwrap().request.header("authorization");
    header.unwrap().to_owned()
}

#[tokio::test]
async fn an_in_flight_request_finishes_with_the_configuration_it_started_with() {
    let fixture = Fixture::start().await;
    let latch = Latch::closed();
    let script = latch.clone();
    fixture
        .upstream
        .set_handler(move |_| Reply::ok().after(&script));
    let mut client = fixture.gateway.client().await;
    let request = Request::get("/api/slow").bearer(&fixture.token());
    let (response, ()) = tokio::join!(client.request(&request), async {
        fixture
            .upstream
            .until("the request", |a| !a.is_empty())
            .await;
        fixture.replace("hawkgate.toml", fixture.text("/gone/"));
        fixture.wait_for_reload("success", 1).await;
        latch.open();
    });
    assert_eq!(response.unwrap().status, 200);
    // The connection stays open.
    let again = client.request(&request).await.unwrap();
    assert_eq!(again.error_reason(), Some("no_route"));
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_connections_only() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let folder = files();
    let publish = |ca: &TestCa, files: &ConfigDir| {
        let identity = ca.issue(&["gate.test"]);
        files.write("key.pem", identity.key_pem);
        files.write("cert.pem", identity.cert_pem)
    };
    publish(&old, &folder);
    let server = SERVER_CONFIG.replace(
        r#"["127.0.0.1:0"]"#,
        r#"[{ address = "127.0.0.1:0", tls = { cert = "cert.pem", key = "key.pem" } }]"#,
    );
    let fixture = Fixture::start_in(folder, &server, Some(EVERY)).await;
    let request = Request::get("/api/x").bearer(&fixture.token());
    let address = fixture.gateway.address();
    let connect = async |ca| Client::connect_tls(address, ca, "gate.test", None).await;
    let mut client = connect(&old).await.unwrap();
    assert_eq!(client.request(&request).await.unwrap().status, 200);
    let metrics = fixture.gateway.metrics().await;
    let listener = address.to_string();
    let read = |name| metrics.sum(name, &[("listener", &listener)]);
    let from = read("hawkgate_certificate_not_before_timestamp_seconds");
    let expiry = read("hawkgate_certificate_expiry_timestamp_seconds");
    // rcgen's certificates are valid from 1975 to 4096.
    assert!(0.0 < from && from < 2e8 && expiry > 6e10, "{from} {expiry}");
    assert!(metrics.sum("hawkgate_replay_memory_limit_bytes", &[]) > 1e6);

    // Between the two writes key and certificate do not match; that must be tolerated.
    publish(&new, &fixture.gateway.files);
    until("the new certificate", async || connect(&new).await.is_ok()).await;
    assert!(connect(&old).await.is_err());
    let mut renewed = connect(&new).await.unwrap();
    assert_eq!(renewed.request(&request).await.unwrap().status, 200);
    assert_eq!(client.request(&request).await.unwrap().status, 200);

    fixture.replace("cert.pem", "not a certificate");
    wait_for_log(&fixture.gateway, "cert.pem holds no PEM certificate").await;
    assert!(connect(&new).await.is_ok());
}

#[tokio::test]
async fn changes_that_need_a_restart_are_logged_and_the_rest_applies() {
    let fixture = Fixture::start().await;
    let text = fixture
        .text("/rest/")
        .replace("drain = \"10s\"", "drain = \"11s\"")
        .replace(
            "listen = [\"127.0.0.1:0\"]",
            "listen = [\"127.0.0.1:0\", \"unix:new.sock\"]",
        );
    fixture.replace(
        "hawkgate.toml",
        format!("{text}\n[limits]\nbody = \"3B\"\nurl_bytes = \"1KiB\"\n"),
    );
    wait_for_status(&fixture, "/rest/x", 200).await;
    wait_for_log(
        &fixture.gateway,
        "\"keys\":\"server.listen, server.drain, limits.url_bytes\"",
    )
    .await;
    assert!(!fixture.gateway.files.path("new.sock").exists());
    let upload = Request::post("/rest/x", "four").bearer(&fixture.token());
    assert_eq!(
        fixture.gateway.send(&upload).await.error_reason(),
        Some("body_too_large")
    );
}

#[tokio::test]
async fn a_changed_rate_limit_over_all_routes_applies() {
    let fixture = Fixture::start().await;
    for (reloads, burst) in [(1, 2), (2, 3)] {
        let text = fixture.text("/api/");
        let limit = format!("[limits.rate]\nrequests = 1\nper = \"1h\"\nburst = {burst}\n");
        fixture.replace("hawkgate.toml", format!("{text}\n{limit}"));
        fixture.wait_for_reload("success", reloads).await;
        for _ in 0..burst {
            assert_eq!(fixture.get("/api/x").await.status, 200);
        }
        assert_eq!(fixture.get("/api/x").await.status, 429);
    }
}

/// A file that is valid for the listeners that it names can be insecure on those that are bound.
#[tokio::test]
async fn a_reload_is_checked_against_the_listeners_that_are_bound() {
    let server = SERVER_CONFIG.replace("listen = [\"127.0.0.1:0\"]", "listen = [\"0.0.0.0:0\"]");
    let fixture = Fixture::start_in(files(), &server, Some(EVERY)).await;
    let open = fixture
        .text("/api/")
        .replace("path = \"/fixed/\"", "path = \"/fixed/\"\nanonymous = true");
    let open = open.replacen(
        "issuers = [\"idp\"]\nsource = \"fixed\"",
        "source = \"fixed\"",
        1,
    );
    fixture.replace("hawkgate.toml", &open);
    assert!(hawkgate::config::load(&fixture.gateway.files.path("hawkgate.toml")).is_ok());
    fixture.wait_for_reload("invalid", 1).await;
    let anonymous = Request::get("/fixed/x");
    let hawkgate::proxy::settings::Address::Tcp(bound) = fixture.gateway.address() else {
        panic!("TCP")
    };
    let here = ([127, 0, 0, 1], bound.port()).into();
    let mut client = Client::connect(&hawkgate::proxy::settings::Address::Tcp(here)).await;
    let refused = client.request(&anonymous).await.unwrap();
    assert_eq!(refused.error_reason(), Some("missing_token"));
}

#[tokio::test]
async fn a_new_issuer_that_is_down_affects_readiness_only_after_startup_grace() {
    let clock = ManualClock::at(SystemClock::shared().now());
    let issuer = IssuerServer::start(&[&SHARED[1]]).await;
    let other = IssuerServer::start(&[&SHARED[1]]).await;
    other.server.down().await;
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let text = |issuer: &IssuerServer| {
        format!(
            "{SERVER_CONFIG}startup_grace = \"60s\"\n{}",
            sections(issuer, &upstream, "/api/")
        )
    };
    let gateway = TestGateway::start_with(&text(&issuer), files(), clock.clone()).await;
    let path = gateway.files.path("hawkgate.toml");
    let loaded = reload::load(&path, None).unwrap();
    let reloads = gateway.running.reloads(path, loaded.fingerprints, None);
    let ready = async |status: u16| {
        until(&format!("/readyz to be {status}"), async || {
            gateway.admin("/readyz").await.status == status
        })
        .await;
    };
    ready(200).await;
    gateway.files.write("hawkgate.toml", text(&other));
    reloads.request();
    let name = "hawkgate_config_reloads_total";
    gateway
        .wait_for_metric(name, &[("result", "success")], 1)
        .await;
    assert_eq!(gateway.admin("/readyz").await.status, 200);
    clock.advance(Duration::from_secs(61));
    assert_eq!(gateway.admin("/readyz").await.status, 503);
    other.server.up().await;
    clock.advance(Duration::from_secs(31));
    ready(200).await;
}

#[tokio::test]
async fn replaced_credentials_survive_reloads_until_their_source_changes() {
    let fixture = Fixture::start().await;
    let updating = |text: String| {
        text.replace(
            "client_id = \"me\"",
            "client_id = \"me\"\ncredentials_update = true",
        )
    };
    fixture.replace("hawkgate.toml", updating(fixture.text("/api/")));
    fixture.wait_for_reload("success", 1).await;
    let body = r#"{"clientId": "put", "accessToken": "an-access-token-that-was-put"}"#;
    let mut operator = Client::connect(fixture.gateway.admin_address()).await;
    let update = Request::new("PUT", "/credentials").body(Body::Sized(body.into()));
    assert_eq!(operator.request(&update).await.unwrap().status, 200);
    assert!(signature(&fixture, "/fixed/x").await.contains("id=\"put\""));
    fixture.replace("hawkgate.toml", updating(fixture.text("/other/")));
    fixture.wait_for_reload("success", 2).await;
    assert!(signature(&fixture, "/fixed/x").await.contains("id=\"put\""));
    fixture.replace("fixed-token", "the-second-token-of-the-fixed-client");
    fixture.wait_for_reload("success", 3).await;
    assert!(signature(&fixture, "/fixed/x").await.contains("id=\"me\""));
}

#[tokio::test]
async fn files_that_check_refuses_are_refused_by_a_reload() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.get("/api/x").await.status, 200);
    let files = &fixture.gateway.files;
    files.write("junk.json", "junk");
    files.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let issuer = |name: &str, keys: &str| {
        format!(
            "\n[[issuer]]\nname = \"{name}\"\nurl = \"https://{name}.example.com\"\naudiences = [\"x\"]\n{keys}\n"
        )
    };
    let added = [
        issuer("one", "jwks_file = \"junk.json\""),
        issuer(
            "two",
            "ca = \"broken.pem\"\njwks_url = \"https://two.example.com/\"",
        ),
    ];
    let text = format!("{}{}", fixture.text("/two/"), added.concat());
    fixture.replace("hawkgate.toml", text);
    fixture.wait_for_reload("invalid", 1).await;
    for message in [
        "junk.json: the JWK Set is not a JSON object",
        "broken.pem is unusable: its certificate number 1 is malformed",
    ] {
        wait_for_log(&fixture.gateway, message).await;
    }
    assert_eq!(fixture.get("/api/x").await.status, 200);
    assert_eq!(fixture.get("/two/x").await.status, 404);
}
