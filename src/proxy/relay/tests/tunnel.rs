//! Upgraded connections whose upstream or caller is slow or gone, over in-memory streams where
//! possible.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::{SocketDigest, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use crate::clock::ManualClock;
use crate::clock::UnixMillis;
use crate::gateway::route::tests as fixture;
use crate::proxy::drain::Signal;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::h1::client::Pool;
use crate::proxy::h1::server::serve;
use crate::proxy::relay::body::RequestBody;
use crate::proxy::relay::duplex::{Caller, Duplex};
use crate::proxy::replay::BodyLimits;
use crate::proxy::service::{Request, Served, Service};
use crate::proxy::test_support::{TestConn, limits};
use crate::proxy::transport::Transport;
use crate::proxy::upstream::Upstream;

/// The upstream's timeouts.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The number of bytes that an upstream leaves unread before writes to it wait.
const ROOM: usize = 64;

/// Upgrades each connection, to an upstream with little room.
struct Upgrade {
    upstream: Mutex<Option<DuplexStream>>,
    ended: mpsc::UnboundedSender<Option<RelayError>>,
}

#[async_trait]
impl Service for Upgrade {
    async fn serve(&self, request: Request<'_>) -> Served {
        let pool = Pool::new(ManualClock::at(UnixMillis::from_secs(0)));
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let io = self.upstream.lock().await.take().unwrap();
        let target = Arc::new(fixture::upstream());
        let mut upstream = Upstream::H1(pool.begin(&target, address, Box::new(io)));
        upstream.queue_head(&request.head, "/").unwrap();
        let mut caller = Caller {
            downstream: request.downstream,
            body: RequestBody::new(BodyLimits::from(&limits()), false, None),
            deadline: request.deadline,
            write_timeout: TIMEOUT,
            sent: 0,
        };
        let mut duplex = Duplex::new(&mut caller, &mut upstream, (TIMEOUT, TIMEOUT));
        let head = duplex.head().await.unwrap();
        duplex.queue_interim(&head).unwrap();
        let ended = duplex.tunnel(None).await;
        let _ = self.ended.send(ended.err());
        Served::Aborted
    }
}

struct Tunnel {
    upstream: DuplexStream,
    /// The error with which the tunnel ended.
    ended: mpsc::UnboundedReceiver<Option<RelayError>>,
}

/// Upgrades the connection `io` of `caller`.
async fn open(io: Stream, caller: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> Tunnel {
    let (local, mut upstream) = duplex(ROOM);
    let (ended_tx, ended) = mpsc::unbounded_channel();
    let service = Upgrade {
        upstream: Mutex::new(Some(local)),
        ended: ended_tx,
    };
    tokio::spawn(async move {
        let conn = TestConn::new(limits(), Signal::default());
        serve(&service, &conn.info, io, &conn.h1_settings()).await;
    });
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    caller.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(upstream.read_u8().await.unwrap());
    }
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    upstream.write_all(switching).await.unwrap();
    let mut answer = vec![0; switching.len()];
    caller.read_exact(&mut answer).await.unwrap();
    Tunnel { upstream, ended }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_bytes_slowly_is_not_given_up() {
    let (io, mut caller) = duplex(4096);
    let mut tunnel = open(Box::new(io), &mut caller).await;
    let sent = [b'x'; 10 * ROOM];
    caller.write_all(&sent).await.unwrap();
    let mut received = vec![0; sent.len()];
    for part in received.chunks_mut(ROOM) {
        // Longer in all than the timeout for a write.
        tokio::time::advance(TIMEOUT / 2).await;
        tunnel.upstream.read_exact(part).await.unwrap();
    }
    assert_eq!(received, sent);
    assert!(tunnel.ended.try_recv().is_err(), "still open");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_nothing_is_given_up() {
    let (io, mut caller) = duplex(4096);
    let mut tunnel = open(Box::new(io), &mut caller).await;
    caller.write_all(&[b'x'; 2 * ROOM]).await.unwrap();
    let error = tunnel.ended.recv().await.unwrap().unwrap();
    assert_eq!(
        (error.side, error.kind),
        (Side::Upstream, ErrorKind::WriteTimeout)
    );
}

#[tokio::test]
async fn a_reset_by_the_caller_ends_a_tunnel_whose_upstream_takes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut caller, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let caller = caller.as_mut().unwrap();
    let accepted = accepted.unwrap().0;
    let digest = SocketDigest::from_raw_fd(std::os::fd::AsRawFd::as_raw_fd(&accepted));
    let mut tunnel = open(Box::new(Transport::new(accepted, digest)), caller).await;
    caller.write_all(&[b'x'; 2 * ROOM]).await.unwrap();
    caller.set_zero_linger().unwrap();
    drop(std::mem::replace(
        caller,
        TcpStream::connect(address).await.unwrap(),
    ));
    let error = tunnel.ended.recv().await.unwrap().unwrap();
    assert_eq!((error.side, error.kind), (Side::Caller, ErrorKind::Closed));
}
