//! Readiness and the names of upstreams: requests right after the start, names that cannot be resolved,
//! and upstreams that move.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hawkgate::proxy::settings::Address;
use hawkgate::remote::dns::Resolver;
use tokio::sync::watch;

use crate::support::client::Request;
use crate::support::gateway::TestGateway;
use crate::support::upstream::{FakeUpstream, Reply};
use crate::support::wait::until;

/// A name service. Names that end in `.invalid` do not exist; all others have the address `current`.
#[derive(Debug)]
struct Names {
    current: Mutex<SocketAddr>,
    lookups: AtomicUsize,
    /// Look-ups end only while this is true.
    answering: watch::Sender<bool>,
}

impl Names {
    fn of(upstream: &FakeUpstream) -> Arc<Self> {
        Arc::new(Self {
            current: Mutex::new(address(upstream)),
            lookups: AtomicUsize::new(0),
            answering: watch::Sender::new(true),
        })
    }

    fn move_to(&self, upstream: &FakeUpstream) {
        *self.current.lock().unwrap() = address(upstream);
    }

    fn lookups(&self) -> usize {
        self.lookups.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Resolver for Names {
    async fn lookup(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let mut answering = self.answering.subscribe();
        answering
            .wait_for(|answering| *answering)
            .await
            .map_err(io::Error::other)?;
        if host.ends_with(".invalid") {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(vec![*self.current.lock().unwrap()])
    }
}

fn address(upstream: &FakeUpstream) -> SocketAddr {
    match upstream.address() {
        Address::Tcp(address) => address,
        Address::Unix(path) => panic!("{}", path.display()),
    }
}

fn route(name: &str, host: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\npath = \"/{name}/\"\nupstream = \"http://{host}:8080\"\nanonymous = true\nallow_plaintext = true\n"
    )
}

#[tokio::test]
async fn hawkgate_is_not_ready_before_the_name_is_resolved_and_requests_wait_for_it() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let names = Names::of(&upstream);
    names.answering.send_replace(false);
    let (gateway, _) =
        TestGateway::start_resolving(&route("api", "upstream.example"), names.clone()).await;
    let page = gateway.admin("/readyz").await;
    assert_eq!(page.status, 503);
    assert!(page.text().contains("upstream.example"), "{}", page.text());
    assert_eq!(gateway.admin("/healthz").await.status, 200);

    let (get, post) = (Request::get("/api/x"), Request::post("/api/x", "body"));
    let (mut one, mut other) = (gateway.client().await, gateway.client().await);
    let (first, second) = (one.request(&get), other.request(&post));
    let answer = async {
        until("the look-up", async || names.lookups() == 1).await;
        names.answering.send_replace(true);
    };
    let (first, second, ()) = tokio::join!(first, second, answer);
    assert_eq!(first.unwrap().status, 200);
    assert_eq!(second.unwrap().status, 200);
    assert_eq!(names.lookups(), 1);
    assert_eq!(gateway.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_request_that_finds_the_upstream_gone_is_sent_to_its_new_address() {
    for method in ["GET", "POST"] {
        let before = FakeUpstream::http1(|_| Reply::new(200, "before")).await;
        let after = FakeUpstream::http1(|_| Reply::new(200, "after")).await;
        let names = Names::of(&before);
        let (gateway, _) =
            TestGateway::start_resolving(&route("api", "upstream.example"), names.clone()).await;
        let request = match method {
            "GET" => Request::get("/api/x"),
            _ => Request::post("/api/x", "body"),
        };
        assert_eq!(gateway.send(&request).await.text(), "before");
        before.down().await;
        names.move_to(&after);
        let response = gateway.send(&request).await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "after"),
            "{method}"
        );
        assert_eq!(names.lookups(), 2);
    }
}

#[tokio::test]
async fn a_dead_upstream_costs_one_look_up_a_second() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let names = Names::of(&upstream);
    let (gateway, clock) =
        TestGateway::start_resolving(&route("api", "upstream.example"), names.clone()).await;
    let request = Request::get("/api/x");
    assert_eq!(gateway.send(&request).await.status, 200);
    upstream.down().await;
    for _ in 0..20 {
        let response = gateway.send(&request).await;
        assert_eq!(
            response.status_and_reason(),
            (502, Some("upstream_unreachable"))
        );
    }
    assert_eq!(names.lookups(), 2);
    clock.advance(Duration::from_secs(1));
    upstream.up().await;
    assert_eq!(gateway.send(&request).await.status, 200);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_no_reason_to_turn_other_routes_callers_away() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let names = Names::of(&upstream);
    let routes = [
        route("api", "upstream.example"),
        route("dead", "gone.invalid"),
    ]
    .concat();
    let (gateway, clock) = TestGateway::start_resolving(&routes, names).await;
    let page = gateway.admin("/readyz").await;
    assert_eq!(page.status, 503);
    assert!(page.text().contains("gone.invalid"), "{}", page.text());
    clock.advance(Duration::from_secs(5));
    until("ready", async || {
        gateway.admin("/readyz").await.status == 200
    })
    .await;
    assert_eq!(gateway.send(&Request::get("/api/x")).await.status, 200);
    let dead = gateway.send(&Request::get("/dead/x")).await;
    assert_eq!(
        dead.status_and_reason(),
        (502, Some("upstream_unreachable"))
    );
}

#[tokio::test]
async fn hawkgate_is_not_ready_while_no_upstream_can_be_resolved() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let names = Names::of(&upstream);
    let (gateway, clock) =
        TestGateway::start_resolving(&route("dead", "gone.invalid"), names.clone()).await;
    clock.advance(Duration::from_hours(1));
    let page = gateway.admin("/readyz").await;
    assert_eq!(page.status, 503);
    assert!(page.text().contains("gone.invalid"), "{}", page.text());
}
