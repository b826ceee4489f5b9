//! Closed loops over keep-alive connections. They measure the latency of every request and the
//! CPU time that the proxy uses meanwhile.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client;
use crate::kinds::{Load, Protocol};
use crate::peers::Running;
use crate::support::http1::{self, Connection};
use crate::support::upstream::path;

/// Streams in flight on each HTTP/2 connection.
const STREAMS: usize = 4;

/// Connections of a bulk transfer.
const BULK_CONNECTIONS: usize = 2;

/// The result of a loop.
pub(crate) struct Run {
    /// The latency of each request in microseconds, unsorted.
    pub(crate) latencies: Vec<u32>,
    /// The CPU time of the proxy.
    pub(crate) cpu: Duration,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
}

/// Keeps `in_flight` requests in flight for `length` and, if it is longer, until each connection
/// has completed one. Connections are opened, and used once, before the measurement starts.
pub(crate) async fn run(proxy: &Running, load: Load, in_flight: usize, length: Duration) -> Run {
    let limit = length + Duration::from_mins(1);
    let measure = async {
        match load.protocol {
            Protocol::Http1 => {
                let count = if load.bulk {
                    BULK_CONNECTIONS
                } else {
                    in_flight
                };
                let open = || client::plain(proxy.http);
                http1(proxy, load, count, length, open).await
            }
            Protocol::Http1Tls => {
                let open = || client::tls(proxy.tls, &proxy.tls_http1);
                http1(proxy, load, in_flight, length, open).await
            }
            Protocol::Http2Tls => http2(proxy, load, in_flight, length).await,
        }
    };
    let run = tokio::time::timeout(limit, measure).await;
    run.unwrap_or_else(|_| panic!("{} does not answer", proxy.name))
}

async fn http1<S, F>(
    proxy: &Running,
    load: Load,
    count: usize,
    length: Duration,
    open: impl Fn() -> F,
) -> Run
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = S>,
{
    let request = load.request(proxy.credentials.as_ref());
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::new(open().await);
        connection.exchange(&request).await;
        connections.push(connection);
    }
    let loops = connections.into_iter().map(|connection| {
        let request = request.clone();
        move |end| http1_until(connection, request, end)
    });
    measured(proxy, loops, length).await
}

async fn http1_until<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<S>,
    request: http1::Request,
    end: Instant,
) -> Vec<u32> {
    let mut latencies = Vec::with_capacity(10_000);
    let mut start = Instant::now();
    while start < end {
        connection.exchange(&request).await;
        start = lap(&mut latencies, start);
    }
    latencies
}

async fn http2(proxy: &Running, load: Load, in_flight: usize, length: Duration) -> Run {
    let request = client::http2_get(&path(load.answer), proxy.credentials.as_ref());
    let mut streams = Vec::new();
    for _ in 0..in_flight.div_ceil(STREAMS) {
        let mut sender = client::http2(proxy.tls, &proxy.tls_http2, None).await;
        http2_exchange(&mut sender, &request, load.answer).await;
        streams.extend(std::iter::repeat_n(sender, STREAMS));
    }
    let loops = streams.into_iter().take(in_flight).map(|mut sender| {
        let request = request.clone();
        move |end| async move {
            let mut latencies = Vec::with_capacity(10_000);
            let mut start = Instant::now();
            while start < end {
                http2_exchange(&mut sender, &request, load.answer).await;
                start = lap(&mut latencies, start);
            }
            latencies
        }
    });
    measured(proxy, loops, length).await
}

async fn http2_exchange(sender: &mut SendRequest<Bytes>, request: &Request<()>, answer: usize) {
    std::future::poll_fn(|context| sender.poll_ready(context))
        .await
        .expect("a stream");
    let (response, _) = sender
        .send_request(request.clone(), true)
        .expect("sending a request");
    let response = response.await.expect("receiving an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut received = 0;
    while let Some(piece) = body.data().await {
        let bytes = piece.expect("receiving a body").len();
        received += bytes;
        let flow = body.flow_control();
        flow.release_capacity(bytes).expect("flow control");
    }
    assert_eq!(received, answer, "the length of an answer");
}

/// Adds the time since `start` in microseconds, and returns the time now.
fn lap(latencies: &mut Vec<u32>, start: Instant) -> Instant {
    let now = Instant::now();
    let elapsed = now.duration_since(start).as_micros();
    latencies.push(u32::try_from(elapsed).unwrap_or(u32::MAX));
    now
}

async fn measured<L, F>(proxy: &Running, loops: impl Iterator<Item = L>, length: Duration) -> Run
where
    L: FnOnce(Instant) -> F,
    F: Future<Output = Vec<u32>> + Send + 'static,
{
    let loops: Vec<L> = loops.collect();
    let before = proxy.process.cpu();
    let start = Instant::now();
    let tasks: Vec<_> = loops
        .into_iter()
        .map(|until| tokio::spawn(until(start + length)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a connection's task"));
    }
    Run {
        latencies,
        elapsed: start.elapsed(),
        cpu: proxy.process.cpu().saturating_sub(before),
    }
}
