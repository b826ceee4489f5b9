//! Resident memory: idle, with many connections or unread answers, and during bulk transfers.
//! Each measurement needs a proxy that has just been started.

use std::time::{Duration, Instant};

use crate::client;
use crate::kinds::{Kind, Load, UNREAD};
use crate::load;
use crate::peers::Running;
use crate::support::http1::{Connection, Request};
use crate::support::upstream::path;

/// Connections, or streams, that are held open at a time.
const HELD: usize = 1000;
const STREAMS_PER_CONNECTION: usize = 100;

/// Resident memory in KiB.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Before the first connection.
    pub(crate) start: u64,
    /// In the state that is measured, or the peak during a transfer.
    pub(crate) held: u64,
    /// How many of [`HELD`] answers did not begin.
    pub(crate) missing: usize,
}

/// Measures with [`HELD`] idle connections, each of which has been used once.
pub(crate) async fn idle(proxy: &Running) -> Memory {
    let start = proxy.process.rss();
    let request = Kind::Get1K.load().expect("a load");
    let request = request.request(proxy.credentials.as_ref());
    let mut held = Vec::new();
    for _ in 0..HELD {
        let mut connection = Connection::new(client::plain(proxy.http).await);
        connection.exchange(&request).await;
        held.push(connection);
    }
    measured(proxy, start, 0).await
}

/// Measures with [`HELD`] HTTP/1.1 connections that do not read their answers.
pub(crate) async fn unread_http1(proxy: &Running) -> Memory {
    let start = proxy.process.rss();
    let credentials = proxy.credentials.as_ref();
    let request = Request::new("GET", &path(UNREAD), credentials, 0, UNREAD);
    let mut held = Vec::new();
    let mut missing = 0;
    for _ in 0..HELD {
        let mut stream = client::with_small_buffer(proxy.http).await;
        Connection::new(&mut stream).send(&request).await;
        let readable = tokio::time::timeout(Duration::from_secs(5), stream.readable()).await;
        missing += usize::from(readable.is_err());
        held.push(stream);
    }
    measured(proxy, start, missing).await
}

/// Measures with [`HELD`] HTTP/2 streams whose answers have no window.
pub(crate) async fn unread_http2(proxy: &Running) -> Memory {
    let start = proxy.process.rss();
    let request = client::http2_get(&path(UNREAD), proxy.credentials.as_ref());
    let (mut held, mut unanswered) = (Vec::new(), Vec::new());
    let mut missing = 0;
    for _ in 0..HELD / STREAMS_PER_CONNECTION {
        let mut sender = client::http2(proxy.tls, &proxy.tls_http2, Some(0)).await;
        let mut answers = Vec::new();
        for _ in 0..STREAMS_PER_CONNECTION {
            sender = sender.ready().await.expect("a stream");
            let sent = sender.send_request(request.clone(), true);
            answers.push(sent.expect("sending a request").0);
        }
        // nginx sends about 70 heads on a connection whose windows are closed, and no more.
        let end = Instant::now() + Duration::from_secs(5);
        for mut answer in answers {
            match tokio::time::timeout_at(end.into(), &mut answer).await {
                Ok(Ok(answer)) => held.push((answer, sender.clone())),
                Ok(Err(_)) => missing += 1,
                Err(_) => unanswered.push(answer),
            }
        }
    }
    measured(proxy, start, missing + unanswered.len()).await
}

/// Measures the peak during transfers of some hundred MiB.
pub(crate) async fn bulk(proxy: &Running, transfer: Load, length: Duration) -> Memory {
    // The connections and the buffers of an ordinary request are not counted.
    let ordinary = Kind::Post1K.load().expect("a load");
    load::run(proxy, ordinary, 32, Duration::from_millis(200)).await;
    let start = proxy.process.rss();
    proxy.process.reset_peak();
    load::run(proxy, transfer, 32, length).await;
    Memory {
        start,
        held: proxy.process.peak_rss(),
        missing: 0,
    }
}

/// Waits until memory no longer grows.
async fn measured(proxy: &Running, start: u64, missing: usize) -> Memory {
    let mut held = 0;
    loop {
        let now = proxy.process.rss();
        if now <= held {
            break;
        }
        held = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Memory {
        start,
        held,
        missing,
    }
}
