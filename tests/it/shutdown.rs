//! Beginning and end: what callers and probes see of them.

use std::time::Duration;

use bytes::Bytes;
use hawkgate::clock::SystemClock;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{Body, Client, Http2Client, Request, within};
use crate::support::gate::{Files, Gate, SERVER};
use crate::support::tokens::{IssuerServer, SHARED, claims};
use crate::support::upstream::{Gate as Hold, Reply, Upstream, sha256};

const OPEN: &str = r#"
[[route]]
name = "open"
path = "/"
anonymous = true
"#;

/// A hawkgate in front of an upstream that holds its answers back.
async fn held(server: &str) -> (Gate, Upstream, Hold) {
    let hold = Hold::closed();
    let script = hold.clone();
    let upstream = Upstream::http1(move |_| Reply::ok().gate(&script)).await;
    let text = format!("{server}{OPEN}upstream = \"{}\"\n", upstream.url());
    let gate = Gate::start_with(&text, Files::new(), SystemClock::shared()).await;
    (gate, upstream, hold)
}

/// Waits until nobody can connect any more: the end has begun.
async fn until_closed(gate: &Gate) {
    let hawkgate::proxy::settings::Address::Tcp(address) = gate.address() else {
        panic!("TCP")
    };
    within("the listener to close", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn requests_under_way_end_well_and_say_that_the_connection_closes() {
    let (gate, upstream, hold) = held(SERVER).await;
    let body: Bytes = vec![b'u'; 300_000].into();
    let poll = Request::get("/poll");
    let upload = Request::new("POST", "/upload").body(Body::Chunked(body.clone(), 10_000));
    let (mut one, mut two) = (gate.client().await, gate.client().await);
    let mut idle = gate.client().await;
    let ending = async {
        upstream.until("both requests", |a| a.len() == 2).await;
        assert_eq!(gate.admin("/readyz").await.status, 200);
        let drained = gate.running.drain();
        let seen = async {
            until_closed(&gate).await;
            let draining = gate.admin("/readyz").await;
            assert_eq!((draining.status, draining.text().trim()), (503, "draining"));
            assert_eq!(gate.admin("/healthz").await.status, 200);
            assert!(idle.rest().await.unwrap().is_empty());
            hold.open();
        };
        tokio::join!(drained, seen);
    };
    let all = async { tokio::join!(one.request(&poll), two.request(&upload), ending) };
    let (polled, uploaded, ()) = within("the end", Box::pin(all)).await;
    for response in [polled.unwrap(), uploaded.unwrap()] {
        assert_eq!(response.status, 200);
        assert_eq!(response.header("connection"), Some("close"));
    }
    assert!(one.rest().await.unwrap().is_empty());
    let upload = &upstream.attempts_at("/upload")[0];
    assert_eq!(upload.sha256.as_deref(), Some(sha256(&body).as_str()));
}

#[tokio::test]
async fn an_upload_that_goes_on_for_long_is_waited_for() {
    let upstream = Upstream::http1(|_| Reply::ok()).await;
    let text = format!("{SERVER}{OPEN}upstream = \"{}\"\n", upstream.url());
    let gate = Gate::start_with(&text, Files::new(), SystemClock::shared()).await;
    let mut stream = crate::support::client::connect(gate.address())
        .await
        .unwrap();
    let head = b"PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nfour";
    stream.write_all(head).await.unwrap();
    upstream
        .until("half of it", |a| a.iter().any(|a| a.received == 4))
        .await;
    let ((), response) = within("the end", async {
        tokio::join!(gate.running.drain(), async {
            until_closed(&gate).await;
            stream.write_all(b"more").await.unwrap();
            Client::over(stream).response("PUT").await.unwrap()
        })
    })
    .await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("connection"), Some("close"));
}

#[tokio::test]
async fn refusals_say_so_too() {
    let hold = Hold::closed();
    let issuer = IssuerServer::start(&[&SHARED[1]]).await;
    issuer.mood(crate::support::tokens::Mood::Held(hold.clone()));
    let upstream = Upstream::http1(|_| Reply::ok()).await;
    let text = format!(
        "{SERVER}\n[[issuer]]\nname = \"idp\"\nurl = \"{}\"\naudiences = [\"api\"]\n\
         [[route]]\nname = \"closed\"\npath = \"/\"\nissuers = [\"idp\"]\nupstream = \"{}\"\n",
        issuer.issuer(),
        upstream.url(),
    );
    let gate = Gate::start_with(&text, Files::new(), SystemClock::shared()).await;
    let now = SystemClock::shared().now().as_secs();
    let token = SHARED[1].token("ES256", &claims(&issuer.issuer(), "another-api", now));
    let mut client = gate.client().await;
    let request = Request::get("/x").bearer(&token);
    let (response, ()) = within(
        "the end",
        Box::pin(async {
            tokio::join!(client.request(&request), async {
                gate.until_counted("hawkgate_requests_in_flight", &[], 1)
                    .await;
                tokio::join!(gate.running.drain(), async {
                    until_closed(&gate).await;
                    hold.open();
                });
            })
        }),
    )
    .await;
    let response = response.unwrap();
    assert_eq!(response.refusal(), Some("token_audience"));
    assert_eq!(response.header("connection"), Some("close"));
}

#[tokio::test]
async fn http2_callers_are_told_to_go_away_and_their_streams_end_well() {
    let server = SERVER.replace(
        r#"["127.0.0.1:0"]"#,
        r#"[{ address = "127.0.0.1:0", h2c = true }]"#,
    );
    let (gate, upstream, hold) = held(&server).await;
    let client = Http2Client::connect(gate.address()).await;
    let request = Request::get("/poll");
    let (polled, ()) = within("the end", async {
        tokio::join!(client.request(&request), async {
            upstream.until("the request", |a| !a.is_empty()).await;
            tokio::join!(gate.running.drain(), async {
                until_closed(&gate).await;
                // Refused by the caller's own side: it has been told.
                within("GOAWAY", async {
                    while !client.is_told_to_go().await {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
                .await;
                hold.open();
            });
        })
    })
    .await;
    assert_eq!(polled.unwrap().status, 200);
    assert_eq!(upstream.attempts().len(), 1);
}

#[tokio::test]
async fn until_the_pause_is_over_requests_are_served_while_readiness_is_false() {
    let server = SERVER.replace("drain_delay = \"0s\"", "drain_delay = \"5m\"");
    let (gate, _upstream, hold) = held(&server).await;
    hold.open();
    let drain = gate.running.drain();
    let seen = async {
        within("readiness to be false", async {
            while gate.admin("/readyz").await.status != 503 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        // A new connection is taken, and the caller sent elsewhere for his next request.
        for _ in 0..2 {
            let response = gate.send(&Request::get("/x")).await;
            assert_eq!(response.status, 200);
            assert_eq!(response.header("connection"), Some("close"));
        }
        gate.running.abort();
    };
    let both = Box::pin(async { tokio::join!(drain, seen) });
    within("the abort", both).await;
}

#[tokio::test]
async fn a_request_that_does_not_end_is_broken_off_at_the_deadline() {
    let server = SERVER.replace("drain = \"10s\"", "drain = \"50ms\"");
    let (gate, upstream, _hold) = held(&server).await;
    let mut client = gate.client().await;
    let request = Request::get("/never");
    let (broken, ()) = within("the end", async {
        tokio::join!(client.request(&request), async {
            upstream.until("the request", |a| !a.is_empty()).await;
            gate.running.drain().await;
        })
    })
    .await;
    assert!(broken.is_err());
}

#[tokio::test]
async fn it_starts_with_everything_down_and_is_ready_when_they_return() {
    let issuer = IssuerServer::start(&[&SHARED[1]]).await;
    let exchange = Upstream::http1(|_| Reply::new(503, "")).await;
    let upstream = Upstream::http1(|_| Reply::ok()).await;
    for down in [&issuer.server, &exchange, &upstream] {
        down.down().await;
    }
    let gate = Gate::start(&format!(
        "[[issuer]]\nname = \"idp\"\nurl = \"{}\"\naudiences = [\"api\"]\n\
         [[source]]\nname = \"login\"\nkind = \"taskcluster-login\"\nurl = \"{}/login\"\n\
         [[route]]\nname = \"main\"\npath = \"/\"\nissuers = [\"idp\"]\nsource = \"login\"\nupstream = \"{}\"\n",
        issuer.issuer(),
        exchange.url(),
        upstream.url(),
    ))
    .await;
    let now = SystemClock::shared().now().as_secs();
    let token = SHARED[1].token("ES256", &claims(&issuer.issuer(), "api", now));
    let ask = async || gate.send(&Request::get("/x").bearer(&token)).await;
    assert_eq!(gate.admin("/healthz").await.status, 200);
    for page in ["/readyz", "/startupz"] {
        let unready = gate.admin(page).await;
        assert_eq!(unready.status, 503, "{page}");
        assert!(unready.text().contains("issuer idp"), "{}", unready.text());
    }
    let refused = ask().await;
    assert_eq!(
        (refused.status, refused.refusal()),
        (503, Some("keys_unavailable"))
    );
    assert!(refused.header("retry-after").is_some());

    issuer.server.up().await;
    within("readiness", async {
        while gate.admin("/readyz").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(gate.admin("/startupz").await.status, 200);
    let refused = ask().await;
    assert_eq!(
        (refused.status, refused.refusal()),
        (503, Some("exchange_unavailable"))
    );

    exchange.script(|_| {
        let expires = "2999-01-01T00:00:00.000Z";
        let body = format!(
            r#"{{"expires":"{expires}","credentials":{{"clientId":"c","accessToken":"an-access-token-of-some-length"}}}}"#
        );
        Reply::new(200, body).header("content-type", "application/json")
    });
    exchange.up().await;
    upstream.up().await;
    within("everything to work", async {
        while ask().await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
