//! Tokens that expire while the session is open, and the ends of sessions.

use std::time::Duration;

use hawkgate::clock::Clock as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::assert_signed_out;
use crate::support::sessions::{HOST, ORIGIN, Options, Site, own_fetch};
use crate::support::wait::until;

const HOUR: Duration = Duration::from_hours(1);
/// Just before the end of an hour, within the time at which tokens are renewed ahead.
const ALMOST: Duration = Duration::from_secs(3595);

fn session(keys: &str) -> String {
    format!("origin = \"{ORIGIN}\"\n{keys}")
}

/// The clock of hawkgate moves, the provider's does not: tokens issued from now on last longer, so
/// that they are valid for both.
async fn advance(site: &Site, by: Duration) {
    site.provider.token_lifetime(by + 2 * HOUR).await;
    site.clock.advance(by);
}

/// A page that opens sends many requests at once. The provider rotates refresh tokens: a second
/// refresh with the same one would revoke the session (RFC 9700 §4.14.2).
#[tokio::test]
async fn parallel_requests_at_expiry_cause_one_refresh() {
    let site = Site::usual().await;
    let visitor = site.signed_in("ada").await;
    advance(&site, HOUR).await;
    site.provider.mode("token", "slow").await;
    let mut sending = JoinSet::new();
    for _ in 0..20 {
        let mut client = site.gateway.client().await;
        let mut request = own_fetch("GET", "/x").header("Cookie", &visitor.cookie_field());
        HOST.clone_into(&mut request.authority);
        sending.spawn(async move { client.request(&request).await.unwrap() });
    }
    let release = async {
        let waiting = json!({ "count": 1 });
        site.provider.control("untilWaiting", waiting).await;
        site.provider.mode("token", "ok").await;
    };
    let (responses, ()) = tokio::join!(sending.join_all(), release);
    for response in &responses {
        assert_eq!(response.status, 200, "{response:?}");
    }
    assert_eq!(site.provider.count("refresh_token granted").await, 1);
    assert_eq!(site.provider.count("refresh_token refused").await, 0);
    let refreshed: Vec<&str> = responses
        .iter()
        .filter_map(|response| response.header("set-cookie"))
        .collect();
    assert!(!refreshed.is_empty());
    site.gateway
        .wait_for_metric(
            "hawkgate_session_refreshes_total",
            &[("session", "web"), ("result", "refreshed")],
            1,
        )
        .await;

    // A request that was already on its way with the old cookie.
    let mut late = visitor.thief();
    assert_eq!(late.fetch("GET", "/late").await.status, 200);
    // Every browser that got a new cookie can use it, and the old one again.
    for response in &responses {
        let mut one = visitor.thief();
        one.store(response);
        assert_eq!(one.fetch("GET", "/again").await.status, 200);
    }
    assert_eq!(site.provider.count("refresh_token granted").await, 1);
    assert_eq!(site.provider.count("refresh_token refused").await, 0);
}

/// A page that is open over night.
#[tokio::test]
async fn a_session_is_renewed_again_and_again() {
    let session = session("idle = \"3h\"");
    let site = Site::start(Options {
        session: &session,
        ..Options::default()
    })
    .await;
    let mut visitor = site.signed_in("ada").await;
    for hour in 1..=6 {
        site.provider.token_lifetime(HOUR * (hour + 1)).await;
        site.clock.advance(HOUR);
        let response = visitor.fetch("GET", "/x").await;
        assert_eq!(response.status, 200, "hour {hour}: {response:?}");
    }
    assert_eq!(site.provider.count("refresh_token granted").await, 6);
    assert_eq!(visitor.who().await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn a_refused_refresh_ends_the_session() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    site.provider
        .control("revoke", json!({ "user": "ada" }))
        .await;
    // The access token is a JWT and valid until it expires.
    assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
    let copy = visitor.thief();
    advance(&site, HOUR).await;
    assert_signed_out(&visitor.fetch("GET", "/x").await);
    let refused = site.provider.count("refresh_token refused").await;
    assert_eq!(refused, 1);
    // The end is remembered: a browser that keeps the cookie costs the provider nothing.
    for _ in 0..3 {
        assert_signed_out(&copy.thief().fetch("GET", "/x").await);
    }
    assert_eq!(site.provider.count("refresh_token refused").await, 1);
    let page = copy.thief().navigate("/page").await;
    assert_eq!(page.status, 302, "{page:?}");
}

/// A provider that fails signs nobody out.
#[tokio::test]
async fn an_unavailable_provider_is_not_a_sign_out() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    for mode in ["error", "disconnect"] {
        site.provider.mode("token", mode).await;
        let before = visitor.session().to_owned();
        if mode == "error" {
            // Due, but still valid.
            site.clock.advance(ALMOST);
            assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
            advance(&site, HOUR).await;
        }
        until("the token to be known as expired", async || {
            let response = visitor.fetch("GET", "/x").await;
            if response.status == 200 {
                return false;
            }
            assert_eq!(
                response.status_and_reason(),
                (503, Some("session_unavailable")),
                "{response:?}"
            );
            assert!(response.header("retry-after").is_some(), "{response:?}");
            true
        })
        .await;
        assert_eq!(visitor.session(), before, "the cookie stays");
    }
    site.provider.mode("token", "ok").await;
    site.clock.advance(Duration::from_mins(1));
    assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
    assert_eq!(visitor.who().await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn an_unused_session_ends() {
    let session = session("idle = \"30m\"");
    let site = Site::start(Options {
        session: &session,
        ..Options::default()
    })
    .await;
    let mut visitor = site.signed_in("ada").await;
    let abandoned = visitor.thief();
    for _ in 0..2 {
        site.clock.advance(Duration::from_mins(20));
        assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
    }
    assert_signed_out(&abandoned.thief().fetch("GET", "/x").await);
    site.clock.advance(Duration::from_mins(31));
    assert_signed_out(&visitor.fetch("GET", "/x").await);
}

#[tokio::test]
async fn a_session_ends_at_the_end_of_its_lifetime_however_it_is_used() {
    let session = session("idle = \"1h\"\nlifetime = \"2h\"");
    let site = Site::start(Options {
        session: &session,
        provider: json!({ "accessTokenTtl": 36_000, "idTokenTtl": 36_000 }),
        ..Options::default()
    })
    .await;
    let mut visitor = site.signed_in("ada").await;
    for _ in 0..5 {
        site.clock.advance(Duration::from_mins(23));
        assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
    }
    site.clock.advance(Duration::from_mins(23));
    assert_signed_out(&visitor.fetch("GET", "/x").await);
}

/// Clocks are set: hawkgate's is behind, or was ahead when the session began.
#[tokio::test]
async fn a_clock_that_is_set_back_neither_locks_out_nor_extends() {
    let session = session("idle = \"30m\"\nlifetime = \"1h\"");
    let site = Site::start(Options {
        session: &session,
        ..Options::default()
    })
    .await;
    let mut visitor = site.signed_in("ada").await;
    let now = site.clock.now();
    site.clock.set_wall(now.minus(Duration::from_secs(20)));
    assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
    // What seems to come from tomorrow would be valid for longer than any session may be.
    site.clock.set_wall(now.minus(24 * HOUR));
    assert_signed_out(&visitor.fetch("GET", "/x").await);
}

#[tokio::test]
async fn a_provider_without_refresh_tokens_ends_the_session_with_the_access_token() {
    let site = Site::usual().await;
    site.provider
        .control("tokenResponse", json!({ "refresh_token": null }))
        .await;
    let mut visitor = site.signed_in("ada").await;
    assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
    site.clock.advance(HOUR + Duration::from_mins(1));
    assert_signed_out(&visitor.fetch("GET", "/x").await);
    assert_eq!(site.provider.count("refresh_token refused").await, 0);
}

/// Keys that the provider no longer uses end no session by themselves: it is renewed.
#[tokio::test]
async fn a_session_survives_the_rotation_of_the_providers_keys() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    site.provider.control("rotate", json!({})).await;
    advance(&site, HOUR).await;
    assert_eq!(visitor.fetch("GET", "/x").await.status, 200);
    assert_eq!(site.provider.count("refresh_token granted").await, 1);
}
