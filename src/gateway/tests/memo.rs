//! Requests whose token the connection remembers.

use http::HeaderMap;

use super::*;
use crate::gateway::rate_limit::{Rate, RateBy, RateLimiter, RateLimiters};

/// A gateway with [`verifying`]'s route, one with a source that takes the token, one that requires
/// another scope, and one that admits two requests of an identity. All have the same issuer.
fn gateway() -> Gateway {
    let gateway = verifying(None);
    let issuers = gateway.routes.iter().next().unwrap().issuers.clone();
    let route = |name: &str| {
        let mut route = routes::route(name, None, &format!("/{name}/"), None);
        route.anonymous = false;
        route.issuers.clone_from(&issuers);
        route
    };
    let (mut signed, mut admin, mut limited) = (route("signed"), route("admin"), route("limited"));
    let inner = Arc::new(ScriptedSource::default());
    signed.source = Some(routes::source(inner, gateway.clock.clone()));
    admin.require_scopes = vec!["admin".into()];
    let rate = Rate {
        requests: 1,
        per: Duration::from_hours(1),
        burst: 2,
        by: RateBy::Client,
        clients: 10,
    };
    let by_identity = RateLimiter::new(&rate, gateway.clock.clone());
    limited.rates = RateLimiters::new(vec![Arc::new(by_identity)]);
    let mut routes: Vec<_> = gateway.routes.iter().cloned().collect();
    routes.extend([signed, admin, limited].map(Arc::new));
    Gateway {
        routes: RouteTable::new(routes),
        ..gateway
    }
}

async fn admit(
    gateway: &Gateway,
    memo: &mut CallerMemo,
    target: &str,
    token: &str,
) -> Result<Admission, Reason> {
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {token}").parse().unwrap();
    headers.insert(http::header::AUTHORIZATION, value);
    let head = Head::for_test(target, &headers);
    let found = gateway.match_route(head).unwrap();
    let now = Now::read(&*gateway.clock);
    let admitted = gateway.admit_with_memo(found, head, now, memo).await;
    admitted.map_err(|refused| refused.rejection.reason)
}

#[tokio::test]
async fn what_a_route_requires_is_checked_for_a_remembered_token() {
    let (gateway, token) = (gateway(), token(&serde_json::json!({})));
    let mut memo = CallerMemo::default();
    for expected in ["ok", "cached", "cached", "cached"] {
        let admission = admit(&gateway, &mut memo, "/x", &token).await.unwrap();
        assert_eq!(admission.verification, Some(expected));
        assert_eq!(admission.caller.subject(), Some("alice"));
    }
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {token}").parse().unwrap();
    headers.insert(http::header::AUTHORIZATION, value);
    let route = gateway.routes.iter().next().unwrap();
    let now = Now::read(&*gateway.clock);
    assert!(memo.token.recall(&headers, &route.issuers, now).is_some());

    let refused = admit(&gateway, &mut memo, "/admin/x", &token).await;
    assert_eq!(refused.unwrap_err(), Reason::InsufficientScope);
    for admitted in [true, true, false] {
        let limited = admit(&gateway, &mut memo, "/limited/x", &token).await;
        assert_eq!(
            limited.as_ref().err(),
            (!admitted).then_some(&Reason::RateLimited)
        );
    }
    // A source that exchanges the token gets it.
    let admission = admit(&gateway, &mut memo, "/signed/x", &token)
        .await
        .unwrap();
    assert_eq!(admission.lookup, Some(Lookup::Fetched));
    assert_eq!(admission.bearer.unwrap().expose(), token);
}

#[tokio::test]
async fn a_workload_token_is_not_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let token = token(&serde_json::json!({}));
    std::fs::write(&file, &token).unwrap();
    let gateway = verifying(Some(&file));
    let route = gateway.routes.iter().next().unwrap();
    route.workload_token.as_ref().unwrap().refresh().unwrap();
    let mut memo = CallerMemo::default();
    let headers = HeaderMap::new();
    for expected in ["ok", "cached", "cached", "cached"] {
        let head = Head::for_test("/x", &headers);
        let found = gateway.match_route(head).unwrap();
        let now = Now::read(&*gateway.clock);
        let admission = gateway.admit_with_memo(found, head, now, &mut memo).await;
        assert_eq!(admission.unwrap().verification, Some(expected));
    }
    let mut sent = HeaderMap::new();
    let value = format!("Bearer {token}").parse().unwrap();
    sent.insert(http::header::AUTHORIZATION, value);
    let now = Now::read(&*gateway.clock);
    assert!(memo.token.recall(&sent, &route.issuers, now).is_none());
}
