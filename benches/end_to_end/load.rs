//! A load generator over raw sockets: keep-alive connections, one request under way on
//! each, latencies kept.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where to send what.
#[derive(Clone)]
pub(crate) struct Target {
    /// The proxy.
    pub(crate) address: SocketAddr,
    /// A whole request head, keep-alive, no body.
    pub(crate) request: Vec<u8>,
}

/// What a run yielded.
pub(crate) struct Run {
    /// Latencies of answered requests, unsorted, in microseconds.
    pub(crate) latencies: Vec<u32>,
}

/// Drives `connections` connections for `length`. Panics on any answer but 200: a
/// benchmark of failures is worth nothing.
pub(crate) async fn run(target: Target, connections: usize, length: Duration) -> Run {
    let end = Instant::now() + length;
    let tasks: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(drive(target.clone(), end)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a connection's task"));
    }
    Run { latencies }
}

/// Opens `count` connections, each of which has had one answer, and holds them.
pub(crate) async fn hold(target: Target, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(target.address)
            .await
            .expect("a connection");
        let mut buffer = Vec::with_capacity(4096);
        exchange(&mut stream, &target.request, &mut buffer).await;
        held.push(stream);
    }
    held
}

async fn drive(target: Target, end: Instant) -> Vec<u32> {
    let mut stream = TcpStream::connect(target.address)
        .await
        .expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut latencies = Vec::with_capacity(100_000);
    while Instant::now() < end {
        let start = Instant::now();
        exchange(&mut stream, &target.request, &mut buffer).await;
        latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    latencies
}

async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) {
    stream.write_all(request).await.expect("a request sent");
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.expect("an answer");
        assert!(
            read > 0,
            "the proxy closed: {}",
            String::from_utf8_lossy(buffer)
        );
        if let Some(whole) = answer_length(buffer)
            && buffer.len() >= whole
        {
            return;
        }
    }
}

/// Length of head and body once the head is complete.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let head_end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end]).expect("a head in ASCII");
    assert!(head.starts_with("HTTP/1.1 200"), "not 200: {head}");
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .expect("a Content-Length");
    Some(head_end + length)
}
