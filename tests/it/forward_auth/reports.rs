//! Reported 401s.

use serde_json::json;

use super::{Fixture, question};
use crate::support::client::{Request, Response};

fn receipt(answer: &Response) -> String {
    answer.header("x-hawkgate-credential").unwrap().to_owned()
}

fn report(token: &str, receipt: &str) -> Request {
    Request::new("POST", "/unauthorized")
        .bearer(token)
        .header("X-Hawkgate-Rejected", receipt)
}

#[tokio::test]
async fn a_report_replaces_the_credential_that_was_rejected_and_no_other() {
    let fixture = Fixture::start("traefik").await;
    let token = fixture.peers.token("user|1").await;
    let asked = question("traefik", "GET", "login.test", "/api/x", &token);
    let first = fixture.ask(&asked).await;
    fixture.peers.taskcluster.revoke().await;
    let rejected = fixture.forward(Request::get("/api/x"), &first).await;
    assert_eq!(rejected.status, 401);

    let reported = fixture.ask(&report(&token, &receipt(&first))).await;
    assert_eq!(reported.status_and_reason(), (204, None));
    let second = fixture.ask(&asked).await;
    let accepted = fixture.forward(Request::get("/api/x"), &second).await;
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    assert_eq!(fixture.peers.exchanges().await, 2);

    // Again, and late: the generation is no longer current.
    for _ in 0..3 {
        let reported = fixture.ask(&report(&token, &receipt(&first))).await;
        assert_eq!(reported.status, 204);
    }
    fixture.ask(&asked).await;
    assert_eq!(fixture.peers.exchanges().await, 2);

    // The same caller causes no other exchange in 30 seconds.
    let limited = fixture.ask(&report(&token, &receipt(&second))).await;
    assert_eq!(limited.status_and_reason(), (429, Some("rate_limited")));
    assert_eq!(limited.header("retry-after"), Some("30"));
    fixture.ask(&asked).await;
    assert_eq!(fixture.peers.exchanges().await, 2);
    fixture
        .gateway
        .wait_for_metric("hawkgate_forward_auth_total", &[("result", "reported")], 4)
        .await;
}

#[tokio::test]
async fn receipts_cannot_be_forged_or_used_by_others() {
    let fixture = Fixture::start("envoy").await;
    let (ann, bob) = (
        fixture.peers.token("ann").await,
        fixture.peers.token("bob").await,
    );
    let asked = question("envoy", "GET", "login.test", "/api/x", &ann);
    let own = receipt(&fixture.ask(&asked).await);
    let mut changed = own.clone().into_bytes();
    changed[20] = if changed[20] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    let other = fixture.peers.token("ann").await;
    for (token, receipt) in [
        (&bob, &*own),
        (&other, &*own),
        (&ann, &*changed),
        (&ann, &own[..own.len() - 1]),
        (&ann, ""),
        (&ann, "AAAA"),
    ] {
        let reported = fixture.ask(&report(token, receipt)).await;
        assert_eq!(
            reported.status_and_reason(),
            (400, Some("forward_auth_request"))
        );
    }
    let anonymous = Request::new("POST", "/unauthorized").header("X-Hawkgate-Rejected", &own);
    let reported = fixture.ask(&anonymous).await;
    assert_eq!(reported.status_and_reason(), (401, Some("missing_token")));
    let twice = report(&ann, &own).header("X-Hawkgate-Rejected", &own);
    assert_eq!(fixture.ask(&twice).await.status, 400);
    fixture.ask(&asked).await;
    assert_eq!(fixture.peers.exchanges().await, 1);
}

#[tokio::test]
async fn the_next_question_may_report_and_gets_other_credentials() {
    let fixture = Fixture::start("nginx").await;
    let token = fixture.peers.token("user|1").await;
    let asked = question("nginx", "GET", "login.test", "/api/x", &token);
    let first = fixture.ask(&asked).await;
    fixture.peers.taskcluster.revoke().await;
    let again = asked
        .clone()
        .header("X-Hawkgate-Rejected", &receipt(&first));
    let second = fixture.ask(&again).await;
    let accepted = fixture.forward(Request::get("/api/x"), &second).await;
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    assert_eq!(fixture.peers.exchanges().await, 2);
    // Within 30 seconds there are no others to be had.
    let again = asked
        .clone()
        .header("X-Hawkgate-Rejected", &receipt(&second));
    assert_eq!(fixture.ask(&again).await.status, 200);
    assert_eq!(fixture.peers.exchanges().await, 2);
}

#[tokio::test]
async fn a_report_while_the_exchange_is_down_is_no_401() {
    let fixture = Fixture::start("nginx").await;
    let token = fixture.peers.token("user|1").await;
    let asked = question("nginx", "GET", "login.test", "/api/x", &token);
    let first = fixture.ask(&asked).await;
    let arguments = json!({ "endpoint": "login", "mode": "error" });
    fixture.peers.taskcluster.control("fail", arguments).await;
    let again = asked.header("X-Hawkgate-Rejected", &receipt(&first));
    let answer = fixture.ask(&again).await;
    assert_eq!(
        answer.status_and_reason(),
        (503, Some("exchange_unavailable"))
    );
}

#[tokio::test]
async fn shared_credentials_are_replaced_for_a_question_that_reports() {
    let fixture = Fixture::start("caddy").await;
    let token = fixture.peers.token("user|1").await;
    let asked = question("caddy", "GET", "own.test", "/v1/x", &token);
    let first = fixture.ask(&asked).await;
    let again = asked
        .clone()
        .header("X-Hawkgate-Rejected", &receipt(&first));
    let second = fixture.ask(&again).await;
    assert_ne!(second.header("x-api-token"), first.header("x-api-token"));
}
