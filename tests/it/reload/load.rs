//! Many reloads under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::support::client::Client;

const RELOADS: u32 = 200;
const CALLERS: usize = 4;

/// Sends requests on one connection until stopped; all must succeed.
async fn call(mut client: Client, token: String, stop: Arc<AtomicBool>, sent: Arc<AtomicUsize>) {
    let upload = vec![b'x'; 100_000];
    while !stop.load(Ordering::Relaxed) {
        for request in [
            Request::get("/api/load").bearer(&token),
            Request::post("/fixed/load", upload.clone()).bearer(&token),
        ] {
            let response = client.request(&request).await.unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_lose_no_request_and_drop_old_gateways_and_metrics() {
    let fixture = Fixture::start_in(files(), SERVER_CONFIG, None).await;
    let (stop, sent) = (Arc::default(), Arc::new(AtomicUsize::default()));
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let client = fixture.gateway.client().await;
        let calling = call(
            client,
            fixture.token(),
            Arc::clone(&stop),
            Arc::clone(&sent),
        );
        callers.push(tokio::spawn(calling));
    }
    let mut gateways = Vec::new();
    let mut before = 0;
    for round in 1..=RELOADS {
        gateways.push(Arc::downgrade(&fixture.gateway.running.gateway()));
        let text = format!("{}{}", fixture.text("/api/"), extra(round, &fixture));
        fixture.replace("hawkgate.toml", text);
        fixture.reloads.request();
        fixture.wait_for_reload("success", round).await;
        // Requests are served during every reload.
        until("a request", async || sent.load(Ordering::Relaxed) != before).await;
        before = sent.load(Ordering::Relaxed);
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        within("a caller", caller).await.unwrap();
    }

    // Kept: one fetch of the keys and one exchange per source.
    assert_eq!(fixture.issuer.fetches(), 1);
    let metrics = fixture.gateway.metrics().await;
    let count = |name, labels: &[(&str, &str)]| metrics.sum(name, labels).round();
    for source in ["mint", "fixed"] {
        assert!(count("hawkgate_exchanges_total", &[("source", source)]) < 1.5);
        let entries = count("hawkgate_credential_cache_entries", &[("source", source)]);
        assert!((entries - 1.0).abs() < 0.5, "{entries}");
    }
    assert!(fixture.upstream.connections() <= 4 * CALLERS);

    // Dropped: every gateway except the last, and the metrics of removed routes.
    until("old configurations to be dropped", async || {
        gateways.iter().all(|gateway| gateway.upgrade().is_none())
    })
    .await;
    // About forty for each of four routes; two hundred removed routes would have thousands.
    let extras = metrics.0.matches("hawkgate_requests_total{").count();
    assert!(extras < 400, "{extras} series");
    assert!(metrics.0.contains(&format!("extra-{RELOADS}")));
    assert!(!metrics.0.contains("extra-1\""));
}

/// A source, an upstream and a route that are different in each round.
fn extra(round: u32, fixture: &Fixture) -> String {
    format!(
        r#"
[[source]]
name = "extra-{round}"
kind = "taskcluster-static"
client_id = "extra"
access_token = {{ file = "fixed-token" }}

[[route]]
name = "extra-{round}"
path = "/extra-{round}/"
upstream = "http://127.0.0.1:{}"
signed_port = {}
issuers = ["idp"]
source = "extra-{round}"
"#,
        fixture.upstream.port(),
        1000 + round,
    )
}
