//! Tests over real sockets on loopback, with a small application in place of hawkgate's hooks.

mod connections;
mod drain;
mod http2;
mod malformed_heads;
mod requests;
mod trusted_proxies;
mod upstream;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};

use super::{BoundServer, ServerHandle, Workers, http_proxy};
use crate::clock::{ManualClock, UnixMillis};
use crate::gateway::outcome::Outcome;
use crate::gateway::reason::Reason;
use crate::proxy::client::{PeerInfo, conn_state};
use crate::proxy::settings::{Address, Limits, Listener, ListenerAccess, ListenerTls, MinRate};

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

#[async_trait]
impl ProxyHttp for Echo {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Err(pingora::Error::new_str("there is no upstream"))
    }

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> pingora::Result<bool> {
        self.served.fetch_add(1, Ordering::SeqCst);
        let head = session.req_header();
        let target = String::from_utf8_lossy(head.raw_path()).into_owned();
        let method = head.method.clone();
        if target == "/wait" {
            self.entered.notify_one();
            self.release.notified().await;
        }
        let state = conn_state(session).unwrap();
        let http2 = session.req_header().version == http::Version::HTTP_2;
        let stream = http2.then(|| state.begin_stream());
        let mut status = http::StatusCode::OK;
        if target == "/refused" {
            status = http::StatusCode::UNAUTHORIZED;
            if http2 {
                drop(stream);
            } else {
                state.release_request();
            }
            if state.request_refused(Reason::TokenExpired) {
                session.set_keepalive(None);
                if http2 {
                    state.evict();
                }
            }
        } else {
            state.request_admitted();
        }
        let mut length = 0;
        if target != "/early" && target != "/refused" {
            while let Some(part) = session.downstream_session.read_request_body().await? {
                length += part.len();
            }
        }
        let body = if target == "/big" {
            Bytes::from(vec![b'x'; 64 * 1024 * 1024])
        } else if target == "/identity" {
            let PeerInfo {
                ip,
                client,
                certificate,
                ..
            } = PeerInfo::from_session(session);
            let name = certificate.map(|c| c.label().to_string());
            Bytes::from(format!("{ip:?} {client:?} {name:?}"))
        } else {
            let PeerInfo { ip, tls, .. } = PeerInfo::from_session(session);
            Bytes::from(format!("{method} {target} {length} {ip:?} {tls}"))
        };
        let mut header = ResponseHeader::build(status, None)?;
        header.insert_header("content-length", body.len())?;
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
        }
        session
            .write_response_header(Box::new(header), false)
            .await?;
        session.write_response_body(Some(body), true).await?;
        Ok(true)
    }

    async fn logging(&self, _: &mut Session, error: Option<&pingora::Error>, (): &mut ()) {
        let _ = self.ended.send(error.is_some());
    }
}

fn limits() -> Limits {
    Limits {
        header_bytes: 32 * 1024,
        url_bytes: 8 * 1024,
        header_timeout: TEST_TIMEOUT,
        body_timeout: TEST_TIMEOUT,
        min_body_rate: MinRate {
            bytes_per_second: 0,
            grace: Limits::BODY_RATE_GRACE,
        },
        keepalive_timeout: TEST_TIMEOUT,
        unadmitted_keepalive: TEST_TIMEOUT,
        linger: Limits::LINGER,
        connections: 100,
        requests_in_flight: 100,
        requests_in_flight_per_address: 100,
        connections_per_address: Some(0),
        body: None,
        replay_body: 0,
        replay_memory: 0,
    }
}

fn tcp() -> Listener {
    Listener {
        address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
        mode: 0o600,
        tls: None,
        h2c: false,
        access: ListenerAccess::default(),
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
            vec![http_proxy(echo, limits, Arc::new(ServerConf::default()))],
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
