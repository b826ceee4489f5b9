//! What each kind of change does.

use hawkgate::clock::ManualClock;

use super::*;
use crate::support::client::{Body, Client};
use crate::support::tls::TestCa;
use crate::support::upstream::Gate as Hold;

/// Sends until the answer has this status: for changes that take effect by themselves.
async fn until_status(house: &House, path: &str, status: u16) {
    let asking = async {
        while house.get(path).await.status != status {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(&format!("{path} to be {status}"), asking).await;
}

#[tokio::test]
async fn a_rewritten_and_a_renamed_file_take_effect_by_themselves() {
    let house = House::build().await;
    assert_eq!(house.get("/api/x").await.status, 200);
    house.gate.files.write("hawkgate.toml", house.text("/two/"));
    until_status(&house, "/two/x", 200).await;
    assert_eq!(house.get("/api/x").await.refusal(), Some("no_route"));
    let next = house.gate.files.write("next", house.text("/three/"));
    std::fs::rename(next, house.gate.files.path("hawkgate.toml")).unwrap();
    until_status(&house, "/three/x", 200).await;
    house.until_reloaded("success", 2).await;
    let metrics = house.gate.metrics().await;
    assert!(metrics.has("hawkgate_config_last_reload_success_timestamp_seconds"));
    // The issuer and the credential went through both.
    assert_eq!(house.issuer.fetches(), 1);
    assert!(metrics.sum("hawkgate_exchanges_total", &[("source", "mint")]) < 1.5);
}

#[tokio::test]
async fn a_config_map_takes_effect_when_its_link_is_swapped() {
    let folder = files();
    let first = "the-first-token-of-the-fixed-client";
    let mut map = ConfigMap::new(
        folder.path("fixed-token").parent().unwrap(),
        &[("hawkgate.toml", ""), ("fixed-token", first)],
    );
    let house = House::build_in(folder, SERVER, Some(EVERY)).await;
    assert_eq!(house.get("/api/x").await.status, 200);
    let text = house.text("/swapped/");
    map.publish(&[("hawkgate.toml", &text), ("fixed-token", first)]);
    until_status(&house, "/swapped/x", 200).await;
    // Another swap with the same content: nothing to do.
    map.publish(&[("hawkgate.toml", &text), ("fixed-token", first)]);
    // And one that only changes a secret.
    map.publish(&[
        ("hawkgate.toml", &text),
        ("fixed-token", "rotated-token-of-fixed"),
    ]);
    house.until_reloaded("success", 2).await;
}

#[tokio::test]
async fn an_invalid_file_changes_nothing_and_every_error_is_logged() {
    let house = House::build().await;
    let broken = house
        .text("/broken/")
        .replace("audiences", "audience_of_the_invalid_file")
        .replace("source = \"mint\"", "source = \"mint-that-is-not-there\"");
    house.put("hawkgate.toml", broken);
    house.until_reloaded("invalid", 1).await;
    assert_eq!(house.get("/api/x").await.status, 200);
    assert_eq!(house.get("/broken/x").await.status, 404);
    until_logged("audience_of_the_invalid_file").await;
    until_logged("mint-that-is-not-there").await;
    until_logged("the configuration is invalid; the previous one stays in effect").await;

    // A secret that goes missing is no reason to stop either, and mends itself.
    house.put("hawkgate.toml", house.text("/mended/"));
    until_status(&house, "/mended/x", 200).await;
    let secret = house.gate.files.path("fixed-token");
    std::fs::remove_file(&secret).unwrap();
    house.until_reloaded("invalid", 2).await;
    assert_eq!(house.get("/mended/x").await.status, 200);
    house.put("fixed-token", "another-token-of-the-fixed-client");
    house.until_reloaded("success", 2).await;
}

#[tokio::test]
async fn a_rotated_secret_remakes_its_source_and_no_other() {
    let house = House::build().await;
    for path in ["/api/x", "/fixed/x", "/api/x", "/fixed/x"] {
        assert_eq!(house.get(path).await.status, 200);
    }
    let before = signature(&house, "/fixed/same").await;
    house.put("fixed-token", "the-second-token-of-the-fixed-client");
    house.until_reloaded("success", 1).await;
    for path in ["/api/x", "/fixed/x"] {
        assert_eq!(house.get(path).await.status, 200);
    }
    let metrics = house.gate.metrics().await;
    let exchanges = |source| metrics.sum("hawkgate_exchanges_total", &[("source", source)]);
    assert!((exchanges("fixed") - 2.0).abs() < 0.1, "{}", metrics.0);
    assert!((exchanges("mint") - 1.0).abs() < 0.1, "{}", metrics.0);
    assert_eq!(house.issuer.fetches(), 1);
    assert_ne!(before, signature(&house, "/fixed/same").await);
}

/// The Hawk header that the upstream got.
async fn signature(house: &House, path: &str) -> String {
    assert_eq!(house.get(path).await.status, 200);
    let attempts = house.upstream.attempts_at(path);
    let header = attempts.last().unwrap().seen.header("authorization");
    header.unwrap().to_owned()
}

#[tokio::test]
async fn a_request_under_way_ends_on_what_it_began_with() {
    let house = House::build().await;
    let hold = Hold::closed();
    let script = hold.clone();
    house.upstream.script(move |_| Reply::ok().gate(&script));
    let mut client = house.gate.client().await;
    let request = Request::get("/api/slow").bearer(&house.token());
    let (response, ()) = tokio::join!(client.request(&request), async {
        house.upstream.until("the request", |a| !a.is_empty()).await;
        house.put("hawkgate.toml", house.text("/gone/"));
        house.until_reloaded("success", 1).await;
        hold.open();
    });
    assert_eq!(response.unwrap().status, 200);
    // Neither was its connection closed.
    let again = client.request(&request).await.unwrap();
    assert_eq!(again.refusal(), Some("no_route"));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_ends_no_old_one() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let folder = files();
    let put = |ca: &TestCa, files: &Files| {
        let identity = ca.issue(&["gate.test"]);
        files.write("key.pem", identity.key_pem);
        files.write("cert.pem", identity.cert_pem)
    };
    put(&old, &folder);
    let server = SERVER.replace(
        r#"["127.0.0.1:0"]"#,
        r#"[{ address = "127.0.0.1:0", tls = { cert = "cert.pem", key = "key.pem" } }]"#,
    );
    let house = House::build_in(folder, &server, Some(EVERY)).await;
    let request = Request::get("/api/x").bearer(&house.token());
    let address = house.gate.address();
    let connect = async |ca| Client::connect_tls(address, ca, "gate.test", None).await;
    let mut client = connect(&old).await.unwrap();
    assert_eq!(client.request(&request).await.unwrap().status, 200);

    // Between the two writes they do not fit; that must be put up with.
    put(&new, &house.gate.files);
    within("the new certificate", async {
        while connect(&new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(connect(&old).await.is_err());
    let mut renewed = connect(&new).await.unwrap();
    assert_eq!(renewed.request(&request).await.unwrap().status, 200);
    assert_eq!(client.request(&request).await.unwrap().status, 200);

    house.put("cert.pem", "no certificate any more");
    until_logged("cert.pem is no PEM certificate").await;
    assert!(connect(&new).await.is_ok());
}

#[tokio::test]
async fn what_needs_a_restart_is_said_and_the_rest_applies() {
    let house = House::build().await;
    let text = house
        .text("/rest/")
        .replace("drain = \"10s\"", "drain = \"11s\"")
        .replace(
            "listen = [\"127.0.0.1:0\"]",
            "listen = [\"127.0.0.1:0\", \"unix:new.sock\"]",
        );
    house.put(
        "hawkgate.toml",
        format!("{text}\n[limits]\nbody = \"3B\"\nurl_bytes = \"1KiB\"\n"),
    );
    until_status(&house, "/rest/x", 200).await;
    until_logged("\"keys\":\"server.listen, server.drain, limits.url_bytes\"").await;
    assert!(!house.gate.files.path("new.sock").exists());
    let upload = Request::post("/rest/x", "four").bearer(&house.token());
    assert_eq!(
        house.gate.send(&upload).await.refusal(),
        Some("body_too_large")
    );
}

/// A file that is valid for the listeners that it names can be dangerous for those that
/// are there.
#[tokio::test]
async fn the_listeners_that_are_there_decide_what_is_allowed() {
    let server = SERVER.replace("listen = [\"127.0.0.1:0\"]", "listen = [\"0.0.0.0:0\"]");
    let house = House::build_in(files(), &server, Some(EVERY)).await;
    let open = house
        .text("/api/")
        .replace("path = \"/fixed/\"", "path = \"/fixed/\"\nanonymous = true");
    let open = open.replacen(
        "issuers = [\"idp\"]\nsource = \"fixed\"",
        "source = \"fixed\"",
        1,
    );
    house.put("hawkgate.toml", &open);
    assert!(hawkgate::config::load(&house.gate.files.path("hawkgate.toml")).is_ok());
    house.until_reloaded("invalid", 1).await;
    let anonymous = Request::get("/fixed/x");
    let hawkgate::proxy::settings::Address::Tcp(bound) = house.gate.address() else {
        panic!("TCP")
    };
    let here = ([127, 0, 0, 1], bound.port()).into();
    let mut client = Client::connect(&hawkgate::proxy::settings::Address::Tcp(here)).await;
    let refused = client.request(&anonymous).await.unwrap();
    assert_eq!(refused.refusal(), Some("missing_token"));
}

#[tokio::test]
async fn a_new_issuer_that_is_down_does_not_take_readiness_away_at_once() {
    let clock = ManualClock::at(SystemClock::shared().now());
    let issuer = IssuerServer::start(&[&SHARED[1]]).await;
    let other = IssuerServer::start(&[&SHARED[1]]).await;
    other.server.down().await;
    let upstream = Upstream::http1(|_| Reply::ok()).await;
    let text = |issuer: &IssuerServer| {
        format!(
            "{SERVER}startup_grace = \"60s\"\n{}",
            sections(issuer, &upstream, "/api/")
        )
    };
    let gate = Gate::start_with(&text(&issuer), files(), clock.clone()).await;
    let path = gate.files.path("hawkgate.toml");
    let loaded = reload::load(&path, None).unwrap();
    let reloads = gate.running.reloads(path, loaded.stamps, None);
    let ready = |status: u16| {
        let gate = &gate;
        async move {
            let asking = async {
                while gate.admin("/readyz").await.status != status {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            within(&format!("/readyz to be {status}"), asking).await;
        }
    };
    ready(200).await;
    gate.files.write("hawkgate.toml", text(&other));
    reloads.request();
    let name = "hawkgate_config_reloads_total";
    gate.until_counted(name, &[("result", "success")], 1).await;
    assert_eq!(gate.admin("/readyz").await.status, 200);
    clock.advance(Duration::from_secs(61));
    assert_eq!(gate.admin("/readyz").await.status, 503);
    other.server.up().await;
    clock.advance(Duration::from_secs(31));
    ready(200).await;
}

#[tokio::test]
async fn credentials_that_were_put_stay_until_their_source_changes() {
    let house = House::build().await;
    let updating = |text: String| {
        text.replace(
            "client_id = \"me\"",
            "client_id = \"me\"\ncredentials_update = true",
        )
    };
    house.put("hawkgate.toml", updating(house.text("/api/")));
    house.until_reloaded("success", 1).await;
    let body = r#"{"clientId": "put", "accessToken": "an-access-token-that-was-put"}"#;
    let mut operator = Client::connect(&house.gate.running.admin).await;
    let put = Request::new("PUT", "/credentials").body(Body::Sized(body.into()));
    assert_eq!(operator.request(&put).await.unwrap().status, 200);
    assert!(signature(&house, "/fixed/x").await.contains("id=\"put\""));
    house.put("hawkgate.toml", updating(house.text("/other/")));
    house.until_reloaded("success", 2).await;
    assert!(signature(&house, "/fixed/x").await.contains("id=\"put\""));
    house.put("fixed-token", "the-second-token-of-the-fixed-client");
    house.until_reloaded("success", 3).await;
    assert!(signature(&house, "/fixed/x").await.contains("id=\"me\""));
}
