//! Sessions at two replicas that share a real Redis server.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::Request;
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::redis::RedisServer;
use crate::support::sessions::{
    CLIENT_SECRET, COOKIE, HOST, ORIGIN, Options, Site, Visitor, cookie_key, own_fetch,
};
use crate::support::wait::until;

/// A site at two replicas.
struct Fleet {
    redis: RedisServer,
    site: Site,
    other: TestGateway,
}

impl Fleet {
    async fn start(store: &str) -> Self {
        let redis = RedisServer::start(&[]).await;
        let sections = format!(
            "[shared]\nurl = \"{}\"\nkey = {{ file = \"fleet-key\" }}\n",
            redis.url()
        );
        let site = Site::start(Options {
            session: &format!("origin = \"{ORIGIN}\"\nstore = \"{store}\""),
            sections: &sections,
            files: &[("fleet-key", cookie_key(9))],
            ..Options::default()
        })
        .await;
        let files = ConfigDir::new();
        files.write("client-secret", CLIENT_SECRET);
        files.write("cookie-key", cookie_key(1));
        files.write("fleet-key", cookie_key(9));
        let other = TestGateway::start_with(&site.text, files, site.clock.clone()).await;
        Self { redis, site, other }
    }

    /// The same browser, sent to the other replica by a load balancer.
    fn at_other(&self, visitor: &Visitor<'_>) -> Visitor<'_> {
        let mut other = Visitor::of(&self.other);
        for (name, value) in visitor.cookies() {
            other.set_cookie(name, value);
        }
        other
    }

    async fn sign_out(visitor: &mut Visitor<'_>) {
        let logout = Request::post("/oauth2/logout", "")
            .header("Sec-Fetch-Site", "same-origin")
            .header("Origin", ORIGIN);
        let response = visitor.send(logout).await;
        assert!(response.status < 400, "{response:?}");
    }
}

#[tokio::test]
async fn a_session_is_open_at_every_replica_until_it_is_signed_out_at_one() {
    for store in ["shared", "cookie"] {
        let fleet = Fleet::start(store).await;
        let mut here = fleet.site.signed_in("ada").await;
        assert_eq!(here.session().len() < 200, store == "shared");
        let mut there = fleet.at_other(&here);
        assert_eq!(there.who().await.as_deref(), Some("ada"));
        Fleet::sign_out(&mut here).await;
        assert!(here.cookie(COOKIE).is_none());
        until("the other replica to hear of it", async || {
            there.thief().who().await.is_none()
        })
        .await;
        let response = there.fetch("GET", "/x").await;
        let refused = (401, Some("sign_in_required"));
        assert_eq!(response.status_and_reason(), refused, "{response:?}");
    }
}

#[tokio::test]
async fn a_logout_token_at_one_replica_ends_sessions_at_the_other() {
    for store in ["shared", "cookie"] {
        let fleet = Fleet::start(store).await;
        let here = fleet.site.signed_in("ada").await;
        let grace = fleet.site.signed_in("grace").await;
        let (ada, mut grace) = (fleet.at_other(&here), fleet.at_other(&grace));
        assert_eq!(ada.thief().who().await.as_deref(), Some("ada"));
        let sid = fleet.site.provider.sid("ada").await;
        let claims = json!({ "claims": { "sid": sid } });
        let token = fleet.site.provider.logout_token(claims).await;
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("logout_token", &token)
            .finish();
        let mut request = Request::post("/oauth2/backchannel-logout", body)
            .header("Content-Type", "application/x-www-form-urlencoded");
        HOST.clone_into(&mut request.authority);
        let response = fleet.site.gateway.send(&request).await;
        assert_eq!(response.status, 200, "{response:?}");
        until("the other replica to hear of it", async || {
            ada.thief().who().await.is_none()
        })
        .await;
        assert_eq!(grace.who().await.as_deref(), Some("grace"));
        // The same token is accepted once in the fleet.
        let response = fleet.other.send(&request).await;
        assert_eq!(response.status, 400, "{response:?}");
    }
}

#[tokio::test]
async fn requests_at_two_replicas_at_expiry_cause_one_refresh() {
    const HOUR: Duration = Duration::from_hours(1);
    let fleet = Fleet::start("shared").await;
    let site = &fleet.site;
    let visitor = site.signed_in("ada").await;
    let mut there = fleet.at_other(&visitor);
    assert_eq!(there.who().await.as_deref(), Some("ada"));
    site.provider.token_lifetime(3 * HOUR).await;
    site.clock.advance(HOUR);
    site.provider.mode("token", "slow").await;
    let mut sending = JoinSet::new();
    for n in 0..12 {
        let gateway = if n % 2 == 0 {
            &site.gateway
        } else {
            &fleet.other
        };
        let mut client = gateway.client().await;
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
}

#[tokio::test]
async fn while_the_server_is_gone_known_sessions_go_on_and_nobody_is_signed_out() {
    let mut fleet = Fleet::start("shared").await;
    let visitor = fleet.site.signed_in("ada").await;
    let cookies = visitor.cookies().to_vec();
    fleet.redis.kill().await;
    let mut here = fleet.site.visitor();
    let mut there = Visitor::of(&fleet.other);
    for (name, value) in &cookies {
        here.set_cookie(name, value);
        there.set_cookie(name, value);
    }
    let response = here.fetch("GET", "/x").await;
    assert_eq!(response.status, 200, "{response:?}");
    let response = there.fetch("GET", "/x").await;
    let unavailable = (503, Some("session_unavailable"));
    assert_eq!(response.status_and_reason(), unavailable, "{response:?}");
    assert!(response.header("retry-after").is_some(), "{response:?}");
    assert!(response.header("set-cookie").is_none(), "{response:?}");
    // A server that has lost everything means signing in again.
    fleet.redis.restart().await;
    let mut there = Visitor::of(&fleet.other);
    for (name, value) in &cookies {
        there.set_cookie(name, value);
    }
    until("the other replica to ask the server", async || {
        let response = there.thief().fetch("GET", "/x").await;
        response.status_and_reason() == (401, Some("sign_in_required"))
    })
    .await;
    let response = there.sign_in(&fleet.site.provider, "ada", "/").await;
    assert_eq!(response.status / 100, 3, "{response:?}");
}
