//! Tests over real sockets on loopback, with a small service in place of the relay.

mod connections;
mod drain;
mod http2;
mod malformed_heads;
mod requests;
mod trusted_proxies;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::ready;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};

use super::{BoundServer, ServerHandle, Workers};
use crate::clock::{ManualClock, UnixMillis};
use crate::gateway::outcome::Outcome;
use crate::gateway::reason::Reason;
use crate::proxy::client::PeerInfo;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::head::{BodySize, FieldList, ResponseHead};
use crate::proxy::service::{Request, Served, Service};
use crate::proxy::settings::{Address, Limits, Listener, ListenerAccess, ListenerTls};
use crate::proxy::test_support;

/// How long a test waits for any event before it fails.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Responds with method, target, body length and peer. Refuses requests for `/refused`.
struct Echo {
    served: Arc<AtomicUsize>,
    /// A request for `/wait` has arrived.
    entered: Arc<Notify>,
    /// The request for `/wait` may receive its response.
    release: Arc<Notify>,
    /// Whether each request ended with an error.
    ended: mpsc::UnboundedSender<bool>,
}

impl Echo {
    /// Serves one request. Returns whether the connection closes.
    async fn answer(&self, request: &mut Request<'_>) -> Result<bool, RelayError> {
        self.served.fetch_add(1, Ordering::SeqCst);
        let Request {
            head,
            downstream,
            conn,
            stream,
            ..
        } = request;
        let target = head.target().to_owned();
        if target == "/wait" {
            self.entered.notify_one();
            self.release.notified().await;
        }
        let mut status = http::StatusCode::OK;
        let mut close = false;
        if target == "/refused" {
            status = http::StatusCode::UNAUTHORIZED;
            let http2 = stream.take().is_some();
            if !http2 {
                conn.state.release_request();
            }
            if conn.state.request_refused(Reason::TokenExpired) {
                close = true;
                if http2 {
                    conn.state.evict();
                }
            }
        } else {
            conn.state.request_admitted();
        }
        let mut length = 0;
        if target != "/early" && target != "/refused" {
            let body = async {
                while let Some(part) = poll_fn(|cx| downstream.poll_body(cx)).await? {
                    length += part.len();
                }
                Ok(())
            };
            let read = tokio::time::timeout(conn.write_timeout, body).await;
            read.unwrap_or_else(|_| Err(timed_out(ErrorKind::ReadTimeout)))?;
        }
        let peer = PeerInfo::new(conn.peer, conn.tls, Some(&conn.metadata), &head.fields);
        let body = match &*target {
            "/big" => vec![b'x'; 64 * 1024 * 1024],
            "/identity" => {
                let name = peer.certificate.map(|c| c.label().to_string());
                format!("{:?} {:?} {name:?}", peer.ip, peer.client).into_bytes()
            }
            _ => {
                let method = &head.method;
                format!("{method} {target} {length} {:?} {}", peer.ip, peer.tls).into_bytes()
            }
        };
        close |= conn.signal.is_draining() || !downstream.is_body_done();
        let with_body = head.method != http::Method::HEAD;
        let mut fields = FieldList::with_capacity(1, 32);
        fields.push(b"content-length", body.len().to_string().as_bytes());
        let response = ResponseHead {
            status,
            reason: None,
            fields,
            body: if with_body {
                BodySize::Known(body.len() as u64)
            } else {
                BodySize::Empty
            },
        };
        downstream.queue_head(response, close)?;
        let mut left = if with_body { &body[..] } else { &[] };
        let writing = poll_fn(|cx| {
            while !left.is_empty() {
                let written = ready!(downstream.poll_write(cx, left, true))?;
                left = &left[written..];
            }
            downstream.poll_finish(cx, &mut None)
        });
        let within = tokio::time::timeout(conn.write_timeout, writing).await;
        within.unwrap_or_else(|_| Err(timed_out(ErrorKind::WriteTimeout)))?;
        Ok(close)
    }
}

fn timed_out(kind: ErrorKind) -> RelayError {
    RelayError::new(Side::Caller, kind, "timed out")
}

#[async_trait]
impl Service for Echo {
    async fn serve(&self, mut request: Request<'_>) -> Served {
        let answered = self.answer(&mut request).await;
        let _ = self.ended.send(answered.is_err());
        match answered {
            Ok(false) => Served::KeepAlive,
            Ok(true) => Served::Close,
            Err(_) => {
                request.downstream.abort();
                Served::Aborted
            }
        }
    }
}

fn limits() -> Limits {
    Limits {
        header_timeout: TEST_TIMEOUT,
        body_timeout: TEST_TIMEOUT,
        keepalive_timeout: TEST_TIMEOUT,
        unadmitted_keepalive: TEST_TIMEOUT,
        ..test_support::limits()
    }
}

fn tcp() -> Listener {
    Listener {
        address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
        mode: 0o600,
        tls: None,
        h2c: false,
        access: ListenerAccess::default(),
        forward_auth: None,
    }
}

fn tls(files: ListenerTls) -> Listener {
    Listener {
        tls: Some(files),
        ..tcp()
    }
}

/// A running server, and the state that tests observe.
struct TestServer {
    addresses: Vec<Address>,
    handle: ServerHandle,
    served: Arc<AtomicUsize>,
    entered: Arc<Notify>,
    release: Arc<Notify>,
    ended: mpsc::UnboundedReceiver<bool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl TestServer {
    async fn start(listeners: &[Listener], limits: &Limits) -> Self {
        Self::start_on(listeners, limits, Workers::CurrentRuntime).await
    }

    async fn start_on(listeners: &[Listener], limits: &Limits, workers: Workers) -> Self {
        let (ended, ended_rx) = mpsc::unbounded_channel();
        let echo = Echo {
            served: Arc::default(),
            entered: Arc::default(),
            release: Arc::default(),
            ended,
        };
        let (served, entered, release) = (
            echo.served.clone(),
            echo.entered.clone(),
            echo.release.clone(),
        );
        let outcomes: Arc<Mutex<Vec<Outcome>>> = Arc::default();
        let record = outcomes.clone();
        let listeners = BoundServer::bind(listeners, limits).await.unwrap();
        let addresses = listeners.addresses();
        let handle = listeners.serve(
            Arc::new(echo),
            ManualClock::at(UnixMillis::from_secs(1_795_201_809)),
            Arc::new(move |outcome| record.lock().unwrap().push(outcome.clone())),
            workers,
        );
        Self {
            addresses,
            handle,
            served,
            entered,
            release,
            ended: ended_rx,
            outcomes,
        }
    }

    async fn start_plain() -> Self {
        Self::start(&[tcp()], &limits()).await
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.outcomes.lock().unwrap().clone()
    }

    async fn connect(&self) -> TcpStream {
        let Address::Tcp(address) = self.addresses[0] else {
            panic!("no TCP listener")
        };
        TcpStream::connect(address).await.unwrap()
    }

    /// Connects to listener `index` from this loopback address.
    async fn connect_from(&self, source: [u8; 4], index: usize) -> TcpStream {
        let Address::Tcp(address) = self.addresses[index] else {
            panic!("no TCP listener")
        };
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        within_timeout(socket.connect(address)).await.unwrap()
    }

    /// Sends `bytes` and reads until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> Vec<Response> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        read_responses(&mut stream).await
    }
}

/// One response.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

async fn within_timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, future)
        .await
        .expect("took too long")
}

/// Reads one response with a Content-Length.
async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> Response {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within_timeout(stream.read_u8()).await.unwrap());
    }
    let mut response = parse_head(&head);
    let length = response.header("content-length").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    within_timeout(stream.read_exact(&mut body)).await.unwrap();
    response.body = String::from_utf8(body).unwrap();
    response
}

/// Reads all responses until the server closes.
async fn read_responses(stream: &mut (impl AsyncRead + Unpin)) -> Vec<Response> {
    let mut bytes = Vec::new();
    within_timeout(stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    let mut rest = bytes.as_slice();
    let mut responses = Vec::new();
    while !rest.is_empty() {
        let end = 4 + rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let mut response = parse_head(&rest[..end]);
        let length: usize = response.header("content-length").unwrap().parse().unwrap();
        // A response to HEAD ends with its head.
        let length = length.min(rest.len() - end);
        response.body = String::from_utf8(rest[end..end + length].to_vec()).unwrap();
        rest = &rest[end + length..];
        responses.push(response);
    }
    responses
}

fn parse_head(head: &[u8]) -> Response {
    let head = String::from_utf8(head.to_vec()).unwrap();
    Response {
        status: head[9..12].parse().unwrap(),
        body: String::new(),
        head,
    }
}
