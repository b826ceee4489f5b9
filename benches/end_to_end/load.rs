//! A load generator on raw sockets. It uses keep-alive connections with one request in flight on
//! each, and measures the latency of every request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request, and the address to which it is sent.
#[derive(Clone)]
pub(crate) struct Target {
    /// The address of the proxy.
    pub(crate) address: SocketAddr,
    /// A complete keep-alive request without a body.
    pub(crate) request: Vec<u8>,
}

/// The result of a run.
pub(crate) struct Run {
    /// The latency of each request in microseconds, unsorted.
    pub(crate) latencies: Vec<u32>,
}

/// Sends requests on `connections` connections for `length`. Panics on any status other than
/// 200, because figures for failing requests would be meaningless.
pub(crate) async fn run(target: Target, connections: usize, length: Duration) -> Run {
    let end = Instant::now() + length;
    let tasks: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(send_until(target.clone(), end)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a connection's task"));
    }
    Run { latencies }
}

/// Opens `count` connections, completes one request on each, and leaves them idle.
pub(crate) async fn open_idle(target: Target, count: usize) -> Vec<TcpStream> {
    let mut idle = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(target.address)
            .await
            .expect("a connection");
        let mut buffer = Vec::with_capacity(4096);
        exchange(&mut stream, &target.request, &mut buffer).await;
        idle.push(stream);
    }
    idle
}

async fn send_until(target: Target, end: Instant) -> Vec<u32> {
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
    stream.write_all(request).await.expect("sending a request");
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.expect("receiving a response");
        assert!(
            read > 0,
            "the proxy closed the connection: {}",
            String::from_utf8_lossy(buffer)
        );
        if let Some(length) = response_length(buffer)
            && buffer.len() >= length
        {
            return;
        }
    }
}

/// Returns the total length of head and body, once the head is complete.
fn response_length(bytes: &[u8]) -> Option<usize> {
    let head_end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_end]).expect("an ASCII head");
    assert!(head.starts_with("HTTP/1.1 200"), "not 200: {head}");
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .expect("a Content-Length");
    Some(head_end + length)
}
